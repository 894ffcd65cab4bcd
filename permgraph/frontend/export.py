"""Program: `torch.export` of a module, and what to do where it balks."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram, draft_export
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

_LOUD = ("torch.fx.experimental.symbolic_shapes", "torch.export._draft_export", "torch.export")


def program_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """The program of one path through the module's code. Raises whatever torch raises, and prints none of it.

    Control flow that depends on data takes the path that the example takes, when the weights are there to tell: what
    the code asked of a tensor stays in the program, and so holds in order what the answer depends on.
    """

    def export() -> ExportedProgram:
        return torch.export.export(module, args, kwargs, strict=False)

    with _quiet():
        try:
            return export()
        except torch._dynamo.exc.TorchDynamoException:
            # what dynamo remembers of a loop that ran eagerly before keeps it from tracing that loop again
            torch._dynamo.reset()
            return export()
        except NotImplementedError:
            with torch.no_grad():  # what has no gradient on this device (flex attention on a CPU)
                return export()
        except Exception as error:
            if not _depends_on_data(error) or any(p.is_meta for p in module.parameters()):
                raise
            try:
                return draft_export(module, args, kwargs, strict=False)
            except Exception:
                raise error from None  # the first reason says more


def _depends_on_data(error: Exception) -> bool:
    return isinstance(error, GuardOnDataDependentSymNode) or "data-dependent" in str(error)


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
