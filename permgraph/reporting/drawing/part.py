"""Drawing a part of a network: some groups, or one layer."""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from permgraph.errors import UsageError, nearest
from permgraph.reporting.drawing.graph import Box


def of_groups(graph: nx.DiGraph, groups: Collection[str]) -> nx.DiGraph:
    """The boxes at which the groups' units lie, and the wires that carry them."""
    chosen = set(groups)
    wires = [
        (a, b)
        for a, b, wire in graph.edges(data="wire")
        if any(chosen & set(layout) for layout in wire.layouts)
    ]
    touched = {name for name, box in graph.nodes(data="box") if _touches(box, chosen)}
    keep = touched | {name for wire in wires for name in wire}
    return ordered(graph, keep, wires)


def _touches(box: Box, groups: set[str]) -> bool:
    layouts = (box.enters or frozenset()) | (box.leaves or frozenset())
    return any(groups & set(layout) for layout in layouts)


def of_layer(graph: nx.DiGraph, path: str) -> nx.DiGraph:
    """The boxes of the module `path`, and the boxes just outside of it, dashed. Raises UsageError."""
    inside = {n for n, box in graph.nodes(data="box") if f"{box.module}.".startswith(f"{path}.")}
    if not inside:
        modules = {box.module for _, box in graph.nodes(data="box")}
        levels = {m.rsplit(".", i)[0] for m in modules for i in range(m.count(".") + 1)}
        raise UsageError(f"--layer {path}: no module of that name holds a weight.{nearest(path, levels)}")
    wires = [edge for edge in graph.edges if inside & set(edge)]
    part = ordered(graph, inside.union(*wires), wires)
    for name in set(part) - inside:
        box: Box = graph.nodes[name]["box"]
        title = box.title if box.kind in ("input", "output") else box.module or box.title
        part.nodes[name]["box"] = Box(name, "beyond", box.op, "", title if len(title) > 1 else f"… {title}")
    return part


def ordered(
    graph: nx.DiGraph, boxes: Collection[str], wires: Collection[tuple[str, str]] | None = None
) -> nx.DiGraph:
    """Some boxes of a graph, and some of the wires between them or all, in the order of the graph.

    The subgraphs of networkx are in the order of a set, which differs from run to run.
    """
    part, kept = nx.DiGraph(), set(boxes)
    part.add_nodes_from((name, dict(data)) for name, data in graph.nodes(data=True) if name in kept)
    chosen = None if wires is None else set(wires)
    for tail, head, data in graph.edges(data=True):
        if tail in kept and head in kept and (chosen is None or (tail, head) in chosen):
            part.add_edge(tail, head, **data)
    return part
