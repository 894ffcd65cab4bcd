"""Tags: the names of the groups, standing on the wires where the groups begin.

A tag is a node and not an edge's label, because Graphviz drops edge labels when it packs columns.
"""

from __future__ import annotations

from itertools import takewhile

import networkx as nx

from permgraph.reporting.drawing.graph import Box, Layout, Wire
from permgraph.reporting.drawing.modules import levels

TAG = "tag"


def tagged(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with tags where groups begin: one for all wires of a box that carry the same."""
    found = nx.DiGraph()
    found.add_nodes_from(graph.nodes(data=True))
    tags: dict[tuple[str, frozenset[Layout]], list[tuple[str, Wire]]] = {}
    for tail, head, wire in graph.edges(data="wire"):
        if wire is None or not wire.layouts or _came_in(graph, tail, wire):
            found.add_edge(tail, head, wire=wire)
        else:
            tags.setdefault((tail, wire.layouts), []).append((head, wire))
    for i, ((tail, layouts), heads) in enumerate(tags.items()):
        name = f"tag {i}"
        ends = [graph.nodes[n]["box"] for n in (tail, *(head for head, _ in heads))]
        found.add_node(name, box=Box(name, TAG, TAG, _common(ends), "", leaves=layouts))
        found.add_edge(tail, name, wire=Wire(layouts, permute=any(w.permute for _, w in heads)))
        for head, wire in heads:
            found.add_edge(name, head, wire=Wire(layouts, unpermute=wire.unpermute))
    return found


def _came_in(graph: nx.DiGraph, tail: str, wire: Wire) -> bool:
    """Whether the units of a wire only pass through its tail, and were named before it."""
    if not graph.nodes[tail]["box"].through:
        return False
    before = [w for *_, w in graph.in_edges(tail, data="wire") if w is not None]
    return any(wire.layouts <= w.layouts for w in before)


def _common(boxes: list[Box]) -> str:
    """The innermost module that holds all boxes."""
    paths = [levels(_place(box)) for box in boxes]
    same = takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    return next(reversed([column[0] for column in same]), "")


def _place(box: Box) -> str:
    if box.kind in ("sign", "input", "output"):
        return ""
    return box.module if box.kind == "join" else box.module.rpartition(".")[0]
