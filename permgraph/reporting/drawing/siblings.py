"""Boxes side by side stand in the order in which they run: q, k and v alike in every layer, which Graphviz leaves open."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx

from permgraph.reporting.drawing.dot import Part
from permgraph.reporting.drawing.graphviz_layout import Positions
from permgraph.reporting.drawing.modules import Module
from permgraph.reporting.drawing.scene import Point


def in_order(part: Part, where: Positions) -> Positions:
    """The layout with siblings in their order. Their wires go along, for siblings have the same neighbours."""
    nodes, wires = dict(where.nodes), dict(where.wires)
    for module in (part.root, *part.root.walk()):
        for row in _siblings(part.graph, module):
            _arrange(part, row, where, nodes, wires)
    return replace(where, nodes=nodes, wires=wires)


def _siblings(graph: nx.DiGraph, module: Module) -> list[list[str]]:
    """Boxes of a frame that read the same boxes and are read by the same boxes, in the order in which they run."""
    alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
    for name in module.boxes:
        alike.setdefault((frozenset(graph.pred[name]), frozenset(graph.succ[name])), []).append(name)
    order = {name: i for i, name in enumerate(graph)}
    return [sorted(row, key=order.__getitem__) for row in alike.values() if len(row) > 1]


def _arrange(
    part: Part,
    row: list[str],
    where: Positions,
    nodes: dict[str, Point],
    wires: dict[tuple[str, str], tuple[Point, ...]],
) -> None:
    ids, cards = part.ids, part.cards
    before = sorted(row, key=lambda name: where.nodes[ids[name]])
    if before == row:
        return
    first, last = before[0], before[-1]
    x = where.nodes[ids[first]][0] - cards[first].width / 2
    right = where.nodes[ids[last]][0] + cards[last].width / 2
    gap = (right - x - sum(cards[name].width for name in row)) / (len(row) - 1)
    for name, other in zip(row, before, strict=True):
        old, card = where.nodes[ids[other]], cards[name]
        nodes[ids[name]] = new = (x + card.width / 2, old[1])
        x += card.width + gap
        for neighbour in (ids[n] for n in part.graph.pred[name]):
            top = (new[0] - old[0], (cards[other].height - card.height) / 2)
            wires[neighbour, ids[name]] = _bent(where.wires[neighbour, ids[other]], (0.0, 0.0), top)
        for neighbour in (ids[n] for n in part.graph.succ[name]):
            low = (new[0] - old[0], (card.height - cards[other].height) / 2)
            wires[ids[name], neighbour] = _bent(where.wires[ids[other], neighbour], low, (0.0, 0.0))


def _bent(curve: tuple[Point, ...], begin: Point, end: Point) -> tuple[Point, ...]:
    """A curve with its first two points and its last two shifted."""
    shifts = [begin, begin, *[(0.0, 0.0)] * (len(curve) - 4), end, end]
    return tuple((x + dx, y + dy) for (x, y), (dx, dy) in zip(curve, shifts, strict=True))
