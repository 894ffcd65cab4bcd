"""Program: `torch.export` of a module, and what to do where it balks."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from permgraph.frontend.experts import experts_by_index

_LOUD = ("torch.fx.experimental.symbolic_shapes", "torch.export")


def program_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """The program of one path through the module's code. Raises whatever torch raises, and prints none of it."""

    def export() -> ExportedProgram:
        return torch.export.export(module, args, kwargs, strict=False)

    with _quiet(), experts_by_index(module):
        try:
            return export()
        except torch._dynamo.exc.TorchDynamoException:
            # what dynamo remembers of a loop that ran eagerly before keeps it from tracing that loop again
            torch._dynamo.reset()
        except NotImplementedError:
            pass  # what has no gradient on this device (flex attention on a CPU)
        try:
            return export()
        except NotImplementedError:
            with torch.no_grad():
                return export()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch prints the graph it has when it fails; the error says what matters."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    try:
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
