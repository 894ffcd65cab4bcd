"""Find: by what the units of every group may be multiplied, beside changing places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from permgraph.errors import UsageError, nearest
from permgraph.ir.spec import Group, PermSpec, Place
from permgraph.ir.trace import Trace
from permgraph.transformations.call import ROTATIONS, SCALES, SIGNS
from permgraph.transformations.forms import ONE, Form, Forms
from permgraph.transformations.patterns import Pattern, distinct, pairwise
from permgraph.transformations.places import apart
from permgraph.transformations.transformation import Factor, Power
from permgraph.transformations.turns import Turns
from permgraph.transformations.walk import walk

KINDS = (SIGNS, SCALES, ROTATIONS)
WIDEST = 4096  # slots of one unit: a channel that a flatten reads 64 × 64 times
LARGEST = 2**31 - 1  # marks that a pattern can hold


def kinds_of(text: str) -> tuple[str, ...]:
    """From "signs,scales"; all of them for "". Raises UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise UsageError(
                f"--kinds {text}: {name!r} is none.{nearest(name, KINDS)} There are: {', '.join(KINDS)}."
            )
    return tuple(kind for kind in KINDS if kind in names or not names)


@dataclass(frozen=True)
class _Slots:
    """Where a unit lies at a place of the spec: its slots there, numbered from `first` on."""

    place: Place
    first: int
    count: int


def find_factors(trace: Trace, spec: PermSpec, kinds: Iterable[str] = KINDS) -> tuple[Factor, ...]:
    """Every way to multiply the units of a group that keeps the function: each unit by a number of its own, or all by an
    orthogonal matrix.

    Groups that hold others are looked at through those: what a head may be multiplied by, its channels may.
    """
    held = {name for group in spec.groups for name in group.ancestors}
    found: list[Factor] = []
    for group in spec.groups:
        slots = _slots(trace, spec, group)
        if group.name in held or not 0 < sum(s.count for s in slots) <= WIDEST:
            continue
        numbers = cache(partial(_numbers, trace, spec, group, tuple(slots)))
        for kind in kinds:
            found += _matrices(trace, spec, group, slots, numbers) if kind == ROTATIONS else numbers(kind)
    return tuple(found)


def _numbers(
    trace: Trace, spec: PermSpec, group: Group, slots: Sequence[_Slots], kind: str
) -> tuple[Factor, ...]:
    """Signs or scales. The first unit stands for all: they are alike."""
    forms = Forms(sum(s.count for s in slots))
    marked = _marked(spec, group, slots, 1, lambda slot, unit: forms.unknown(slot), forms.add)
    patterns = walk(trace, kind, forms, marked)
    at = {probe.node: _forms_at(patterns.get(probe.node)) for probe in group.probes}
    single = {node: forms.vector(found[0]) for node, found in at.items() if len(found) == 1}
    found = []
    for vector in forms.exponents(2 if kind == SIGNS else 0):
        parts = [(s, tuple(map(int, vector[s.first : s.first + s.count]))) for s in slots]
        powers = tuple(Power(s.place, part) for s, part in parts if any(part))
        exponents = [(node, int(form @ vector)) for node, form in single.items()]
        seen = [(node, e % 2 if kind == SIGNS else e) for node, e in exponents]
        found.append(Factor(group.name, kind, powers, tuple(one for one in seen if one[1])))
    return tuple(found)


def _forms_at(pattern: Pattern) -> list[Form]:
    """The forms that occur in a pattern, but for NONE and ANY."""
    return [] if pattern is None else [form for form in distinct(pattern)[0] if form > 0]


def _matrices(
    trace: Trace,
    spec: PermSpec,
    group: Group,
    slots: Sequence[_Slots],
    numbers: Callable[[str], tuple[Factor, ...]],
) -> Iterator[Factor]:
    """Rotations, given the signs and scales of the same group. The units of the first copy stand for those of all. What cannot be negated unit by unit cannot be turned.

    The scale of an RMS norm can be folded into what reads it, and is taken as one.
    """
    count = sum(s.count for s in slots)
    if count * group.size > LARGEST or not numbers(SIGNS):
        return
    folded = (factor.folds() for factor in numbers(SCALES))
    ones = {name for name in folded if name in spec.tensors and len(spec.tensors[name]) == 1}
    turns = Turns(count, group.size)
    rest = [s for s in slots if s.place.tensor not in ones]
    marked = _marked(spec, group, rest, group.size, turns.mark, turns.add)
    marked |= {name: torch.full(spec.tensors[name], ONE, dtype=torch.int32) for name in ones}
    patterns = walk(trace, ROTATIONS, turns, marked)
    at = {probe.node: _forms_at(patterns.get(probe.node)) for probe in group.probes}
    for together in turns.free():
        powers = []
        for s in rest:
            part = tuple(int(s.first + i in together) for i in range(s.count))
            powers += [Power(s.place, part)] if any(part) else []
        seen = [node for node, marks in at.items() if {turns.slot(mark) for mark in marks} == {together[0]}]
        if powers:
            held = tuple(sorted(ones)) if len(powers) > 1 else ()
            yield Factor(group.name, ROTATIONS, tuple(powers), tuple((node, 1) for node in seen), held)


def _slots(trace: Trace, spec: PermSpec, group: Group) -> list[_Slots]:
    """The places of a group on state tensors that hold floating-point numbers."""
    slots, first = [], 0
    for place in group.places:
        held = spec.members(place.tensor)
        if all(
            name in trace.state and trace.state[name].dtype.startswith(("float", "bfloat")) for name in held
        ):
            slots.append(_Slots(place, first, place.positions.shape[-1]))
            first += slots[-1].count
    return slots


def _marked(
    spec: PermSpec,
    group: Group,
    slots: Sequence[_Slots],
    units: int,
    of: Callable[[int, int], Form],
    meet: Callable[[Form, Form], Form],
) -> dict[str, Tensor]:
    """The patterns of the state, where units of the first copy of the group are marked and all else is as it is.

    units   how many of the first are marked
    of      the mark of a slot and a unit
    meet    the mark of an element on which two units meet
    """
    marked: dict[str, Tensor] = {}
    for one in slots:
        pattern = torch.zeros(spec.shapes[one.place.tensor], dtype=torch.int32)
        for unit in range(units):
            for slot in range(one.count):
                for index in elements(one.place, group, unit, slot):
                    pattern[index] = of(one.first + slot, unit)
        known = marked.get(one.place.tensor)
        marked[one.place.tensor] = pattern if known is None else _met(known, pattern, meet)
    return apart(spec, marked)


def _met(known: Tensor, pattern: Tensor, meet: Callable[[Form, Form], Form]) -> Tensor:
    both = (known != 0) & (pattern != 0)
    total = known + pattern
    if bool(both.any()):
        total[both] = pairwise(known[both], pattern[both], meet)
    return total


Index = tuple[int | slice | Tensor, ...]


def elements(place: Place, group: Group, unit: int, slot: int) -> Iterator[Index]:
    """Indices of what one unit of the first copy of a group owns at a slot of a place."""
    at = tuple(
        unit if name == group.name else 0 if name in group.ancestors else slice(None) for name in place.layout
    )
    coordinates = place.positions.array()[at][..., slot].reshape(-1)
    rows = None if place.rows is None else place.rows.array()[at].reshape(len(coordinates), -1)
    for number, coordinate in enumerate(coordinates.tolist()):
        if coordinate < 0:
            continue
        index: dict[int, int | slice | Tensor] = {place.axis: coordinate}
        if rows is not None and place.rows_axis is not None:
            index[place.rows_axis] = torch.from_numpy(rows[number])
        yield tuple(index.get(d, slice(None)) for d in range(max(index) + 1))
