"""Infer: from a Trace to its PermSpec. Propagate axes, classify points, read groups, name and place them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels, Origin
from permgraph.axes.propagation import Propagation, propagate
from permgraph.axes.rules.suggest import suggest_row
from permgraph.axes.slices import Slices
from permgraph.errors import TraceError
from permgraph.ir.check_trace import check_trace
from permgraph.ir.spec import Group, PermSpec, Pin, Place, Positions, Probe, UnknownOp
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Block, Unreadable
from permgraph.symmetry.coloured_graph import Classes, classify, refine
from permgraph.symmetry.flat_places import flat_layouts
from permgraph.symmetry.layout import Addresses
from permgraph.symmetry.names import name_blocks
from permgraph.symmetry.random_values import random_notes
from permgraph.symmetry.values import followed_values
from permgraph.symmetry.wreath import read

_GAIN = 0.1  # of the log10 of the order; an exchange of two is 0.3
_ONE_BY_ONE = 16  # vertices held singly before all are that cannot be placed


def infer(trace: Trace, free_output: bool = False) -> PermSpec:
    """Every group of channels of `trace` that may be re-ordered without changing the function.

    Args:
        free_output: let the channels of the network's outputs move too (they are then part of the places,
            as "output:0", and a caller has to put the outputs back in order).

    Raises TraceError where a trace is broken, or its symmetry has no form that a plan could hold.
    """
    check_trace(trace)
    context = propagate(trace, free_output)
    try:
        plain = _infer(trace, context, free_output)
    except _RowsMixed as mixed:
        raise TraceError(
            f"{mixed}: its units lie in several blocks of a grouped convolution, in no common order, which no place of a "
            "plan can say. Please report this network."
        ) from None
    if not context.slices:
        return plain
    sliced = _in_slices(trace, context.slices, free_output)
    # orders per slice cost a place for each slice: only where they free something
    if sliced is None or sliced.log10_order > plain.log10_order + _GAIN:
        return sliced or plain
    return replace(
        plain, frozen=max(plain.frozen, sliced.frozen)
    )  # what slices would free, and cannot be read


def _in_slices(trace: Trace, slices: Slices, free_output: bool) -> PermSpec | None:
    """With axes labelled in each slice; without those of a tensor whose places could not be written so."""
    nodes = {node.options["tensor"]: node.name for node in trace.nodes if node.op == "state"}
    slices = dict(slices)
    while slices:
        try:
            return _infer(trace, propagate(trace, free_output, slices), free_output)
        except _RowsMixed as mixed:
            if slices.pop(nodes[mixed.tensor], None) is None:
                return None
    return None


class _RowsMixed(Exception):
    """Units of an axis ordered in each slice lie in several slices, in no common order: no place says that."""

    def __init__(self, tensor: str, axis: int) -> None:
        super().__init__(f"{tensor}[{axis}]")
        self.tensor = tensor


def _infer(trace: Trace, context: Propagation, free_output: bool) -> PermSpec:
    classes = classify(context.points)
    addresses, frozen = _read(classes, _state(context, classes))
    places = _places(trace, context, classes, addresses)
    blocks = [b for b in addresses.blocks if any(b.key in layout for layout, *_ in places)]
    names = name_blocks(trace, context, classes, blocks, places)
    notes = (*trace.notes, *random_notes(trace, context, classes, addresses, names))
    return _spec(trace, context, classes, blocks, places, names, frozen, free_output, notes)


def _read(classes: Classes, state: NDArray[np.bool_]) -> tuple[Addresses, int]:
    """The groups of the coloured graph, and how many vertices had to be held for want of a way to read them.

    What was read is checked against the graph. Where it would not keep it, vertices are held and it is read again.
    """
    free = _by_position(classes, np.flatnonzero(~classes.pinned))
    colour, held = classes.colour, 0
    edges = classes.edges.select(~(classes.pinned[classes.edges.a] | classes.pinned[classes.edges.b]))
    while True:
        reading = read(free, colour, edges)
        try:
            addresses = Addresses(classes.count, reading)
            broken = addresses.broken(classes.colour, edges, state)
        except Unreadable as found:
            broken = found.vertices
        if not broken.size:
            return addresses, held + reading.frozen
        broken = broken[broken < classes.count]  # a vertex that stands for a biclique cannot be held itself
        broken = (broken if broken.size else free)[: 1 if held < _ONE_BY_ONE else None]
        held += broken.size
        colour = colour.copy()
        colour[broken] = int(colour.max()) + 1 + np.arange(broken.size)
        colour = refine(colour, edges)


def _state(context: Propagation, classes: Classes) -> NDArray[np.bool_]:
    """Which vertices hold a coordinate of a state tensor or of an output."""
    state = np.zeros(classes.count, dtype=bool)
    for run in context.points.origins:
        if run.tensor:
            state[classes.of[run.start : run.stop]] = True
    for _, value in context.outputs:
        for array in value.arrays:
            state[classes.of[array.labels]] = True
    return state


def _by_position(classes: Classes, chosen: Labels) -> Labels:
    """Classes in the order of their first point: state tensors in graph order, coordinates ascending."""
    first = np.full(classes.count, classes.of.size)
    np.minimum.at(first, classes.of, np.arange(classes.of.size))
    return chosen[np.argsort(first[chosen], kind="stable")]


Found = tuple[tuple[int, ...], Place]  # layout as block keys, and the place with its layout still unnamed


def _places(trace: Trace, context: Propagation, classes: Classes, addresses: Addresses) -> list[Found]:
    """Every run of points on an axis of a state tensor or output that belongs to groups, in graph order."""
    order = {node.name: i for i, node in enumerate(trace.nodes)}
    reader = {name: readers[0].name for name, readers in trace.readers.items()}
    found: list[tuple[int, int, Found]] = []
    viewed: dict[tuple[str, int], list[Origin]] = {}
    for run in context.points.origins:
        if run.tensor and run.view is not None:
            viewed.setdefault((run.tensor, run.view.offset), []).append(run)
            continue
        use = context.usage.uses.get((run.tensor, run.axis)) if run.tensor else None
        if not run.tensor:
            continue
        labels = np.arange(run.start, run.stop)
        tensor = trace.state[run.tensor]
        node = use.node if use else reader.get(run.node, run.node)
        side = "un-permute" if use and use.consumed else "permute"
        for layout, at in addresses.layouts(classes.of[labels]):
            for place in _placed(run, side, at, tensor.shape, node):
                found.append((order[node], run.axis, (layout, place)))
    for runs in viewed.values():
        use = context.usage.uses.get((runs[0].tensor, runs[0].axis))
        node = use.node if use else reader.get(runs[0].node, runs[0].node)
        side = "un-permute" if use and use.consumed else "permute"
        for layout, at in flat_layouts(runs, classes, addresses):
            place = Place(runs[0].tensor, runs[0].axis, side, (), Positions.of(at), node=node)
            found.append((order[node], runs[0].axis, (layout, place)))
    for name, value in context.outputs:
        for array in value.arrays:
            if len(array.dims) == 1 and not array.pinned:
                for layout, at in addresses.layouts(classes.of[array.labels.ravel()]):
                    place = Place(name, array.dims[0], "output", (), Positions.of(at), node="output")
                    found.append((len(order), array.dims[0], (layout, place)))
    return [f for _, _, f in sorted(found, key=lambda row: row[:2])]


def _placed(run: Origin, side: str, at: Labels, shape: tuple[int, ...], node: str) -> list[Place]:
    """A place per run; points of an axis with an order in each slice or block are split by where they hold."""
    tensor, axis, count, size = run.tensor, run.axis, run.stop - run.start, shape[run.axis]
    if count == size:
        return [Place(tensor, axis, side, (), Positions.of(at), node=node)]
    if (at < 0).any():
        raise _RowsMixed(tensor, axis)
    height = shape[run.rows] // (count // size)
    block, column = at // size, at % size
    first = block.reshape(-1, at.shape[-1])[0]  # members correspond, so the first unit speaks for all
    places = []
    for b in np.unique(first):
        mine = first == b
        rows = block[..., mine][..., :1] * height + np.arange(height)
        if (block[..., mine] != block[..., mine][..., :1]).any():
            raise _RowsMixed(tensor, axis)
        positions = Positions.of(column[..., mine])
        places.append(Place(tensor, axis, side, (), positions, Positions.of(rows), run.rows, node))
    return places


def _spec(
    trace: Trace,
    context: Propagation,
    classes: Classes,
    blocks: list[Block],
    found: list[Found],
    names: dict[int, tuple[str, str, str]],
    frozen: int,
    free_output: bool,
    notes: tuple[str, ...],
) -> PermSpec:
    places = tuple(replace(p, layout=tuple(names[k][0] for k in layout)) for layout, p in found)
    by_group: dict[str, list[Place]] = {}
    for place in places:
        for name in place.layout:
            by_group.setdefault(name, []).append(place)
    probes = _probes(context, classes, blocks, names)
    groups = []
    for block in blocks:
        name, role, module = names[block.key]
        within = tuple(names[key][0] for key in block.under)
        mine, seen = tuple(dict.fromkeys(by_group[name])), tuple(probes.get(name, ()))
        groups.append(Group(name, role, block.size, within, block.copies, module, mine, seen))
    return PermSpec(
        model=trace.model,
        fingerprint=trace.fingerprint,
        groups=tuple(groups),
        places=places,
        pinned=_pins(trace, context, classes),
        unknown_ops=tuple(
            UnknownOp(n.op, n.name, n.module, n.source, "" if reason else suggest_row(trace, n), reason)
            for n, reason in context.unknown
        ),
        unused=trace.unused,
        tensors={t.name: t.shape for t in trace.state.values()},
        aliases={t.name: t.aliases for t in trace.state.values() if t.aliases},
        values=followed_values(trace),
        frozen=frozen,
        free_output=free_output,
        notes=notes,
    )


def _probes(
    context: Propagation, classes: Classes, blocks: list[Block], names: dict[int, tuple[str, str, str]]
) -> dict[str, list[Probe]]:
    """Activations that carry each innermost group, in graph order."""
    addresses = blocks[0].owner if blocks else None
    found: dict[str, list[Probe]] = {}
    for seen in context.usage.seen:
        if addresses is None:
            break
        for layout, at in addresses.layouts(classes.of[seen.labels.ravel()]):
            if any(k not in names for k in layout) or (at < 0).any():
                continue  # in pairs of units no single one can be observed
            text = tuple(names[k][0] for k in layout)
            probe = Probe(seen.node, seen.when, seen.dims, text, Positions.of(at), seen.module)
            if probe not in found.setdefault(text[-1], []):
                found[text[-1]].append(probe)
    return found


def _pins(trace: Trace, context: Propagation, classes: Classes) -> tuple[Pin, ...]:
    """For every axis of a state tensor, how many coordinates each reason holds in place."""
    points, which = context.points.pins()
    reason_of = np.full(classes.count, -1)
    reason_of[classes.of[points[::-1]]] = which[::-1]  # the first reason given wins
    pins = []
    for run in context.points.origins:
        if not run.tensor:
            continue
        held = reason_of[classes.of[run.start : run.stop]]
        for index, count in sorted(Counter(held[held >= 0].tolist()).items()):
            reason = context.points.pinned[index][1]
            pins.append(Pin(run.tensor, run.axis, count, reason.text, reason.step.node))
    return tuple(pins)
