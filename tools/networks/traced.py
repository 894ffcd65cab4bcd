"""One capture and one inference per network, shared by every test that reads them.

Captures are also shared by the processes of one test run, as files in a folder that tests/conftest.py makes for it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from networks import MODELS
from permgraph.frontend.capture import capture
from permgraph.frontend.sources import load_source
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.symmetry.infer import infer

SHARED = "PERMGRAPH_TEST_TRACES"


@cache
def network(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The network of that name and its example inputs. Not to be modified."""
    return MODELS[name]()


@cache
def trace(name: str) -> Trace:
    """Of a network in MODELS, or of an alias written "alias:hubert"."""
    folder = os.environ.get(SHARED)
    if folder is None:
        return _captured(name)
    file = Path(folder, f"{name.replace(':', '-')}.json")
    if not file.exists():
        mine = file.with_suffix(f".{os.getpid()}")  # another process may be writing the same
        _captured(name).save(mine)
        mine.replace(file)
    return Trace.load(file)


def _captured(name: str) -> Trace:
    if name.startswith("alias:"):
        source = load_source(name.removeprefix("alias:"))
        return capture(source.module, source.args, source.kwargs, source.name)
    module, inputs = network(name)
    return capture(module, inputs, name=name)


@cache
def spec(name: str, free_output: bool = False) -> PermSpec:
    return infer(trace(name), free_output)
