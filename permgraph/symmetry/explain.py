"""Explain: why an axis is in its group, pinned, or tied to another. A shortest path in the graph of ties."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np

from permgraph.axes.points import Labels, Origin, Step
from permgraph.axes.propagation import Propagation, propagate
from permgraph.errors import UsageError, nearest
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.symmetry.infer import infer

_AXIS = re.compile(r"(?P<tensor>.+?)\[(?P<axis>-?\d+)\]")


@dataclass(frozen=True)
class Reason:
    """One step of an explanation: two axes, what relates them, and the op that says so.

    kind  "tie" (move together), "block" (units of one are blocks of the other), "pin"
    ops   the nodes through which the points of `here` reach that op
    """

    here: str
    there: str
    kind: str
    node: str
    op: str
    module: str
    source: str
    rule: str
    ops: tuple[str, ...] = ()


def why(trace: Trace, axis: str, other: str | None = None, free_output: bool = False) -> list[Reason]:
    """The chain from `axis` to `other`, or to what pins it, or to the nearest axes it is tied to.

    Args:
        axis, other: "encoder.layers.3.attention.q_proj.weight[0]".

    Raises:
        UsageError: no such tensor or axis.
    """
    free_output = free_output or trace.free_output
    context = propagate(trace, free_output)
    graph = relations(trace, context)
    a = _vertex(trace, axis)
    if other is not None:
        return _path(trace, graph, a, _vertex(trace, other))
    ties = graph.edge_subgraph([(x, y) for x, y, kind in graph.edges(data="kind") if kind != "block"])
    pins = [v for v in ties if isinstance(v, str) and v.startswith("pin:")] if a in ties else []
    lengths = nx.single_source_shortest_path_length(ties, a) if a in ties else {}
    reached = sorted((lengths[p], p) for p in pins if p in lengths)
    if reached:
        return _path(trace, ties, a, reached[0][1])
    near = [v for v in graph.neighbors(a)] if a in graph else []
    return [_reason(trace, graph, a, v) for v in near]


def describe(spec: PermSpec, axis: str) -> str:
    """What an axis is made of: its groups, side and sizes, or that it is held in place."""
    match = _AXIS.fullmatch(axis)
    assert match is not None
    tensor, number = match["tensor"], int(match["axis"]) % max(1, len(spec.tensors[match["tensor"]]))
    size = spec.tensors[tensor][number]
    parts = []
    for place in spec.places:
        if (place.tensor, place.axis) == (tensor, number):
            inside = " × ".join(f"{name} {spec.by_name[name].size}" for name in place.layout)
            parts.append(f"{place.side} by {inside}")
    held = [p for p in spec.pinned if (p.tensor, p.axis) == (tensor, number)]
    parts += [f"{p.count} of {size} pinned: {p.reason}" for p in held]
    if tensor in spec.unused:
        parts.append("the network never reads this tensor")
    return f"{tensor}[{number}], {size} coordinates: " + (
        "; ".join(parts) or "held in place, told apart by what they are linked to"
    )


def relations(trace: Trace, context: Propagation) -> nx.Graph:
    """Axes (and points made by ops) as vertices; ties, blocks and pins as edges with their step."""
    graph = nx.Graph()
    points = context.points
    starts = np.array([o.start for o in points.origins])

    def runs(labels: Labels) -> Labels:
        return np.searchsorted(starts, labels, side="right") - 1

    for kind, rows in (("tie", points.tied), ("block", points.linked)):
        for a, b, step in rows:
            pairs = np.unique(np.stack([runs(a), runs(b)]), axis=1).T
            for x, y in pairs[:64].tolist():
                u, v = _name(points.origins[x]), _name(points.origins[y])
                if u != v and not (graph.has_edge(u, v) and graph[u][v]["kind"] == "tie"):
                    graph.add_edge(u, v, kind=kind, step=step)
    for labels, reason in points.pinned:
        for x in np.unique(runs(labels)).tolist():
            pin = f"pin:{reason.text}:{reason.step.node}"
            graph.add_edge(_name(points.origins[x]), pin, kind="pin", step=reason.step)
    return graph


def _name(origin: Origin) -> str:
    return (
        f"{origin.tensor}[{origin.axis}]" if origin.tensor else f"points {origin.start} made at {origin.node}"
    )


def _vertex(trace: Trace, text: str) -> str:
    match = _AXIS.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r}: write an axis as tensor[number], for example encoder.layer.weight[0].")
    tensor, axis = match["tensor"], int(match["axis"])
    for state in trace.state.values():
        if tensor in state.aliases:
            tensor = state.name
    if tensor not in trace.state:
        raise UsageError(f"{tensor}: the network has no such tensor.{nearest(tensor, trace.state)}")
    rank = len(trace.state[tensor].shape)
    if not -rank <= axis < rank:
        raise UsageError(f"{text}: the tensor has {rank} axes, 0 to {rank - 1}.")
    return f"{tensor}[{axis % rank}]"


def _path(trace: Trace, graph: nx.Graph, a: str, b: str) -> list[Reason]:
    if a not in graph or b not in graph or not nx.has_path(graph, a, b):
        return []
    weight = {"tie": 1.0, "pin": 1.0, "block": 3.0}
    path = nx.shortest_path(graph, a, b, weight=lambda u, v, d: weight[d["kind"]])
    return [_reason(trace, graph, x, y) for x, y in pairwise(path)]


def _reason(trace: Trace, graph: nx.Graph, here: str, there: str) -> Reason:
    edge = graph[here][there]
    step: Step = edge["step"]
    node = trace.by_name.get(step.node)
    return Reason(
        _shown(here),
        _shown(there),
        edge["kind"],
        step.node,
        node.op if node else "",
        node.module if node else "",
        node.source if node else "",
        step.rule,
        _flow(trace, here, step.node),
    )


def _shown(vertex: str) -> str:
    if vertex.startswith("pin:"):
        return f"pinned: {vertex.split(':')[1]}"
    return re.sub(r"^points \d+ made", "points made", vertex)


def _flow(trace: Trace, axis: str, node: str) -> tuple[str, ...]:
    """Ops between a tensor and a node, along the data."""
    match = _AXIS.fullmatch(axis)
    start = next(
        (n.name for n in trace.nodes if n.op == "state" and match and n.options["tensor"] == match["tensor"]), None
    )
    if start is None or node not in trace.by_name:
        return ()
    graph = nx.DiGraph((ref, n.name) for n in trace.nodes for ref in n.refs())
    if start not in graph or node not in graph or not nx.has_path(graph, start, node):
        return ()
    return tuple(nx.shortest_path(graph, start, node)[1:])


def explain_text(trace: Trace, axis: str, other: str | None = None, free_output: bool = False) -> str:
    """The explanation as lines for a person."""
    spec = infer(trace, free_output)
    lines = [describe(spec, _vertex(trace, axis))]
    if other is not None:
        lines.append(describe(spec, _vertex(trace, other)))
    chain = why(trace, axis, other, free_output)
    if not chain and other is not None:
        lines.append("Nothing ties the two: they can be permuted independently of each other.")
    words = {"tie": "moves together with", "block": "belongs to the same blocks as", "pin": "is"}
    for reason in chain:
        lines.append(f"  {reason.here}")
        lines.append(f"    {words[reason.kind]} {reason.there}")
        if reason.op and reason.op != "output":
            lines.append(
                f"    by {reason.op} at {reason.node} ({reason.module or 'the network'}; {reason.source})"
            )
            if reason.rule and reason.rule != reason.op:
                lines.append(f"    rule: {reason.rule}")
        if reason.ops:
            lines.append(f"    through {_shortened(reason.ops)}")
    return "\n".join(lines) + "\n"


def _shortened(ops: tuple[str, ...]) -> str:
    shown = ops if len(ops) <= 12 else (*ops[:6], f"… {len(ops) - 11} more …", *ops[-5:])
    return " → ".join(shown)
