"""Explain: why an axis is in its group, pinned, or tied to another.

The answer is a shortest path over *coordinates*, not over axes: two axes that are each tied to one half of a third
are not related, and no path says so.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from permgraph.axes.points import Labels, Points, Step
from permgraph.axes.propagation import propagate
from permgraph.errors import UsageError, nearest
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.symmetry.infer import infer

_AXIS = re.compile(r"(?P<tensor>.+?)\[(?P<axis>-?\d+)\]")
_WORDS = {"tie": "moves together with", "block": "belongs to the same blocks as", "pin": "is"}
_WIDTH = 80


@dataclass(frozen=True)
class Reason:
    """One step of an explanation: two axes, what relates them, and the op that says so.

    kind  "tie" (move together), "block" (units of one are blocks of the other), "pin"
    ops   the nodes through which the units of `here` reach that op
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
    """The chain from `axis` to `other`, or to what pins it, or to the axes it is tied to directly.

    Args:
        axis, other: written "encoder.layers.3.attention.q_proj.weight[0]".

    Returns:
        One reason per step. Empty when no coordinate of `axis` is related to one of `other`.

    Raises:
        UsageError: no such tensor or axis.
    """
    relations = _Relations(trace, propagate(trace, free_output).points)
    here = relations.axis(axis)
    if other is not None:
        return relations.chain(here, relations.axis(other))
    return relations.to_a_pin(here) or relations.neighbours(here)


class _Relations:
    """The ties and links of a network as a graph over points, with the step that made each edge."""

    def __init__(self, trace: Trace, points: Points) -> None:
        self.trace, self.points = trace, points
        self.starts = np.array([o.start for o in points.origins])
        self.flow = nx.DiGraph((ref, n.name) for n in trace.nodes for ref in n.refs())
        rows = [*points.tied, *points.linked]
        self.a = np.concatenate([a for a, _, _ in rows] or [np.zeros(0, dtype=np.int64)])
        self.b = np.concatenate([b for _, b, _ in rows] or [np.zeros(0, dtype=np.int64)])
        self.step = np.repeat(np.arange(len(rows)), [a.size for a, _, _ in rows])
        self.steps = [step for _, _, step in rows]
        self.tie = self.step < len(points.tied)
        self.pinned = np.zeros(points.count, dtype=bool)
        self.pinned[points.pins()[0]] = True

    def axis(self, text: str) -> Labels:
        """The points of an axis that a user names."""
        tensor, axis = _named(self.trace, text)
        runs = [o for o in self.points.origins if (o.tensor, o.axis) == (tensor, axis)]
        return np.concatenate([np.arange(o.start, o.stop) for o in runs] or [np.zeros(0, dtype=np.int64)])

    def chain(self, here: Labels, there: Labels) -> list[Reason]:
        """By ties alone where there is such a path; else through blocks, but through nothing that is pinned:
        a part of an axis is linked to a pinned point, and so would be related to every other part."""
        both = np.concatenate([here, there])
        ends = np.isin(self.a, both) | np.isin(self.b, both)
        loose = ~(self.pinned[self.a] | self.pinned[self.b]) | ends
        for edges in (self.tie, self.tie | loose):
            graph = self._graph(edges)
            of = connected_components(graph, directed=False)[1]
            shared = np.flatnonzero(np.isin(of[here], of[there]))
            if shared.size:
                start = here[shared[0]]
                return self._walk(self._path(graph, start, there[of[there] == of[start]]))
        return []

    def to_a_pin(self, here: Labels) -> list[Reason]:
        """The shortest chain of ties to a point that some rule pinned."""
        graph = self._graph(self.tie)
        of = connected_components(graph, directed=False)[1]
        held = np.flatnonzero(self.pinned)
        shared = np.flatnonzero(np.isin(of[here], of[held]))
        if not shared.size:
            return []
        start = here[shared[0]]
        path = self._path(graph, start, held[of[held] == of[start]])
        reason = next(r for labels, r in self.points.pinned if path[-1] in labels)
        return [*self._walk(path), self._reason(path[-1], f"pinned: {reason.text}", "pin", reason.step)]

    def neighbours(self, here: Labels) -> list[Reason]:
        """What an axis is tied or linked to directly, each other axis once."""
        near = np.flatnonzero(np.isin(self.a, here) | np.isin(self.b, here))
        mine = np.isin(self.a[near], here)
        there = np.where(mine, self.b[near], self.a[near])
        rows = np.stack([self._run(there), self.step[near]])
        first = np.unique(rows, axis=1, return_index=True)[1]
        kinds = np.where(self.tie[near[first]], "tie", "block")
        return [
            self._reason(here[0], self._name(int(there[i])), str(kind), self.steps[self.step[near[i]]])
            for i, kind in sorted(zip(first.tolist(), kinds, strict=True))
        ]

    def _graph(self, edges: NDArray[np.bool_]) -> csr_matrix:
        ones = np.ones(int(edges.sum()), dtype=np.int8)
        size = self.points.count
        return coo_matrix((ones, (self.a[edges], self.b[edges])), shape=(size, size)).tocsr()

    def _path(self, graph: csr_matrix, start: int, ends: Labels) -> list[int]:
        """Points from `start` to the nearest of `ends`."""
        order, before = breadth_first_order(graph, start, directed=False)
        end = int(order[np.flatnonzero(np.isin(order, ends))[0]])
        path = [end]
        while path[-1] != start:
            path.append(int(before[path[-1]]))
        return path[::-1]

    def _walk(self, path: list[int]) -> list[Reason]:
        """The edges of a path, less those between two units that one op made."""
        return [e for e in (self._edge(x, y) for x, y in pairwise(path)) if e.here != e.there]

    def _edge(self, x: int, y: int) -> Reason:
        found = np.flatnonzero(((self.a == x) & (self.b == y)) | ((self.a == y) & (self.b == x)))
        i = found[np.argmax(self.tie[found])]
        return self._reason(x, self._name(y), "tie" if self.tie[i] else "block", self.steps[self.step[i]])

    def _run(self, points: Labels) -> Labels:
        return np.searchsorted(self.starts, points, side="right") - 1

    def _name(self, point: int) -> str:
        origin = self.points.origins[int(self._run(np.array([point]))[0])]
        return f"{origin.tensor}[{origin.axis}]" if origin.tensor else f"units made at {origin.node}"

    def _reason(self, point: int, there: str, kind: str, step: Step) -> Reason:
        node, here = self.trace.by_name.get(step.node), self._name(point)
        where = (node.op, node.module, node.source) if node else ("", "", "")
        return Reason(here, there, kind, step.node, *where, step.rule, self._between(here, step.node))

    def _between(self, axis: str, node: str) -> tuple[str, ...]:
        """Names of the nodes between a tensor and a node, along the data."""
        tensor, states = axis.rpartition("[")[0], (n for n in self.trace.nodes if n.op == "state")
        start = next((n.name for n in states if n.options["tensor"] == tensor), None)
        if start not in self.flow or node not in self.flow or not nx.has_path(self.flow, start, node):
            return ()
        return tuple(nx.shortest_path(self.flow, start, node)[1:])


def _named(trace: Trace, text: str) -> tuple[str, int]:
    """(tensor, axis) of what a user typed; a further name of a tied tensor is as good as its first."""
    match = _AXIS.fullmatch(text.strip())
    if match is None:
        name = text.strip().partition("[")[0] or "encoder.layer.weight"
        raise UsageError(f"{text!r}: write an axis as tensor[number], for example {name}[0].")
    first = {alias: state.name for state in trace.state.values() for alias in (state.name, *state.aliases)}
    if match["tensor"] not in first:
        raise UsageError(
            f"{match['tensor']}: the network has no such tensor.{nearest(match['tensor'], first)}"
        )
    tensor, axis = first[match["tensor"]], int(match["axis"])
    rank = len(trace.state[tensor].shape)
    if not -rank <= axis < rank:
        raise UsageError(f"{text}: the tensor has {rank} axes, 0 to {rank - 1}.")
    return tensor, axis % rank


def describe(spec: PermSpec, tensor: str, axis: int) -> str:
    """What an axis is made of: its groups, side and sizes, or that it is held in place."""
    size = spec.tensors[tensor][axis]
    parts = []
    for place in spec.places_on(tensor, axis):
        inside = " × ".join(f"{name} {spec.by_name[name].size}" for name in place.layout)
        along = f" (as part of {place.tensor})" if place.tensor != tensor else ""
        parts.append(f"{place.side} by {inside}{along}")
    held = [p for p in spec.pinned if (p.tensor, p.axis) == (tensor, axis)]
    parts += [f"{p.count} of {size} pinned: {p.reason}" for p in held]
    if tensor in spec.unused:
        parts.append("the network never reads this tensor")
    said = "; ".join(parts) or "held in place, distinguished by what it is linked to"
    return f"{tensor}[{axis}], {size} coordinates: {said}"


def explain_text(trace: Trace, axis: str, other: str | None = None, free_output: bool = False) -> str:
    """The explanation as lines for a person, at most 80 columns wide where names allow it."""
    spec = infer(trace, free_output)
    lines = [_wrapped(describe(spec, *_named(trace, text)), 0) for text in (axis, other) if text is not None]
    chain = why(trace, axis, other, free_output)
    if not chain and other is not None:
        lines.append("Nothing relates the two: each can be permuted without the other.")
    return "\n".join([*lines, *(line for reason in chain for line in _lines(reason))]) + "\n"


def explain_json(
    trace: Trace, axis: str, other: str | None = None, free_output: bool = False
) -> dict[str, Any]:
    """The same for machines: what each axis is, and the chain of reasons."""
    spec = infer(trace, free_output)
    axes = [describe(spec, *_named(trace, text)) for text in (axis, other) if text is not None]
    return {"axes": axes, "reasons": [asdict(reason) for reason in why(trace, axis, other, free_output)]}


def _lines(reason: Reason) -> list[str]:
    lines = [_wrapped(reason.here, 2), _wrapped(f"{_WORDS[reason.kind]} {reason.there}", 4)]
    if reason.op and reason.op != "output":
        where = "; ".join(x for x in (reason.module or "the network", reason.source) if x)
        lines.append(_wrapped(f"by {reason.op} at {reason.node} ({where})", 4))
        if reason.rule and reason.rule != reason.op:
            lines.append(_wrapped(f"rule: {reason.rule}", 4))
    if reason.ops:
        lines.append(_wrapped(f"through {' → '.join(reason.ops)}", 4))
    return lines


def _wrapped(text: str, indent: int) -> str:
    """Lines break between words and never inside a name."""
    first, rest = " " * indent, " " * (indent + 4)
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
