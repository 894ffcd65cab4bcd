"""What the page knows about a network: boxes, wires, groups, and which modules are equal. Plain JSON.

Boxes, groups and layouts are named by their number, so that each name is written once. Nothing is folded here:
the page folds and unfolds by the runs of equal modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import networkx as nx

from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Pin
from permgraph.ir.trace import Trace
from permgraph.reporting.drawing.cards import Look
from permgraph.reporting.drawing.columns import columns
from permgraph.reporting.drawing.fold import Run, fold, runs
from permgraph.reporting.drawing.graph import Box, Layout, build
from permgraph.reporting.drawing.modules import home, levels
from permgraph.reporting.drawing.picture import folded_home
from permgraph.reporting.tables import counts, symmetry
from permgraph.reporting.text import clean

FORMAT = 1
_NAME = 300  # characters of a name that are kept


def model(trace: Trace, spec: PermSpec, plan: Plan | None = None) -> dict[str, Any]:
    """The network for the page.

    boxes    title, detail, module, frames (paths of the modules around it), tensors with shapes, layouts that
             enter, leave and are moved, why axes are pinned
    wires    [tail, head, layouts, reasons]
    runs     equal modules, outermost first: title when folded, and the boxes of every copy
    groups   name, role, symmetry, size, ink, places
    columns  first box of each column of the folded drawing
    """
    graph = build(trace, spec, plan)
    numbers = _Numbers(graph, spec)
    found = runs(graph, trace, spec)
    own = {path for run in found for path in run.paths}
    look = Look(spec, plan)
    return {
        "format": FORMAT,
        "model": clean(trace.model, _NAME),
        "counts": counts(spec, None if plan is None else plan.selected),
        "groups": [_group(group, look, numbers) for group in spec.groups],
        "boxes": [_box(box, graph, own, spec, numbers) for _, box in graph.nodes(data="box")],
        "wires": [
            [
                numbers.boxes[a],
                numbers.boxes[b],
                numbers.of(w.layouts),
                [clean(r, 120) for r in w.reasons[:3]],
            ]
            for a, b, w in graph.edges(data="wire")
        ],
        "layouts": [[numbers.groups[name] for name in layout] for layout in numbers.layouts],
        "runs": [_run(run, numbers) for run in found],
        "columns": _columns(graph, trace, spec, numbers),
        "selection": None if plan is None else clean(plan.selection or ", ".join(plan.selected), _NAME),
        "log10_order": round(spec.log10_order, 1),
        "unused": [clean(name, _NAME) for name in spec.unused[:200]],
    }


class _Numbers:
    """Numbers of boxes, groups and layouts."""

    def __init__(self, graph: nx.DiGraph, spec: PermSpec) -> None:
        self.boxes = {name: i for i, name in enumerate(graph)}
        self.groups = {group.name: i for i, group in enumerate(spec.groups)}
        self.layouts: dict[Layout, int] = {}

    def of(self, layouts: Iterable[Layout] | None) -> list[int]:
        return [self.layouts.setdefault(layout, len(self.layouts)) for layout in sorted(layouts or ())]


def _group(group: Group, look: Look, numbers: _Numbers) -> dict[str, Any]:
    ink = look.inks[group.name]
    return {
        "name": clean(group.name, _NAME),
        "role": clean(group.role, _NAME),
        "size": group.size,
        "copies": group.copies,
        "within": None if group.within is None else numbers.groups[group.within],
        "module": clean(group.module, _NAME),
        "symmetry": symmetry(look.spec, group),
        "ink": [ink.colour, ink.dash],
        "selected": group.name in look.selected,
        "places": [[clean(p.tensor, _NAME), p.axis, p.side] for p in group.places],
        "probes": sorted({f"{clean(p.module, _NAME)}, {p.when}" for p in group.probes}),
    }


def _box(box: Box, graph: nx.DiGraph, own: set[str], spec: PermSpec, numbers: _Numbers) -> dict[str, Any]:
    shapes = {t: list(spec.tensors.get(t, ())) for t in box.tensors}
    row = {
        "title": clean(box.title, _NAME),
        "kind": box.kind,
        "op": clean(box.op, _NAME),
        "module": clean(box.module, _NAME),
        "frames": [clean(path, _NAME) for path in levels(home(box, _parents(graph), own))],
        "detail": " · ".join(clean(w, 60) for w in (box.detail, *box.follows) if w),
        "through": box.through,
        "tensors": [[clean(t, _NAME), shape] for t, shape in shapes.items()],
        "enters": numbers.of(box.enters),
        "leaves": numbers.of(box.leaves),
        "takes": numbers.of(box.takes),
        "gives": numbers.of(box.gives),
        "places": [[clean(p.tensor, _NAME), p.axis, *numbers.of([p.layout])] for p in box.places],
        "pins": [_pin(pin) for pin in box.pins[:40]],
    }
    return {key: value for key, value in row.items() if value not in ([], "", False)}


def _parents(graph: nx.DiGraph) -> set[str]:
    modules = graph.graph.get("parents")
    if modules is None:
        modules = {box.module.rpartition(".")[0] for _, box in graph.nodes(data="box") if box.module}
        graph.graph["parents"] = modules
    found: set[str] = modules
    return found


def _pin(pin: Pin) -> list[Any]:
    return [clean(pin.tensor, _NAME), pin.axis, pin.count, clean(pin.reason, 200)]


def _run(run: Run, numbers: _Numbers) -> dict[str, Any]:
    return {
        "path": clean(run.paths[0], _NAME),
        "title": clean(run.title, _NAME),
        "copies": [[numbers.boxes[name] for name in names] for names in run.copies],
    }


def _columns(graph: nx.DiGraph, trace: Trace, spec: PermSpec, numbers: _Numbers) -> list[int]:
    """Where the columns of the page begin; it keeps them when something is unfolded."""
    folded = fold(graph, trace, spec)
    size = len(folded.graph)
    count = max(1, min(6, round(size / 14)))
    return [numbers.boxes[part[0]] for part in columns(folded.graph, folded_home(folded), count)]
