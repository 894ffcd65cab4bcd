"""Infer: from a Trace to its PermSpec. Propagate axes, classify points, read groups, name and place them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.accumulation import accumulated
from permgraph.axes.exchange import Exchange, equal_exchanges
from permgraph.axes.points import Labels
from permgraph.axes.propagation import Propagation, propagate
from permgraph.axes.rules.suggest import suggest_row
from permgraph.axes.side_by_side import Sides, side_by_side
from permgraph.axes.slices import Slices
from permgraph.errors import TraceError
from permgraph.ir.check_trace import check_trace
from permgraph.ir.spec import Group, PermSpec, Place, UnknownOp
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Block, Unplaced, Unreadable
from permgraph.symmetry.coloured_graph import Classes, classify, refine
from permgraph.symmetry.joined_places import JoinedPlaces, NotPlaced, joined_places
from permgraph.symmetry.kept import find_broken
from permgraph.symmetry.layout import Addresses
from permgraph.symmetry.mixed_cuts import choices
from permgraph.symmetry.names import name_blocks
from permgraph.symmetry.observed import as_traced, pins_of, probes_of
from permgraph.symmetry.places import Found, RowsMixed, places_of
from permgraph.symmetry.random_values import random_notes
from permgraph.symmetry.values import followed_values
from permgraph.symmetry.wreath import read

_GAIN = 1e-6  # of the log10 of the order, above rounding
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
    seen = propagate(trace, free_output, settles=True) if context.chose else context
    try:
        plain = _infer(trace, seen, free_output)
    except RowsMixed as mixed:
        raise TraceError(
            f"{mixed}: its units lie in several blocks of a grouped convolution, in no common order, which no place of a "
            "plan can say. Please report this network."
        ) from None
    attempts, failed = [plain], list[_Failed]()
    if context.slices:
        attempts += _in_slices(trace, context.slices, free_output, failed)
    sides = side_by_side(accumulated(trace))
    if sides.sets:
        attempts += _in_branches(trace, sides, free_output, failed)
    return _best(attempts, failed)


class _Failed(NamedTuple):
    """An attempt whose places could not be written: the order of its group, how many of what moves was left out then, and how
    much was held before, so that its group may be larger."""

    log10_order: float
    left_out: int
    frozen: int = 0


def _best(attempts: list[PermSpec], failed: list[_Failed]) -> PermSpec:
    """Orders per slice, and of branches, cost more places: they are taken only where they free something. What no attempt
    could read or place, and would have freed more, is counted as frozen."""
    best = attempts[0]
    for other in attempts[1:]:
        if other.log10_order > best.log10_order + _GAIN:
            best = other
        else:
            best = replace(best, frozen=max(best.frozen, other.frozen))
    lost = sum(f.left_out for f in failed if f.frozen or f.log10_order > best.log10_order + _GAIN)
    return replace(best, frozen=best.frozen + lost)


def _in_branches(trace: Trace, sides: Sides, free_output: bool, failed: list[_Failed]) -> Iterator[PermSpec]:
    """With equal branches that may change places; then with axes labelled in each slice as well. And without those that may
    hold what could move else."""
    context = propagate(sides.trace, free_output, {}, sides)
    contexts = [propagate(sides.trace, free_output, {}, sides, settles=True) if context.chose else context]
    if context.slices:
        contexts.append(propagate(sides.trace, free_output, context.slices, sides))
    for one in contexts:
        for some in choices(one.points, sides):
            found = _exchanged(one, some, free_output, failed)
            if found is not None:
                yield as_traced(found, trace)


def _exchanged(
    context: Propagation, sides: Sides, free_output: bool, failed: list[_Failed]
) -> PermSpec | None:
    """Without those that are not equal to the rules, and those that cannot be placed."""
    while True:
        exchange, sides = equal_exchanges(context.points, sides)
        if exchange is None:
            return None
        try:
            return _infer(sides.trace, context, free_output, sides, exchange)
        except (NotPlaced, RowsMixed) as problem:
            nodes = problem.nodes if isinstance(problem, NotPlaced) else ()
            held = {number for node in nodes for number, _ in sides.owners[node]} or set(
                range(len(sides.sets))
            )
            failed.append(
                _Failed(problem.log10_order, sum(sides.sets[number].size for number in held), problem.frozen)
            )
            sides = sides.without(held)


def _in_slices(trace: Trace, slices: Slices, free_output: bool, failed: list[_Failed]) -> Iterator[PermSpec]:
    """With axes labelled in each slice; without those of a tensor whose places could not be written so."""
    nodes = {node.options["tensor"]: node.name for node in trace.nodes if node.op == "state"}
    slices = dict(slices)
    while slices:
        try:
            yield _infer(trace, propagate(trace, free_output, slices), free_output)
            return
        except RowsMixed as mixed:
            held = slices.pop(nodes[mixed.tensor], None)
            failed.append(_Failed(mixed.log10_order, len(held or slices), mixed.frozen))
            if held is None:
                return


def _infer(
    trace: Trace,
    context: Propagation,
    free_output: bool,
    sides: Sides | None = None,
    exchange: Exchange | None = None,
) -> PermSpec:
    classes = classify(exchange.points if exchange else context.points)
    state = _state(context, classes)
    together: JoinedPlaces | None = None
    if exchange and sides:
        state[[classes.of[w] for which in exchange.which.values() for w in which]] = True
    addresses, frozen = _read(classes, state)
    try:
        if exchange and sides:
            together = joined_places(context, exchange, sides, classes, addresses)
        places = places_of(trace, context, classes, addresses, together)
    except Unplaced as problem:
        problem.log10_order = sum(block.log10_order for block in addresses.moving(state))
        problem.frozen = frozen
        raise
    blocks = [b for b in addresses.blocks if any(b.key in layout for layout, *_ in places)]
    names = name_blocks(trace, context, classes, blocks, places)
    notes = (*trace.notes, *random_notes(trace, context, classes, addresses, names))
    spec = _spec(trace, context, classes, blocks, places, names, frozen, free_output, notes, sides)
    return replace(spec, joined=together.joined) if together else spec


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
            broken = find_broken(addresses, classes.colour, edges, state)
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
    sides: Sides | None,
) -> PermSpec:
    places = tuple(replace(p, layout=tuple(names[k][0] for k in layout)) for layout, p in found)
    by_group: dict[str, list[Place]] = {}
    for place in places:
        for name in place.layout:
            by_group.setdefault(name, []).append(place)
    probes = probes_of(context, classes, blocks, names, sides)
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
        pinned=pins_of(context, classes),
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
