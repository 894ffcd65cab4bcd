"""Capture: a torch module becomes a Trace, through `torch.export`, or by running it where that fails.

The module is exported as it is (meta, CPU or GPU weights; no values are read but those of small constant
tables), in eval mode, and its training flags are restored afterwards. Decomposition makes the graph functional
(`decomposition`); higher-order ops are walked into (`flatten`, `control_flow`). Code that reads values of tensors
cannot be exported: then the module runs with its weights, under a recorder (`running`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from permgraph.errors import TraceError
from permgraph.frontend.agreement import check_agreement
from permgraph.frontend.arguments import Call, call_of, exportable
from permgraph.frontend.decomposition import decomposed
from permgraph.frontend.export import program_of
from permgraph.frontend.flatten import Path, Walk
from permgraph.frontend.functional import made_functional
from permgraph.frontend.modules import for_capture, network_of, unwrapped
from permgraph.frontend.outputs import plain_outputs
from permgraph.frontend.random_ops import draws_values
from permgraph.frontend.refusals import refusal, without_values
from permgraph.frontend.running import record
from permgraph.frontend.state import state_names, state_of
from permgraph.frontend.unreached import with_unreached
from permgraph.ir.trace import Node, Trace

_ASKED = (
    "aten.item.",
    "aten._local_scalar_dense.",
    "permgraph.read.",
    "permgraph.size.",
    "permgraph.unreached.",
)


@dataclass(frozen=True)
class Capture:
    """A captured network.

    program  None when it was captured by running it
    names    where a node stands in the program → its name in the trace
    """

    trace: Trace
    call: Call
    program: ExportedProgram | None
    names: Mapping[Path, str]


def capture(
    module: nn.Module | ExportedProgram,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Trace:
    """Trace `module(*args, **kwargs)`.

    Args:
        module: any network that `torch.export` can capture, for which meta-device weights are enough; any other
            with its weights, on the CPU or a GPU.
        args, kwargs: example inputs on the device of the weights. Batch 1 and a short input do. `args` that are no
            tuple or list are one argument; a mapping holds keyword arguments.
        name: what to call it in reports (default: the class name).

    Raises:
        TraceError: the network cannot be captured; the message names the line of model code.
    """
    return captured(module, args, kwargs, name).trace


def captured(
    module: nn.Module | ExportedProgram,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Capture:
    """The trace, and the program it was made from, which calibration runs. Raises TraceError."""
    if isinstance(module, ExportedProgram) and not args and not kwargs and module.example_inputs:
        args, kwargs = module.example_inputs
    network = network_of(module)
    call = call_of(args, kwargs)
    title = name or type(unwrapped(network)[0]).__name__
    with prepared(network) as caches, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks about its own tracing; what fails is an exception
        try:
            program = _exported(network, call)
        except Exception as error:
            nodes, notes = _ran(network, call, error, title)
            return Capture(_trace(title, nodes, network, (*notes, *_left_out(caches))), call, None, {})
    nodes, names = _walked(program, network)
    return Capture(_trace(title, nodes, network, _left_out(caches)), call, program, names)


def rerun(network: nn.Module, call: Call, wanted: frozenset[str]) -> dict[str, Tensor]:
    """The results of some nodes in a network that was captured by running it, for other inputs on the same path."""
    with prepared(network):
        return record(unwrapped(network)[0], call, inner_names(network), wanted).results


@contextmanager
def prepared(network: nn.Module) -> Iterator[list[str]]:
    """The module as it is captured: yields the classes of caches that are left out of its outputs."""
    with for_capture(network), plain_outputs(unwrapped(network)[0]) as caches:
        yield caches


def inner_names(network: nn.Module) -> dict[str, str]:
    """Names of the state as the module inside a wrapper has them → first names as the network has them."""
    prefix = unwrapped(network)[1]
    return {name.removeprefix(prefix): first for name, first in state_names(network).items()}


def _exported(network: nn.Module, call: Call) -> ExportedProgram:
    inner = unwrapped(network)[0]
    with exportable(inner, call) as (args, kwargs):
        program = program_of(inner, args, kwargs)
        return program if made_functional(program) else decomposed(program)


def _walked(program: ExportedProgram, network: nn.Module) -> tuple[list[Node], Mapping[Path, str]]:
    """The nodes of a program: sub-graphs walked into, names of the module's state; and where each stands."""
    walk = Walk(
        program.graph_signature, inner_names(network), dict(program.constants), dict(program.state_dict)
    )
    return walk.program(program.graph_module), walk.named


def _ran(network: nn.Module, call: Call, error: Exception, title: str) -> tuple[list[Node], tuple[str, ...]]:
    """The nodes of a run with real weights, after an export that failed, and what to say of them."""
    inner = unwrapped(network)[0]
    if without_values(inner, call):
        raise TraceError(refusal(error, title, inner, call)) from error
    try:
        recorder = record(inner, call, inner_names(network))
        check_agreement(inner, call, recorder.outputs)
    except Exception as second:
        raise TraceError(refusal(error, title, inner, call, second)) from second
    return with_unreached(recorder.nodes, state_of(network, state_names(network)))


def _trace(title: str, nodes: list[Node], network: nn.Module, notes: tuple[str, ...]) -> Trace:
    state = state_of(network, state_names(network))
    if not any(nodes[-1].refs()):
        raise TraceError(
            f"{title}: its forward returns no tensor, so there is no function to keep. Trace the part that returns one."
        )
    nodes = _live(nodes)
    read = {node.options["tensor"] for node in nodes if node.op == "state"}
    random = tuple(node.name for node in nodes if draws_values(node))
    return Trace(title, tuple(nodes), state, tuple(s for s in state if s not in read), random, notes)


def _live(nodes: list[Node]) -> list[Node]:
    """The nodes that the output depends on, the inputs, and what the code asked of a tensor to find its way."""
    needed: set[str] = set()
    kept = []
    for node in reversed(nodes):
        if node.op in ("output", "input") or node.op.startswith(_ASKED) or node.name in needed:
            needed.update(node.refs())
            kept.append(node)
    return kept[::-1]


def _left_out(caches: list[str]) -> tuple[str, ...]:
    names = ", ".join(dict.fromkeys(caches))
    return (f"left out of the outputs: {names}, a cache that the next call reads",) if names else ()
