"""Equal layers are drawn once: consecutive numbered modules with equal structure become one, "× 12"."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import networkx as nx

from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.drawing.graph import Box, Layout, Wire
from permgraph.reporting.text import ranges


@dataclass(frozen=True)
class Folded:
    """A graph in which a run of equal modules is drawn as its first.

    graph    boxes and wires left; a wire carries the layouts of all the wires it stands for
    copies   path of a drawn module → how many it stands for
    titles   path of a drawn module → last part of its path, "layers.0-11"
    """

    graph: nx.DiGraph
    copies: dict[str, int]
    titles: dict[str, str]


def fold(graph: nx.DiGraph, trace: Trace, spec: PermSpec) -> Folded:
    """Fold runs of equal numbered modules, the outermost first."""
    found = Folded(graph, {}, {})
    depth = 0
    while any(len(_parts(box)) > depth for _, box in found.graph.nodes(data="box")):
        for family in _families(found.graph, depth):
            for run in _runs(found.graph, family, trace, spec):
                found = _merged(found, family, run)
        depth += 1
    return found


@dataclass(frozen=True)
class Run:
    """Equal modules that follow each other: their paths, the title of all, the boxes of each in order."""

    paths: tuple[str, ...]
    title: str
    copies: tuple[tuple[str, ...], ...]


def runs(graph: nx.DiGraph, trace: Trace, spec: PermSpec) -> list[Run]:
    """All runs of equal numbered modules, those inside others too, the outermost first."""
    found = []
    deepest = max((len(_parts(box)) for _, box in graph.nodes(data="box")), default=0)
    for depth in range(deepest):
        for family in _families(graph, depth):
            for run in _runs(graph, family, trace, spec):
                paths = tuple(_join(family, number) for number, _ in run)
                found.append(Run(paths, _title(family, run), tuple(tuple(names) for _, names in run)))
    return found


def _title(family: str, run: list[tuple[str, list[str]]]) -> str:
    return f"{family.rpartition('.')[2]}.{ranges(int(number) for number, _ in run)}".removeprefix(".")


def _parts(box: Box) -> list[str]:
    return box.module.split(".") if box.module else []


def _families(graph: nx.DiGraph, depth: int) -> list[str]:
    """Paths of modules whose children at `depth` are numbered."""
    paths = (_parts(box) for _, box in graph.nodes(data="box"))
    numbered = (p[:depth] for p in paths if len(p) > depth and p[depth].isdecimal())
    return list(dict.fromkeys(".".join(p) for p in numbered))


def _runs(graph: nx.DiGraph, family: str, trace: Trace, spec: PermSpec) -> list[list[tuple[str, list[str]]]]:
    """Runs of two or more children, (number, boxes in order) each, that follow each other and are alike."""
    children: dict[str, list[str]] = {}
    for name, box in graph.nodes(data="box"):
        if (child := _child(box, family)) is not None:
            children.setdefault(child, []).append(name)
    runs: list[list[tuple[str, list[str]]]] = []
    last: Hashable = None
    for number in sorted(children, key=int):
        names = children[number]
        look = _look(graph, names, _join(family, number), trace, spec)
        if not runs or look != last:
            runs.append([])
        runs[-1].append((number, names))
        last = look
    return [run for run in runs if len(run) > 1]


def _child(box: Box, family: str) -> str | None:
    prefix = f"{family}." if family else ""
    if not box.module.startswith(prefix):
        return None
    child = box.module[len(prefix) :].partition(".")[0]
    return child if child.isdecimal() else None


def _join(family: str, child: str) -> str:
    return f"{family}.{child}" if family else child


def _look(graph: nx.DiGraph, names: list[str], path: str, trace: Trace, spec: PermSpec) -> Hashable:
    """What must be equal for two modules to be drawn as one: everything but names."""
    place = {name: i for i, name in enumerate(names)}
    look = []
    for name in names:
        box: Box = graph.nodes[name]["box"]
        inside = tuple(place.get(tail, -1) for tail in graph.predecessors(name))
        shapes = tuple(trace.state[t].shape for t in box.tensors)
        steps = tuple(
            (box.tensors.index(p.tensor), p.axis, p.side) for p in box.steps if p.tensor in box.tensors
        )
        sides = tuple(_structure(layouts, spec) for layouts in (box.enters, box.leaves))
        title = box.title if box.module != path else ""
        module = box.module[len(path) :]
        follows = (
            box.follows if box.kind == "weight" else ()
        )  # what follows a join belongs to what comes next
        look.append((box.kind, box.op, module, title, box.detail, follows, shapes, steps, sides, inside))
    return tuple(look)


def _structure(layouts: frozenset[Layout] | None, spec: PermSpec) -> Hashable:
    if layouts is None:
        return None
    return frozenset(
        tuple((spec.by_name[n].role, spec.by_name[n].size) for n in layout) for layout in layouts
    )


def _merged(found: Folded, family: str, run: list[tuple[str, list[str]]]) -> Folded:
    """The graph with the boxes of a run mapped to those of its first module, which carry the groups of all.

    Wires from one copy to the next are left out; what they carry is shown on the wires that leave the last.
    """
    graph = found.graph
    home = {name: first for _, names in run for name, first in zip(names, run[0][1], strict=True)}
    copy = {name: i for i, (_, names) in enumerate(run) for name in names}
    merged = nx.DiGraph()
    merged.add_nodes_from((n, d) for n, d in graph.nodes(data=True) if home.get(n, n) == n)
    for same in zip(*(names for _, names in run), strict=True):
        merged.nodes[same[0]]["box"] = _together([graph.nodes[name]["box"] for name in same])
    between: list[tuple[str, Wire]] = []
    for tail, head, wire in graph.edges(data="wire"):
        ends = home.get(tail, tail), home.get(head, head)
        if tail in copy and head in copy and copy[tail] != copy[head]:
            between.append((ends[0], wire))
            continue
        old = merged.edges[ends]["wire"] if merged.has_edge(*ends) else Wire()
        merged.add_edge(*ends, wire=old | wire)
    for tail, wire in between:
        for _, head in merged.out_edges(tail):
            if head not in home:
                merged.edges[tail, head]["wire"] |= wire
    path = _join(family, run[0][0])
    return Folded(merged, found.copies | {path: len(run)}, found.titles | {path: _title(family, run)})


def _together(boxes: list[Box]) -> Box:
    """The first of some equal boxes, with the groups of all of them."""
    first = boxes[0]
    return replace(
        first,
        enters=_union(first.enters, (box.enters for box in boxes)),
        leaves=_union(first.leaves, (box.leaves for box in boxes)),
        takes=frozenset().union(*(box.takes for box in boxes)),
        gives=frozenset().union(*(box.gives for box in boxes)),
    )


def _union(
    first: frozenset[Layout] | None, layouts: Iterable[frozenset[Layout] | None]
) -> frozenset[Layout] | None:
    """All layouts; None where no weight says, which equal boxes have in common."""
    return None if first is None else first.union(*(found for found in layouts if found is not None))
