"""A deep network is drawn in columns side by side, so that a screen holds it."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_

import networkx as nx
import numpy as np

from permgraph.ir.spec import IntArray
from permgraph.reporting.drawing.graph import Box, Wire
from permgraph.reporting.drawing.part import ordered

# What a further stream across a cut, and a further level of modules cut, cost; an even column costs 1.
_CROSSING, _LEVEL = 0.1, 0.15


def columns(graph: nx.DiGraph, whole: dict[str, str], count: int) -> list[list[str]]:
    """The boxes, in order, cut into at most `count` columns of about equal height.

    Cuts are placed where few streams cross and between modules far apart in the module tree; never between
    two boxes with the same value in `whole`.
    """
    names = list(graph)
    depth = _depths(graph, names)
    height = max(depth.values(), default=0) + 1
    starts = [c for c in range(1, len(names)) if _may_cut(names, depth, whole, c)]
    cost = {c: _cost(graph, names, c) for c in starts}

    @cache
    def rows(begin: int) -> IntArray:
        """Rows of the columns from `begin` to each later box."""
        part = np.asarray([depth[name] for name in names[begin:]])
        return np.maximum.accumulate(part) - np.minimum.accumulate(part) + 1

    def column(begin: int, end: int) -> float:
        return float((rows(begin)[end - begin - 1] * count / height) ** 3)

    @cache
    def best(begin: int, parts: int) -> tuple[float, tuple[int, ...]]:
        """Least cost of the boxes from `begin` on, in `parts` columns at most, and the cuts."""
        rest: tuple[float, tuple[int, ...]] = (column(begin, len(names)), ())
        if parts == 1:
            return rest
        found = [rest]
        for c in (c for c in starts if c > begin):
            sum_after, cuts = best(c, parts - 1)
            found.append((column(begin, c) + cost[c] + sum_after, (c, *cuts)))
        return min(found)

    cuts = best(0, count)[1]
    return [names[a:b] for a, b in zip((0, *cuts), (*cuts, len(names)), strict=True)]


def _depths(graph: nx.DiGraph, names: list[str]) -> dict[str, int]:
    """Row of every box: the longest way to it along wires that go forward."""
    place = {name: i for i, name in enumerate(names)}
    depth: dict[str, int] = {}
    for name in names:
        above = [depth[t] for t in graph.predecessors(name) if place[t] < place[name]]
        depth[name] = 1 + max(above, default=-1)
    return depth


def _may_cut(names: list[str], depth: dict[str, int], whole: dict[str, str], cut: int) -> bool:
    before, after = names[cut - 1], names[cut]
    return depth[after] > depth[before] and (after not in whole or whole[after] != whole.get(before))


def _cost(graph: nx.DiGraph, names: list[str], cut: int) -> float:
    """What a cut costs: streams across it, and levels of modules it goes through."""
    above, below = set(names[:cut]), set(names[cut:])
    tails = {tail for tail, head in graph.edges if tail in above and head in below}
    a, b = (graph.nodes[names[i]]["box"].module.split(".") for i in (cut - 1, cut))
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return _CROSSING * (len(tails) - 1) + _LEVEL * shared


def split(graph: nx.DiGraph, parts: list[list[str]]) -> list[nx.DiGraph]:
    """One graph per column. A wire from one column to another ends at a port "out", and begins again at one "into".

    All wires of a box that leave its column share a port, and so do those of a box that enter another column.
    """
    home = {name: i for i, part in enumerate(parts) for name in part}
    found = [ordered(graph, part) for part in parts]
    for tail, head, wire in graph.edges(data="wire"):
        if home[tail] == home[head]:
            continue
        out, into = _port(graph, tail, "out"), _port(graph, tail, "into", home[head])
        leaves, enters = found[home[tail]], found[home[head]]
        leaves.add_node(out.name, box=out)
        enters.add_node(into.name, box=into)
        before = leaves.edges[tail, out.name]["wire"] if leaves.has_edge(tail, out.name) else Wire()
        leaves.add_edge(tail, out.name, wire=before | wire)
        enters.add_edge(into.name, head, wire=wire)
    return found


def crossings(parts: list[nx.DiGraph]) -> list[tuple[int, str, int, str, Wire]]:
    """The ways between columns: column and port of the beginning, column and port of the end, what they carry."""
    found = []
    for j, part in enumerate(parts):
        for name, box in part.nodes(data="box"):
            if box.kind == "port" and box.op == "into":
                out = f"out {box.title}"
                i = next(i for i, other in enumerate(parts) if out in other)
                wires = (wire for *_, wire in part.out_edges(name, data="wire"))
                found.append((i, out, j, name, reduce(or_, wires)))
    return found


def _port(graph: nx.DiGraph, tail: str, kind: str, column: int | None = None) -> Box:
    name = f"{kind} {tail}" + ("" if column is None else f" {column}")
    return Box(name, "port", kind, "", tail)
