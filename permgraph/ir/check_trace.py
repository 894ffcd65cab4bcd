"""Check a trace: every name once, everything computed before it is used, shapes that can be, one output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from permgraph.errors import TraceError, nearest
from permgraph.ir.ref import Ref

if TYPE_CHECKING:
    from permgraph.ir.trace import Node, Trace

MAX_AXES = 64
MAX_COORDINATES = 2**28  # inference gives each coordinate of each axis of the state a label of 8 bytes


def check_trace(trace: Trace) -> None:
    """Raises TraceError that names the node or the tensor at fault."""
    _check_state(trace)
    known: dict[str, Node] = {}
    for index, node in enumerate(trace.nodes):
        where = f"nodes[{index}] ({node.name}, {node.op})"
        if node.name in known:
            raise TraceError(f"{where}: another node has this name.")
        for ref in node.refs():
            if ref not in known:
                raise TraceError(f"{where}: reads {ref!r}, which no node before it computes.")
        for meta in node.results:
            if meta is not None:
                _check_shape(where, meta.shape)
        if node.op == "state":
            _check_read(where, node, trace)
        elif node.op == "getitem":
            _check_getitem(where, node, known)
        elif node.op == "output":
            _check_output(where, node, index == len(trace.nodes) - 1)
        known[node.name] = node
    if not trace.nodes or trace.nodes[-1].op != "output":
        raise TraceError("nodes: the last one is not the output of the network.")
    _check_unused(trace)
    if not known.keys() >= set(trace.random) or len(set(trace.random)) < len(trace.random):
        raise TraceError("random: names a node twice, or one that is not there.")


def _check_state(trace: Trace) -> None:
    taken: set[str] = set()
    for key, tensor in trace.state.items():
        where = f"state[{key!r}]"
        if tensor.name != key:
            raise TraceError(f"{where}: its name is {tensor.name!r}.")
        if tensor.kind not in ("parameter", "buffer"):
            raise TraceError(f"{where}: kind {tensor.kind!r} is neither 'parameter' nor 'buffer'.")
        _check_shape(where, tensor.shape)
        for name in (key, *tensor.aliases):
            if name in taken:
                raise TraceError(f"{where}: another tensor is named {name!r} too.")
            taken.add(name)
    total = sum(sum(tensor.shape) for tensor in trace.state.values())
    if total > MAX_COORDINATES:
        raise TraceError(f"state: {total:,} coordinates are more than can be labelled ({MAX_COORDINATES:,}).")


def _check_shape(where: str, shape: Iterable[int]) -> None:
    shape = tuple(shape)
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise TraceError(f"{where}: {shape} is not a shape.")


def _check_read(where: str, node: Node, trace: Trace) -> None:
    """A node that reads the state has a tensor's name and its shape."""
    name = node.options.get("tensor")
    if not isinstance(name, str) or name not in trace.state:
        raise TraceError(f"{where}: reads {name!r}, which is no tensor of the state.{_near(name, trace)}")
    if node.shape != trace.state[name].shape:
        raise TraceError(f"{where}: shape {node.shape}, the tensor {name!r} has {trace.state[name].shape}.")


def _near(name: object, trace: Trace) -> str:
    return nearest(name, trace.state) if isinstance(name, str) else ""


def _check_getitem(where: str, node: Node, known: dict[str, Node]) -> None:
    """A node that reads one of several results names a node that has so many, and repeats its shape."""
    source, index = node.operands.get("source"), node.options.get("index")
    if not isinstance(source, Ref) or type(index) is not int:
        raise TraceError(f"{where}: its `source` and `index` are not a node and the number of a result.")
    results = known[source.node].results
    if known[source.node].multiple and not -len(results) <= index < len(results):
        raise TraceError(f"{where}: {source.node} has {len(results)} results, there is no number {index}.")
    if known[source.node].multiple and node.results != (results[index],):
        raise TraceError(f"{where}: shape {node.shape}, result {index} of {source.node} has another.")


def _check_output(where: str, node: Node, last: bool) -> None:
    outputs = node.operands.get("outputs")
    if not isinstance(outputs, tuple) or not all(isinstance(ref, Ref) for ref in outputs):
        raise TraceError(f"{where}: its operand `outputs` is not a list of nodes.")
    if not last:
        raise TraceError(f"{where}: the output is not the last node.")


def _check_unused(trace: Trace) -> None:
    read = {node.options["tensor"] for node in trace.nodes if node.op == "state"}
    unread = set(trace.state) - read
    if unread != set(trace.unused) or len(trace.unused) != len(unread):
        wrong = sorted(unread ^ set(trace.unused))[:3] or ["a name twice"]
        raise TraceError(f"unused: lists other tensors than those that no node reads: {', '.join(wrong)}.")
