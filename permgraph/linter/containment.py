"""Contain: whether a group that somebody else names is part of the symmetries that permgraph inferred.

Two elements generate the symmetric group on n units: the exchange of the first two, and the cycle of all. Each
is written as what it does to the coordinates of every tensor, and an element of our groups that does exactly
that is sought: our groups act on many tensors at once, so one tensor fixes the element and the others must agree.
The answer is exact, and needs no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from permgraph.ir.spec import IntArray, PermSpec, Place
from permgraph.linter.claims import Claim, ClaimPlace, Verdict
from permgraph.planning.gather import Gather, index_of

Key = tuple[str, int]  # a tensor (or "output:0") and one of its axes


def contain(spec: PermSpec, claims: list[Claim]) -> list[Verdict]:
    """A verdict on every claim. The places of a claim must exist in the network (see `foreign.resolve`)."""
    ours = _Ours(spec)
    return [_verdict(ours, claim) for claim in claims]


def _verdict(ours: _Ours, claim: Claim) -> Verdict:
    if not claim.places:
        return Verdict(claim.name, False, "none of its places is in the network")
    groups: dict[str, None] = {}
    missing: dict[str, None] = {}
    for copy in range(claim.copies):
        for source in _generators(claim.size):
            found = ours.element(_action(ours.spec, claim, copy, source))
            groups |= dict.fromkeys(found.moved)
            missing |= dict.fromkeys(f"{place.tensor}[{place.axis}]" for place in found.missing)
            if found.reason:
                return Verdict(claim.name, False, found.reason, tuple(missing), tuple(groups))
        if missing:
            return Verdict(claim.name, False, "", tuple(missing), tuple(groups))
    return Verdict(claim.name, True, groups=tuple(groups))


def _generators(size: int) -> Iterator[IntArray]:
    """Exchange of two neighbours and the full cycle: together they generate all size! orders."""
    if size > 1:
        swap = np.arange(size)
        swap[:2] = 1, 0
        yield swap
    if size > 2:
        yield np.roll(np.arange(size), 1)


def _action(spec: PermSpec, claim: Claim, copy: int, source: IntArray) -> dict[Key, Gather]:
    """What the claim does to each axis when it re-orders its units by `source`."""
    places: dict[Key, list[ClaimPlace]] = {}
    for place in claim.places:
        if place.tensor not in spec.unused:  # nothing reads it: it may move along or not
            places.setdefault((place.tensor, place.axis), []).append(place)
    moves = {}
    for (tensor, axis), here in places.items():
        shape = spec.tensors[tensor]
        rows_axis = next((p.rows_axis for p in here if p.rows_axis is not None), None)
        pieces = []
        for place in here:
            units = place.units[copy]
            rows = (
                None
                if place.rows is None
                else np.broadcast_to(place.rows[copy], (len(units), place.rows.shape[1]))
            )
            pieces.append((rows, units, units[source]))
        index = index_of(shape[axis], None if rows_axis is None else shape[rows_axis], pieces)
        moves[(tensor, axis)] = Gather(tensor, axis, index, rows_axis)
    return _on_joined(spec, moves)


def _on_joined(spec: PermSpec, moves: dict[Key, Gather]) -> dict[Key, Gather]:
    """The same, where our places are on several tensors at once."""
    where = {member: (name, i) for name, j in spec.joined.items() for i, member in enumerate(j.members)}
    found: dict[Key, Gather] = {}
    for (tensor, axis), move in moves.items():
        name, number = where.get(tensor, ("", 0))
        joined = spec.joined.get(name)
        if joined is None or move.rows_axis is not None:
            found[(tensor, axis)] = move
            continue
        key, size, count = (name, joined.axis_of(axis)), move.index.size, len(joined.members)
        stacked = np.tile(np.arange(size), (count, 1))
        if joined.axis is None:
            known = found.get(key, Gather(name, key[1], stacked, 0)).index.copy()
            known[number] = move.index
            found[key] = Gather(name, key[1], known, 0)
        elif axis == joined.axis:
            known = found.get(key, Gather(name, axis, np.arange(count * size))).index.copy()
            known[number * size : (number + 1) * size] = number * size + move.index
            found[key] = Gather(name, axis, known)
        elif _all_alike(moves, joined.members, axis):
            found[key] = Gather(name, axis, move.index)
        else:  # one order for all members, which this claim does not have
            found[(tensor, axis)] = move
    return found


def _all_alike(moves: dict[Key, Gather], members: tuple[str, ...], axis: int) -> bool:
    """Whether an axis of all members is re-ordered alike."""
    found = [moves[member, axis].index for member in members if (member, axis) in moves]
    return len(found) == len(members) and all(np.array_equal(f, found[0]) for f in found)


@dataclass
class _Element:
    """An element of our groups, as far as it is known: one array per group, shaped as in `plan.Permutations`."""

    arrays: dict[str, IntArray] = field(default_factory=dict)
    fixed_by: dict[str, Place] = field(default_factory=dict)  # where the array was read
    reason: str = ""
    missing: tuple[Place, ...] = ()

    @property
    def moved(self) -> tuple[str, ...]:
        return tuple(
            g for g, array in self.arrays.items() if bool((array != np.arange(array.shape[-1])).any())
        )


class _Tear(Exception):
    """No element of our groups does this."""


class _Ours:
    """Our places by tensor and axis, and for every coordinate the place and the unit it belongs to."""

    def __init__(self, spec: PermSpec) -> None:
        self.spec = spec
        self.places: dict[Key, list[Place]] = {}
        for place in spec.places:
            if not place.tensor.startswith("output:"):
                self.places.setdefault((place.tensor, place.axis), []).append(place)
        self.tables: dict[Key, _Table] = {}

    @cached_property
    def by_group(self) -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for places in self.places.values():
            for place in places:
                for name in dict.fromkeys(place.layout):
                    found.setdefault(name, []).append(place)
        return found

    def element(self, moves: dict[Key, Gather]) -> _Element:
        """The element of our groups that acts as `moves`, or why there is none."""
        element = _Element()
        try:
            for key, move in moves.items():
                self._read(key, move, moves, element)
        except _Tear as tear:
            element.reason = str(tear)
            return element
        element.missing = tuple(self._missing(element, moves))
        return element

    def _read(self, key: Key, move: Gather, moves: dict[Key, Gather], element: _Element) -> None:
        """What a move of one axis says about our groups."""
        table = self._table(key)
        rows_axis = table.rows_axis if table.rows_axis is not None else move.rows_axis
        height = 1 if rows_axis is None else self.spec.shapes[key[0]][rows_axis]
        index = np.broadcast_to(move.index, (height, move.index.shape[-1]))
        rows = np.arange(height)
        if rows_axis is not None and (key[0], rows_axis) in moves:
            rows = moves[(key[0], rows_axis)].index
            rows = rows if rows.ndim == 1 else rows[0]
        table = table.stretched(height)
        held = (index != np.arange(index.shape[1])) & (table.place < 0)
        if held.any():
            at = int(np.argwhere(held)[0][1])
            raise _Tear(f"{key[0]}[{key[1]}]: coordinate {at} is held in place ({self._pin(key)})")
        for number, place in enumerate(self.places.get(key, [])):
            slots = table.slots(number, place, index, rows)
            if slots is None:
                raise _Tear(
                    f"{key[0]}[{key[1]}]: takes units apart, or moves them where they cannot go; there only whole "
                    f"units of {' and '.join(dict.fromkeys(place.layout))} may be exchanged"
                )
            self._learn(place, slots, element)

    def _learn(self, place: Place, slots: IntArray, element: _Element) -> None:
        """Read the permutation of every group of a layout off its slots: source slot of each slot, flat."""
        groups = [self.spec.by_name[name] for name in place.layout]
        sizes = tuple(group.size for group in groups)
        sources = np.unravel_index(slots.reshape(sizes), sizes)
        for axis, group in enumerate(groups):
            chain = [place.layout.index(name) for name in group.ancestors] + [axis]
            rest = [a for a in range(len(sizes)) if a not in chain]
            array = np.transpose(sources[axis], [*chain, *rest]).reshape(*(sizes[a] for a in chain), -1)
            if (array != array[..., :1]).any():
                raise _Tear(
                    f"{place.tensor}[{place.axis}]: parts of one unit of {group.name} would go to different units; "
                    "its units move whole"
                )
            array = array[..., 0]
            known = element.arrays.setdefault(group.name, array)
            before = element.fixed_by.setdefault(group.name, place)
            if not np.array_equal(known, array):
                raise _Tear(
                    f"{before.tensor}[{before.axis}] and {place.tensor}[{place.axis}] move {group.name} differently; "
                    "they are tied"
                )

    def _missing(self, element: _Element, moves: dict[Key, Gather]) -> Iterator[Place]:
        """Our places that this element moves, on axes that `moves` does not."""
        places = {id(p): p for name in element.moved for p in self.by_group.get(name, ())}
        for place in places.values():
            if (place.tensor, place.axis) in moves:
                continue
            if place.rows is not None and not self._moves(place, element):
                continue  # the rows move, and the order inside them comes along
            yield place

    def _moves(self, place: Place, element: _Element) -> bool:
        """Whether coordinates of a place change under the element."""
        grid = np.indices(place.positions.shape[:-1])
        source = []
        for axis, name in enumerate(place.layout):
            chain = [place.layout.index(above) for above in self.spec.by_name[name].ancestors]
            array = element.arrays.get(name)
            source.append(grid[axis] if array is None else array[tuple(grid[a] for a in (*chain, axis))])
        positions = place.positions.array()
        return not np.array_equal(positions[tuple(source)], positions)

    def _table(self, key: Key) -> _Table:
        if key not in self.tables:
            self.tables[key] = _Table.of(self.spec.shapes[key[0]], key[1], self.places.get(key, []))
        return self.tables[key]

    def _pin(self, key: Key) -> str:
        reasons = [p.reason for p in self.spec.pinned if (p.tensor, p.axis) == key]
        return reasons[0] if reasons else "nothing that could move with it was found"


@dataclass(frozen=True)
class _Table:
    """For every cell (row, coordinate) of an axis: number of the place, slot and column of the unit; -1 if none."""

    place: IntArray
    slot: IntArray
    column: IntArray
    rows_axis: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int, places: list[Place]) -> _Table:
        rows_axis = next((p.rows_axis for p in places if p.rows_axis is not None), None)
        height = 1 if rows_axis is None else shape[rows_axis]
        none = np.full((height, shape[axis]), -1)
        table = cls(none, none.copy(), none.copy(), rows_axis)
        for number, place in enumerate(places):
            positions, rows = _cells(place, height)
            held = np.flatnonzero((positions >= 0).all(axis=1))  # of pairs, none of a unit with itself
            at = (rows[held][:, :, None], positions[held][:, None, :])
            table.place[at] = number
            table.slot[at] = held[:, None, None]
            table.column[at] = np.arange(positions.shape[1])
        return table

    def stretched(self, height: int) -> _Table:
        """The same for an order that differs from row to row."""
        if self.place.shape[0] == height:
            return self
        shape = (height, self.place.shape[1])
        place, slot, column = (np.broadcast_to(a, shape) for a in (self.place, self.slot, self.column))
        return _Table(place, slot, column, self.rows_axis)

    def slots(self, number: int, place: Place, index: IntArray, row_source: IntArray) -> IntArray | None:
        """Source slot of every slot of a place under an order of its axis, or None when units come apart."""
        positions, rows = _cells(place, index.shape[0])
        at = (rows[:, :, None], positions[:, None, :])
        cell = (row_source[at[0]], index[at])
        slot = self.slot[cell]
        whole = (self.place[cell] == number) & (self.column[cell] == np.arange(positions.shape[1]))
        whole &= slot == slot[:, :1, :1]
        return slot[:, 0, 0] if whole.all() else None


def _cells(place: Place, height: int) -> tuple[IntArray, IntArray]:
    """Positions (slots, m) and rows (slots, r) of a place; without rows of its own it holds at all of them."""
    positions = place.positions.array().reshape(-1, place.positions.shape[-1])
    if place.rows is None:
        return positions, np.broadcast_to(np.arange(height), (positions.shape[0], height))
    return positions, place.rows.array().reshape(positions.shape[0], -1)
