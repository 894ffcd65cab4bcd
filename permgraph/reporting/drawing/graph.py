"""The permutation graph a person looks at: boxes that hold tensors or join streams, wires that carry groups.

A trace has hundreds of operations; a drawing needs those where something happens to a permutation. A *box* is
an operation that reads a tensor of the state (conv, linear, norm, embedding), joins two streams (a residual
addition, attention), or has no rule. Everything else (views, transposes, dropout, activations) is folded into
the wire or, when worth a word, named in the box it follows. A *wire* is the data flow from box to box.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import networkx as nx

from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec, Pin, Place
from permgraph.ir.trace import Node, Trace
from permgraph.reporting.drawing.flow import Flow, short

Layout = tuple[str, ...]
Item = TypeVar("Item", Place, Pin)

# Axis of a weight on which an op's inputs and outputs lie. A bias is always on the output side.
_AXES = {"linear": (1, 0), "embedding": (None, 1), "mm": (0, 1), "addmm": (0, 1), "matmul": (0, 1)}
# Ops that hold several weights, each (outputs, inputs), and consume inside what they produce.
_RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))
_JOINS = {
    "add": "+",
    "mul": "×",
    "sub": "−",
    "div": "÷",
    "cat": "concat",
    "matmul": "matmul",
    "bmm": "matmul",
}


WHOLE = -1  # the axis of a place that says which of several equal tensors it is


@dataclass(frozen=True)
class Box:
    """One box.

    name       of its node in the trace
    kind       "weight", "join", "input", "output", or "unknown" (an op without a rule)
    title      last part of its module's path, or a sign for a join
    detail     what it is: "Linear 768 → 3072", "Conv1d 512 → 512, k3, s2"
    tensors    state tensors it reads; `weight` is the largest, `axes` its input and output axis when known
    through    the same units leave that enter (a norm, an addition)
    enters, leaves   layouts of the groups on its input and output side; None when no weight says
    follows    activations and pools that follow it, folded in
    places     where groups lie on its tensors
    steps      places at which it is permuted or un-permuted (of the plan, when there is one)
    takes, gives   layouts that a step re-orders on its input side, on its output side
    pins       what holds its axes
    """

    name: str
    kind: str
    op: str
    module: str
    title: str
    detail: str = ""
    tensors: tuple[str, ...] = ()
    weight: str = ""
    axes: tuple[int | None, int] | None = None
    through: bool = False
    enters: frozenset[Layout] | None = None
    leaves: frozenset[Layout] | None = None
    follows: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    steps: tuple[Place, ...] = ()
    takes: frozenset[Layout] = frozenset()
    gives: frozenset[Layout] = frozenset()
    pins: tuple[Pin, ...] = ()

    @property
    def vague(self) -> bool:
        """Whether which axes of its weight lie where is not known: attention with a table of biases, say."""
        known = self.axes is not None or self.through or self.op in _RECURRENT
        return self.kind == "weight" and not known

    def on_input(self, item: Place | Pin) -> bool:
        """Whether an axis of one of its tensors lies on its input side."""
        if self.op in _RECURRENT:
            return item.axis == 1
        if self.axes is not None:
            return item.tensor == self.weight and item.axis == self.axes[0]
        return not isinstance(item, Place) or item.side == "un-permute"

    def on_output(self, item: Place | Pin) -> bool:
        """Whether an axis of one of its tensors lies on its output side."""
        if self.op in _RECURRENT:
            return item.axis in (0, WHOLE)
        if self.axes is not None:
            return item.tensor != self.weight or item.axis in (self.axes[1], WHOLE)
        return not isinstance(item, Place) or item.side == "permute"


@dataclass(frozen=True)
class Wire:
    """What flows between two boxes.

    layouts   of the groups that ride on it; empty when it is pinned
    reasons   why it is pinned
    """

    layouts: frozenset[Layout] = frozenset()
    reasons: tuple[str, ...] = ()

    def __or__(self, other: Wire) -> Wire:
        return Wire(self.layouts | other.layouts, tuple(dict.fromkeys(self.reasons + other.reasons)))


def build(trace: Trace, spec: PermSpec, plan: Plan | None = None) -> nx.DiGraph:
    """The graph: a `Box` in "box" of each node, a `Wire` in "wire" of each edge; boxes in execution order."""
    flow = Flow(trace, {op.node for op in spec.unknown_ops})
    places = _by_box(flow, _by_member(spec, spec.places))
    pins = _by_box(flow, spec.pinned)
    steps = frozenset(_by_member(spec, plan.steps if plan else spec.places))
    graph = nx.DiGraph()
    for name in flow.boxes:
        here = places.get(name, [])
        box = _with_sides(_box(trace, flow, name), here)
        box = replace(box, places=tuple(here), pins=tuple(pins.get(name, ())))
        graph.add_node(name, box=_with_steps(box, tuple(p for p in here if p in steps)))
    graph.add_edges_from((tail, name) for name in flow.boxes for tail in flow.tails[name])
    layouts = _layouts(graph)
    for tail, head in graph.edges:
        graph.edges[tail, head]["wire"] = _wire(graph, tail, head, layouts[tail, head])
    return graph


def _by_member(spec: PermSpec, places: Iterable[Place]) -> Iterator[Place]:
    """Places on joined tensors as places on each member, the order of the members as one on its output side."""
    for place in places:
        joined = spec.joined.get(place.tensor)
        for member in spec.members(place.tensor):
            outer = joined is not None and joined.axis is None
            yield replace(place, tensor=member, axis=place.axis - outer) if joined else place


def _by_box(flow: Flow, items: Iterable[Item]) -> dict[str, list[Item]]:
    """Places or pins by the boxes they lie at: all that read the tensor, or those their node is part of."""
    readers: dict[str, list[str]] = {}
    found: dict[str, list[Item]] = {}
    for item in items:
        if item.tensor not in readers:
            readers[item.tensor] = flow.readers(item.tensor)
        for box in readers[item.tensor] or list(flow.owners.get(item.node, {})):
            found.setdefault(box, []).append(item)
    return found


def _box(trace: Trace, flow: Flow, name: str) -> Box:
    node = trace.by_name[name]
    tensors, follows = tuple(flow.reads[name]), tuple(flow.follows.get(name, ()))
    op = short(node.op)
    title = node.module.rpartition(".")[2] or op
    if node.op in ("input", "output"):
        shape = " × ".join(str(n) for n in node.shape)
        return Box(name, node.op, op, "", node.name, shape)
    if name in flow.unknown:
        return Box(name, "unknown", op, node.module, title, f"{op}: no rule", tensors, follows=follows)
    if not tensors:
        sign = "attention" if "attention" in op else _JOINS.get(op, op)
        through = op in ("add", "mul", "sub", "div")
        return Box(name, "join", op, node.module, sign, through=through, follows=follows)
    weight = max(tensors, key=lambda t: (len(trace.state[t].shape), math.prod(trace.state[t].shape)))
    shape_of = trace.state[weight].shape
    axes = axes_of(op) if len(shape_of) > 1 else None
    depthwise = "conv" in op and shape_of[0] > 1 and _groups(node) == shape_of[0]
    through = len(shape_of) < 2 or op in ("add", "mul") or depthwise
    detail = _detail(trace, node, weight)
    if op == "add":  # a learned position, say, that is no module of its own
        title, detail = f"+ {weight.removeprefix(f'{node.module}.')}", "×".join(str(n) for n in shape_of)
    return Box(
        name, "weight", op, node.module, title, detail, tensors, weight, axes, through, follows=follows
    )


def _with_sides(box: Box, places: list[Place]) -> Box:
    """The box with the layouts that its places say enter and leave it; a join has no say."""
    if box.kind != "weight":
        return box
    if box.through:
        both = frozenset(p.layout for p in places)
        return replace(box, enters=both, leaves=both)
    enters = frozenset(p.layout for p in places if box.on_input(p))
    leaves = frozenset(p.layout for p in places if box.on_output(p))
    if box.op in _RECURRENT:
        return replace(box, enters=enters - leaves, leaves=leaves)
    if box.axes is None:  # which axes lie where is not known, so nothing here says "pinned"
        return replace(box, enters=enters or None, leaves=leaves or None)
    return replace(box, enters=None if box.axes[0] is None else enters, leaves=leaves)


def _with_steps(box: Box, steps: tuple[Place, ...]) -> Box:
    takes = frozenset(p.layout for p in steps if box.on_input(p) and not box.through)
    gives = frozenset(p.layout for p in steps if box.on_output(p) or box.through)
    if box.op in _RECURRENT:
        takes -= gives
    return replace(box, steps=steps, takes=takes, gives=gives)


def axes_of(op: str) -> tuple[int | None, int] | None:
    """Axes of an op's weight on its input and its output side; None when not known."""
    if "conv" in op:
        return (0, 1) if "transpose" in op else (1, 0)
    return _AXES.get(op)


def _groups(node: Node) -> int:
    groups = node.options.get("groups", 1)
    return groups if isinstance(groups, int) else 1


def _detail(trace: Trace, node: Node, weight: str) -> str:
    shape, op = trace.state[weight].shape, short(node.op)
    kind = node.module_type.removeprefix("Parametrized") or op
    axes = axes_of(op)
    if axes is None or axes[0] is None or len(shape) < 2:
        return " ".join([kind, "×".join(str(n) for n in shape)])
    if "conv" not in op:
        return f"{kind} {shape[axes[0]]} → {shape[axes[1]]}"
    groups = _groups(node)
    # axis 1 of a grouped convolution's weight counts the channels of one group
    width = [shape[0], shape[1] * groups]
    ends = f"{width[axes[0]]} → {width[axes[1]]}"
    strides = node.options.get("stride", ())
    words = [f"{kind} {ends}", "k" + "×".join(str(n) for n in shape[2:])]
    words += [f"s{strides[0]}"] if isinstance(strides, tuple) and strides and strides[0] != 1 else []
    words += [f"{groups} groups"] if groups > 1 else []
    return ", ".join(words)


def _layouts(graph: nx.DiGraph) -> dict[tuple[str, str], frozenset[Layout] | None]:
    """Layouts on every wire: said by the weights at its ends, or carried through joins."""
    known: dict[tuple[str, str], frozenset[Layout] | None] = {}
    for tail, head in graph.edges:
        known[tail, head] = _between(graph.nodes[tail]["box"], graph.nodes[head]["box"])
    for _ in range(len(graph)):
        unknown = [edge for edge, layouts in known.items() if layouts is None]
        found = {edge: _carried(graph, edge, known) for edge in unknown}
        known.update({edge: layouts for edge, layouts in found.items() if layouts is not None})
        if not any(layouts is not None for layouts in found.values()):
            break
    return known


def _between(tail: Box, head: Box) -> frozenset[Layout] | None:
    """What both ends of a wire say; a box whose axes are not known gives way to one that knows."""
    a, b = tail.leaves, head.enters
    if a is None or b is None:
        return b if a is None else a
    if not a & b and b and tail.vague:
        return b
    return a if not a & b and a and head.vague else a & b


def _carried(
    graph: nx.DiGraph, edge: tuple[str, str], known: dict[tuple[str, str], frozenset[Layout] | None]
) -> frozenset[Layout] | None:
    tail, head = edge
    near = list(graph.in_edges(tail)) if graph.nodes[tail]["box"].kind == "join" else []
    if graph.nodes[tail]["box"].through:
        near += graph.out_edges(tail)
    if graph.nodes[head]["box"].through:
        near += [*graph.in_edges(head), *graph.out_edges(head)]
    found = [layouts for e in near if (layouts := known[e]) is not None]
    return frozenset[Layout]().union(*found) if found else None


def _wire(graph: nx.DiGraph, tail: str, head: str, layouts: frozenset[Layout] | None) -> Wire:
    a, b = graph.nodes[tail]["box"], graph.nodes[head]["box"]
    if not layouts:
        pins = [p for p in b.pins if b.on_input(p)] + [p for p in a.pins if a.on_output(p)]
        return Wire(reasons=tuple(dict.fromkeys(p.reason for p in pins)))
    return Wire(layouts)
