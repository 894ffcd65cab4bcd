"""Infer: from a Trace to its PermSpec. Propagate axes, classify points, read groups, name and place them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from permgraph.axes.points import Labels
from permgraph.axes.propagation import Propagation, propagate
from permgraph.axes.rules.suggest import suggest_row
from permgraph.ir.spec import Group, PermSpec, Pin, Place, Positions, Probe, UnknownOp
from permgraph.ir.trace import Trace
from permgraph.symmetry.coloured_graph import Classes, classify
from permgraph.symmetry.layout import Addresses, Block
from permgraph.symmetry.names import name_blocks
from permgraph.symmetry.wreath import read


def infer(trace: Trace, free_output: bool = False) -> PermSpec:
    """Every group of channels of `trace` that may be re-ordered without changing the function.

    Args:
        free_output: let the channels of the network's outputs move too (they are then part of the places,
            as "output:0", and a caller has to put the outputs back in order).
    """
    free_output = free_output or trace.free_output
    context = propagate(trace, free_output)
    classes = classify(context.points)
    free = np.flatnonzero(~classes.pinned)
    inner = ~classes.pinned[classes.edges.a] & ~classes.pinned[classes.edges.b]
    reading = read(_by_position(classes, free), classes.colour, classes.edges.select(inner))
    addresses = Addresses(classes.count, reading)
    places = _places(trace, context, classes, addresses)
    blocks = [b for b in addresses.blocks if any(b.key in layout for layout, *_ in places)]
    names = name_blocks(trace, context, classes, blocks, places)
    return _spec(trace, context, classes, blocks, places, names, reading.frozen, free_output)


def _by_position(classes: Classes, chosen: Labels) -> Labels:
    """Classes in the order of their first point: state tensors in graph order, coordinates ascending."""
    first = np.full(classes.count, classes.of.size)
    np.minimum.at(first, classes.of, np.arange(classes.of.size))
    return chosen[np.argsort(first[chosen], kind="stable")]


Found = tuple[tuple[int, ...], Place]  # layout as block keys, and the place with its layout still unnamed


def _places(trace: Trace, context: Propagation, classes: Classes, addresses: Addresses) -> list[Found]:
    """Every run of points on an axis of a state tensor or output that belongs to groups, in graph order."""
    order = {node.name: i for i, node in enumerate(trace.nodes)}
    reader = {ref: node.name for node in reversed(trace.nodes) for ref in node.refs()}
    found: list[tuple[int, int, Found]] = []
    for run in context.points.origins:
        use = context.usage.uses.get((run.tensor, run.axis)) if run.tensor else None
        if not run.tensor:
            continue
        labels = np.arange(run.start, run.stop)
        tensor = trace.state[run.tensor]
        node = use.node if use else reader.get(run.node, run.node)
        side = "un-permute" if use and use.consumed else "permute"
        for layout, at in addresses.layouts(classes.of[labels]):
            for place in _placed(run.tensor, run.axis, side, at, run.stop - run.start, tensor.shape, node):
                found.append((order[node], run.axis, (layout, place)))
    for name, value in context.outputs:
        for array in value.arrays:
            if len(array.dims) == 1 and not array.pinned:
                for layout, at in addresses.layouts(classes.of[array.labels.ravel()]):
                    place = Place(name, array.dims[0], "output", (), Positions.of(at), node="output")
                    found.append((len(order), array.dims[0], (layout, place)))
    return [f for _, _, f in sorted(found, key=lambda row: row[:2])]


def _placed(
    tensor: str, axis: int, side: str, at: Labels, count: int, shape: tuple[int, ...], node: str
) -> list[Place]:
    """A place per run; points of a grouped convolution's inner axis are split by the block they hold in."""
    size = shape[axis]
    if count == size:
        return [Place(tensor, axis, side, (), Positions.of(at), node=node)]
    height = shape[0] // (count // size)
    block, column = at // size, at % size
    slots = block.reshape(-1, block.shape[-1])
    per_slot = np.unique(slots[0]).size
    order = np.argsort(at, axis=-1, kind="stable")
    block, column = np.take_along_axis(block, order, -1), np.take_along_axis(column, order, -1)
    wide = (*at.shape[:-1], per_slot, at.shape[-1] // per_slot)
    block, column = block.reshape(wide), column.reshape(wide)
    places = []
    for i in range(per_slot):
        rows = block[..., i, :1] * height + np.arange(height)
        places.append(
            Place(tensor, axis, side, (), Positions.of(column[..., i, :]), Positions.of(rows), 0, node)
        )
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
        under = tuple(names[key][0] for key in block.under)
        mine, seen = tuple(dict.fromkeys(by_group[name])), tuple(probes.get(name, ()))
        groups.append(
            Group(
                name, role, block.size, under[-1] if under else None, block.copies, module, mine, seen, under
            )
        )
    return PermSpec(
        model=trace.model,
        fingerprint=trace.fingerprint,
        groups=tuple(groups),
        places=places,
        pinned=_pins(trace, context, classes),
        unknown_ops=tuple(
            UnknownOp(n.op, n.name, n.module, n.source, suggest_row(trace, n), reason)
            for n, reason in context.unknown
        ),
        unused=trace.unused,
        tensors={t.name: t.shape for t in trace.state.values()},
        aliases={t.name: t.aliases for t in trace.state.values() if t.aliases},
        frozen=frozen,
        free_output=free_output,
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
            if any(k not in names for k in layout):
                continue
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
