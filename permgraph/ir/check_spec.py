"""Check a spec: groups within groups that exist, places that lie in their tensors, no coordinate in two units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.joined import check_joined

if TYPE_CHECKING:
    from permgraph.ir.positions import IntArray
    from permgraph.ir.spec import Group, PermSpec, Place, Positions, Probe

SIDES = ("permute", "un-permute", "output")
WHEN = ("leaving", "normed", "entering", "state")
MAX_CELLS = 2**28  # positions of one place


def check_spec(spec: PermSpec) -> None:
    """Raises PlanError that names the tensor, the axis and the group at fault."""
    _check_tensors(spec)
    check_joined(spec.joined, spec.tensors, {place.tensor for place in spec.places})
    _check_groups(spec)
    for place in spec.places:
        _check_place(spec, place)
    _check_held(spec)
    _check_overlap(spec)
    for group in spec.groups:
        for probe in group.probes:
            _check_probe(spec, group, probe)


def _check_tensors(spec: PermSpec) -> None:
    for name, shape in spec.tensors.items():
        if len(shape) > 64 or any(n < 0 for n in shape):
            raise PlanError(f"{name}: {shape} is not a shape.")
    for name in (*spec.unused, *spec.aliases, *spec.values):
        if name not in spec.tensors:
            raise PlanError(
                f"{name}: listed as unused, tied or of known values, and no tensor of the network."
            )
    names = [*spec.tensors, *(alias for aliases in spec.aliases.values() for alias in aliases)]
    if len(set(names)) != len(names):
        raise PlanError(f"{_twice(names)}: two tensors have this name.")
    for pin in spec.pinned:
        shape = spec.tensors.get(pin.tensor, ())
        if not 0 <= pin.axis < len(shape) or not 0 < pin.count <= max(math.prod(shape), shape[pin.axis]):
            raise PlanError(
                f"{pin.tensor}[{pin.axis}]: {pin.count} pinned coordinates, its shape is {shape}."
            )


def _check_groups(spec: PermSpec) -> None:
    known: dict[str, Group] = {}
    for group in spec.groups:
        if group.name in known:
            raise PlanError(f"group {group.name!r} is defined twice.")
        if group.size < 1:
            raise PlanError(f"group {group.name!r} has {group.size} units.")
        for name in group.ancestors:
            if name not in known:
                raise PlanError(
                    f"group {group.name!r} lives within {name!r}, which is not defined before it."
                )
            outer = next((o for o in known[name].ancestors if o not in group.ancestors), None)
            if outer is not None:
                raise PlanError(f"group {group.name!r} lives within {name!r} and not within its {outer!r}.")
        copies = math.prod(known[name].size for name in group.ancestors)
        if group.copies != copies or len(set(group.ancestors)) != len(group.ancestors):
            raise PlanError(
                f"group {group.name!r}: {group.copies} copies, its ancestors have {copies} units."
            )
        known[group.name] = group


def _check_layout(spec: PermSpec, where: object, layout: Sequence[str], positions: Positions) -> None:
    """Groups that exist, each with its ancestors, and one position per unit of theirs."""
    sizes = []
    for name in layout:
        if name not in spec.by_name:
            raise PlanError(f"{where}: group {name!r} is not defined.")
        group = spec.by_name[name]
        sizes.append(group.size)
        missing = [outer for outer in group.ancestors if outer not in layout]
        if missing:
            raise PlanError(
                f"{where}: units of {name} are placed without {missing[0]}, which they live within."
            )
    if not layout:  # a group may stand in it twice: units that are pairs of its units
        raise PlanError(f"{where}: its layout names no group.")
    if positions.shape[:-1] != tuple(sizes):
        raise PlanError(f"{where}: positions of shape {positions.shape}, the groups need {(*sizes, '…')}.")
    _check_positions(where, positions)


def _check_positions(where: object, positions: Positions) -> None:
    size = math.prod(positions.shape)
    if not 0 < size <= MAX_CELLS:
        raise PlanError(f"{where}: {size:,} positions; from 1 to {MAX_CELLS:,} can be.")
    given = positions.strides if positions.flat is None else positions.flat
    wanted = len(positions.shape) if positions.flat is None else size
    if (
        given is None
        or len(given) != wanted
        or (positions.strides is not None) == (positions.flat is not None)
    ):
        raise PlanError(f"{where}: positions need one stride per axis, or a list with one number per unit.")


def _check_place(spec: PermSpec, place: Place) -> None:
    _check_layout(spec, place, place.layout, place.positions)
    if place.side not in SIDES:
        raise PlanError(f"{place}: side {place.side!r}; one of {', '.join(SIDES)} can be.")
    if (place.rows is None) != (place.rows_axis is None):
        raise PlanError(f"{place}: rows and rows_axis belong together.")
    shape = spec.shapes.get(place.tensor)
    if shape is None and not place.tensor.startswith("output:"):
        raise PlanError(f"{place}: the plan does not know this tensor's shape.")
    if place.rows is None:
        if place.positions.distinct and place.positions.bounds()[0] >= 0:
            _check_inside(place, place.positions.bounds(), shape, place.axis)
            return
        units = _units(place)
        _check_inside(place, (int(units.min()), int(units.max())), shape, place.axis)
        if np.unique(units).size < units.size:
            raise PlanError(f"{place}: a coordinate belongs to two units.")
        return
    _check_positions(place, place.rows)
    if place.rows.shape[:-1] != place.positions.shape[:-1] or place.rows_axis == place.axis:
        raise PlanError(f"{place}: rows of shape {place.rows.shape} on axis {place.rows_axis} do not fit.")
    _check_inside(place, place.positions.bounds(), shape, place.axis)
    _check_inside(place, place.rows.bounds(), shape, place.rows_axis or 0)


def _units(place: Place) -> IntArray:
    """The positions of a place, each once. Where a group stands twice in the layout, units are pairs of its units: those
    of a unit with itself may be missing (-1), and a pair may be the same in either order.
    """
    at = place.positions.array()
    twice = [i for i, name in enumerate(place.layout) if place.layout.count(name) == 2]
    if len(twice) != 2 or place.layout[twice[0]] != place.layout[twice[1]]:
        return at.ravel()
    at = np.moveaxis(at, twice, (0, 1))
    same = np.eye(len(at), dtype=bool)
    kept = ~same if (at[same] == -1).all() else np.ones_like(same)
    return at[np.triu(kept) if np.array_equal(at, at.swapaxes(0, 1)) else kept].ravel()


def _check_inside(place: Place, bounds: tuple[int, int], shape: tuple[int, ...] | None, axis: int) -> None:
    low, high = bounds
    length = MAX_CELLS if shape is None else shape[axis] if 0 <= axis < len(shape) else 0
    if low < 0 or high >= length:
        raise PlanError(
            f"{place}: positions from {low} up to {high} on axis {axis}, the tensor has shape {shape}."
        )


def _check_held(spec: PermSpec) -> None:
    """A place is listed once, by every group of its layout, and by no other."""
    listed = set(spec.places)
    if len(listed) != len(spec.places):
        raise PlanError(f"{_twice(spec.places)} appears twice with the same units.")
    for whole, group in zip(spec.completed().groups, spec.groups, strict=True):
        for place in group.places:
            if place not in listed:
                raise PlanError(
                    f"{place} is missing: it holds units of {group.name}, and moving the others without it would "
                    "change the function."
                )
        if set(whole.places) != set(group.places):
            other = next(p for p in spec.places if (p in whole.places) != (p in group.places))
            raise PlanError(f"{other}: group {group.name} does not list it among its places.")


def _check_overlap(spec: PermSpec) -> None:
    """No coordinate of an axis is a unit of two places. Where they hold for some rows, `gathers` checks it."""
    held: dict[tuple[str, int], list[Place]] = {}
    for place in spec.places:
        held.setdefault((place.tensor, place.axis), []).append(place)
    for places in held.values():
        if len(places) > 1 and all(p.rows is None for p in places):
            at = np.concatenate(list(map(_units, places)))
            if np.unique(at).size != at.size:
                raise PlanError(f"{places[0]}: its places overlap: a coordinate belongs to two units.")


def _check_probe(spec: PermSpec, group: Group, probe: Probe) -> None:
    where = f"probe of {group.name} at {probe.node}"
    _check_layout(spec, where, probe.layout, probe.positions)
    if group.name not in probe.layout or probe.when not in WHEN or not probe.dims:
        raise PlanError(f"{where}: it shows no units of this group, or not when they leave or enter an op.")
    if min(probe.dims) < 0 or len(set(probe.dims)) != len(probe.dims) or probe.positions.bounds()[0] < 0:
        raise PlanError(f"{where}: dims {probe.dims} or positions below 0 or twice.")


def _twice(items: Sequence[object]) -> object:
    seen: set[object] = set()
    return next(item for item in items if item in seen or seen.add(item))  # type: ignore[func-returns-value]
