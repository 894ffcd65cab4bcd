"""The order of the symmetry group by nauty, from the points and their relations alone.

Inference reads groups off a coloured graph that it builds and simplifies itself. Here the graph is built a second
time, from `Points`, and given to nauty (https://pallini.di.uniroma1.it): equal orders mean that nothing was lost
and nothing invented in between.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations, pairwise

import numpy as np
from pynauty import Graph, autgrp

from permgraph.axes.accumulation import accumulated
from permgraph.axes.exchange import equal_exchanges
from permgraph.axes.points import Labels, Points
from permgraph.axes.propagation import propagate
from permgraph.axes.side_by_side import side_by_side
from permgraph.ir.trace import Trace

FEW_SETS = 4  # sets of equal branches, of which every choice is tried
LARGEST = 6000  # vertices; nauty's matrix has the square of it in bits, and its time grows faster


class TooLarge(Exception):
    """More vertices than nauty can take in reasonable time."""


@dataclass
class ColouredGraph:
    """Vertices with a colour, typed and directed edges; what touches fixed vertices is part of the colour."""

    colour: list[Hashable] = field(default_factory=list)
    edges: set[tuple[int, int, Hashable]] = field(default_factory=set)
    state: set[int] = field(default_factory=set)  # vertices that hold a coordinate of a state tensor


def log10_order(trace: Trace, free_output: bool = False) -> float:
    """log10 of the number of ways in which the coordinates of the state tensors may be re-ordered.

    The automorphisms that leave the state where it is do not count: |Aut| / |Aut with every state vertex fixed|.

    Raises:
        TooLarge: nauty cannot take the graph.
    """
    context = propagate(trace, free_output)
    settled = propagate(trace, free_output, settles=True) if context.chose else context
    orders = [_log10_moves(graph_of(settled.points))]
    if context.slices:  # labelled with an order in each slice as well
        orders.append(_log10_moves(graph_of(propagate(trace, free_output, context.slices).points)))
    return max([*orders, *_of_branches(trace, free_output)])


def _of_branches(trace: Trace, free_output: bool) -> Iterator[float]:
    """With a point for every one of several equal branches, on which all that it makes hangs. Branches that may change
    places can hold what else could move, so they are also tried without some of their sets: every choice of a few sets,
    and all but one of many."""
    sides = side_by_side(accumulated(trace))
    if not sides.sets:
        return
    context = propagate(sides.trace, free_output, {}, sides)
    settled = propagate(sides.trace, free_output, {}, sides, settles=True) if context.chose else context
    sliced = [propagate(sides.trace, free_output, context.slices, sides)] if context.slices else []
    numbers = range(len(sides.sets))
    most = len(numbers) - 1 if len(numbers) <= FEW_SETS else 1
    for left_out in chain.from_iterable(combinations(numbers, n) for n in range(most + 1)):
        for one in (settled, *sliced):
            exchange, _ = equal_exchanges(one.points, sides.without(left_out) if left_out else sides)
            if exchange is not None:
                which = list(exchange.which.values())
                yield _log10_moves(graph_of(exchange.points, np.concatenate(which) if which else None))


def _log10_moves(graph: ColouredGraph) -> float:
    moving = _log10_automorphisms(graph.colour, graph.edges)
    held: list[Hashable] = [(c, v) if v in graph.state else c for v, c in enumerate(graph.colour)]
    return moving - _log10_automorphisms(held, graph.edges)


def graph_of(points: Points, moving: Labels | None = None) -> ColouredGraph:
    """The coloured graph of all points that may move. `moving`: points that stand for whole tensors of the state."""
    sizes = [o.stop - o.start for o in points.origins]
    run = np.repeat(np.arange(len(points.origins)), sizes)
    look = np.repeat([i if o.kin < 0 else o.kin for i, o in enumerate(points.origins)], sizes)
    axis = np.repeat([o.kin if o.longer else i for i, o in enumerate(points.origins)], sizes)
    of = _tied(points)
    pinned = np.zeros(points.count, dtype=bool)
    pinned[points.pins()[0]] = True
    pinned = np.isin(of, np.unique(of[pinned]))
    shared = Counter(zip(of.tolist(), axis.tolist(), strict=True))
    crossed = {c for (c, _), times in shared.items() if times > 1}  # ties relate coordinates of one axis
    apart = np.isin(of, list(crossed))
    loose, own = apart & ~pinned, np.arange(points.count)
    fixed = -1 - np.where(apart, points.count + own, of)
    vertex = np.where(pinned, fixed, np.where(loose, points.count + own, of)).tolist()
    runs = defaultdict(list)
    for v, r in zip(vertex, look.tolist(), strict=True):
        runs[v].append(r)
    alike = Counter(zip(of.tolist(), look.tolist(), strict=True))
    several = {c for (c, _), times in alike.items() if times > 1}  # ends are then told by their axis
    told = np.where(np.isin(of, list(several)) & ~loose, run + len(points.origins), look)
    edges: set[tuple[int, int, Hashable]] = set()
    for what, relations in (("link", points.linked), ("tie", points.tied)):
        for call, (a, b, _) in enumerate(relations):
            if what == "tie":
                a, b = a[loose[a]], b[loose[a]]
            for x, y in zip(a.tolist(), b.tolist(), strict=True):
                if not (pinned[x] and pinned[y]):
                    number = call + (len(points.linked) if what == "tie" else 0)
                    ends = look if number in points.alike else told
                    edges.add((vertex[x], vertex[y], (what, call, int(ends[x]), int(ends[y]))))
    in_state = {v for v in runs if v >= 0 and any(points.origins[r].tensor for r in runs[v])}
    in_state |= {vertex[x] for x in (() if moving is None else moving.tolist()) if vertex[x] >= 0}
    return _settled({v: tuple(r) for v, r in runs.items() if v >= 0}, edges, in_state)


def _tied(points: Points) -> Labels:
    """For every point the smallest one that ties join it to: union-find."""
    parent = list(range(points.count))

    def root(x: int) -> int:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for a, b, _ in points.tied:
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            x, y = root(x), root(y)
            parent[max(x, y)] = min(x, y)
    return np.array([root(x) for x in range(points.count)], dtype=np.int64)


def _settled(
    colour: dict[int, Hashable], edges: set[tuple[int, int, Hashable]], state: set[int]
) -> ColouredGraph:
    """Take out the vertices that are like no other; their edges become part of the colour of the other end."""
    while True:
        around: dict[int, list[Hashable]] = defaultdict(list)
        inner = set()
        for a, b, kind in edges:
            if a == b:
                around[a].append(("loop", kind))
            elif a in colour and b in colour:
                inner.add((a, b, kind))
            elif a in colour:
                around[a].append(("to", b, kind))
            elif b in colour:
                around[b].append(("from", a, kind))
        colour = {v: (c, tuple(sorted(map(repr, around[v])))) for v, c in colour.items()}
        names = {c: i for i, c in enumerate(dict.fromkeys(colour.values()))}
        times = Counter(colour.values())
        alone = {v for v, c in colour.items() if times[c] == 1}
        colour, edges = {v: names[c] for v, c in colour.items()}, edges if alone else inner
        for v in alone:
            del colour[v]
        if not alone:
            break
    index = {v: i for i, v in enumerate(colour)}
    return ColouredGraph(
        list(colour.values()),
        {(index[a], index[b], kind) for a, b, kind in edges},
        {index[v] for v in state if v in index},
    )


def _log10_automorphisms(colour: list[Hashable], edges: set[tuple[int, int, Hashable]]) -> float:
    """By nauty, whose edges have neither type nor direction: those that need them get vertices in between."""
    colour = list(colour)
    kinds = defaultdict(set)
    for a, b, kind in edges:
        kinds[frozenset((repr(colour[a]), repr(colour[b])))].add((kind, repr(colour[a])))
    near: dict[int, list[int]] = defaultdict(list)
    for a, b, kind in sorted(edges, key=repr):
        ends = frozenset((repr(colour[a]), repr(colour[b])))
        path = [a, b]
        if len(ends) == 1:  # ends that look alike: two vertices tell the direction
            path = [a, len(colour), len(colour) + 1, b]
            colour += [("tail", kind), ("head", kind)]
        elif len(kinds[ends]) > 1:
            path = [a, len(colour), b]
            colour.append(("edge", kind, repr(colour[a])))
        for x, y in pairwise(path):
            near[x].append(y)
    if len(colour) > LARGEST:
        raise TooLarge(f"{len(colour):,} vertices")
    if not colour:
        return 0.0
    cells: dict[Hashable, set[int]] = defaultdict(set)
    for v, c in enumerate(colour):
        cells[c].add(v)
    graph = Graph(len(colour), adjacency_dict=dict(near), vertex_coloring=list(cells.values()))
    _, mantissa, exponent, *_ = autgrp(graph)
    return math.log10(mantissa) + float(exponent)
