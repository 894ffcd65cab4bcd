"""Capture: a torch module becomes a Trace, through `torch.export`.

The module is exported as it is (meta, CPU or GPU weights; no values are read but those of small constant
tables), in eval mode, and its training flags are restored afterwards. Decomposition makes the graph functional
(`compound`); higher-order ops are walked into (`walk`, `control`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from permgraph.errors import TraceError
from permgraph.frontend.decomposition import taken_apart
from permgraph.frontend.export import program_of
from permgraph.frontend.flatten import FRAME, Walk, dtype_of, short
from permgraph.ir.trace import Node, StateTensor, Trace

_ASKED = ("aten.item.", "aten._local_scalar_dense.")


def capture(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    name: str | None = None,
) -> Trace:
    """Trace `module(*args, **kwargs)`.

    Args:
        module: any network that `torch.export` can capture; meta-device weights are enough.
        args, kwargs: example inputs on the device of the weights. Batch 1 and a short input do.
        name: what to call it in reports (default: the class name).

    Raises:
        TraceError: the network cannot be captured; the message names the line of model code.
    """
    return flatten(export(module, args, kwargs), module, name)


def export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> ExportedProgram:
    """The functional ATen program of a module at these inputs, in eval mode. Raises TraceError."""
    with _eval_mode(module), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own pytree, about itself
        try:
            program = taken_apart(program_of(module, tuple(args), kwargs or {}))
        except Exception as error:
            raise TraceError(_explain(error, type(module).__name__)) from error
    return program


def flatten(program: ExportedProgram, module: nn.Module, name: str | None = None) -> Trace:
    """A program as a Trace: sub-graphs walked into, dead nodes dropped, names of the module's state."""
    names = _state_names(module)
    walk = Walk(program.graph_signature, names, dict(program.constants), dict(program.state_dict))
    nodes = _live(walk.program(program.graph_module))
    state = _state(module, names)
    read = {node.options["tensor"] for node in nodes if node.op == "state"}
    unused = tuple(s for s in state if s not in read)
    return Trace(name or type(module).__name__, tuple(nodes), state, unused)


def _live(nodes: list[Node]) -> list[Node]:
    """The nodes that the output depends on, the inputs, and what the code asked of a tensor to find its way."""
    needed: set[str] = set()
    kept = []
    for node in reversed(nodes):
        if node.op in ("output", "input") or node.op.startswith(_ASKED) or node.name in needed:
            needed.update(node.refs())
            kept.append(node)
    return kept[::-1]


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Dropout, SpecAugment and layerdrop off while tracing; flags are put back."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in flags:
            child.training = training


def _state_names(module: nn.Module) -> dict[str, str]:
    """Every name of every parameter and persistent buffer → the first name of that tensor."""
    first: dict[int, str] = {}
    names = {}
    for name, tensor in _named_state(module):
        names[name] = first.setdefault(id(tensor), name)
    return names


def _named_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    persistent = set(module.state_dict(keep_vars=True))
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        if name in persistent:
            yield name, tensor


def _state(module: nn.Module, names: dict[str, str]) -> dict[str, StateTensor]:
    state: dict[str, StateTensor] = {}
    for name, tensor in _named_state(module):
        first = names[name]
        if first in state:
            state[first] = replace(state[first], aliases=(*state[first].aliases, name))
            continue
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        state[name] = StateTensor(name, tuple(tensor.shape), dtype_of(tensor.dtype), kind)
    return state


def _explain(error: Exception, name: str) -> str:
    frames = [f for f in FRAME.findall(str(error)) if "/torch/" not in f[0]]
    tail = error.__traceback__
    while not frames and tail is not None:
        path = tail.tb_frame.f_code.co_filename
        if "/torch/" not in path and "permgraph" not in path:
            frames = [(path, str(tail.tb_lineno), "")]
        tail = tail.tb_next
    line = f" at {short(frames[-1][0])}:{frames[-1][1]}" if frames else ""
    first = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
    return (
        f"{name}: torch.export could not capture this network{line}: {first[:300]}. Control flow that depends on the "
        "data must be fixed for tracing: pass concrete example inputs, or a wrapper whose forward takes one path."
    )
