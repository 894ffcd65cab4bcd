"""Slices: what every unit of a group owns, tensor by tensor; and state dicts without some units.

Structured pruning removes a unit at every place at once (Fang et al., DepGraph, https://arxiv.org/abs/2301.12900). A group
says which places those are: a channel with its norm and its consumers, a head in four projections, a key head of grouped
queries with all its query heads, one v channel of every head. What makes code run at the smaller size, a number of heads in a
configuration or the `groups` of a convolution, is not in the weights, and stays with whoever removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import PlanError
from permgraph.ir.spec import Group, IntArray, PermSpec, Place
from permgraph.planning.gather import Gather, apply_gathers
from permgraph.weights.beside_tensors import tensors_of, with_rest_of
from permgraph.weights.names import match_names

T = TypeVar("T")
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Slice:
    """What the units of a group own on one axis of one tensor.

    coordinates  (*copies, size, owned): on `axis`, of every unit in every copy of the group
    rows         (*copies, size, owned): where the coordinates hold for some rows of `rows_axis` only, as in a grouped
                 convolution, those rows; else None
    side         "permute" where units are produced, "un-permute" where they are consumed
    """

    tensor: str
    axis: int
    side: str
    coordinates: IntArray
    rows_axis: int | None = None
    rows: IntArray | None = None

    def to_json(self) -> dict[str, Any]:
        found = {
            "tensor": self.tensor,
            "axis": self.axis,
            "side": self.side,
            "coordinates": self.coordinates.tolist(),
        }
        rows = None if self.rows is None else self.rows.tolist()
        return found if rows is None else {**found, "rows_axis": self.rows_axis, "rows": rows}


def slices_of(spec: PermSpec, group: Group) -> list[Slice]:
    """In graph order."""
    return [_slice(spec, group, place) for place in group.places]


def _slice(spec: PermSpec, group: Group, place: Place) -> Slice:
    axes = [place.layout.index(name) for name in (*group.ancestors, group.name)]
    shape = spec.shape_of(group)

    def by_unit(array: IntArray) -> IntArray:
        return np.moveaxis(array, axes, range(len(axes))).reshape(*shape, -1)

    rows = None if place.rows is None else by_unit(place.rows.array())
    return Slice(
        place.tensor, place.axis, place.side, by_unit(place.positions.array()), place.rows_axis, rows
    )


def slices_json(spec: PermSpec, names: Sequence[str]) -> dict[str, Any]:
    """Of the groups of these names; what docs/json.md describes."""
    groups = [
        {
            "name": group.name,
            "role": group.role,
            "size": group.size,
            "ancestors": list(group.ancestors),
            "copies": list(spec.shape_of(group)[:-1]),
            "slices": [one.to_json() for one in slices_of(spec, group)],
        }
        for group in (spec[name] for name in names)
    ]
    used = {place.tensor for name in names for place in spec[name].places}
    joined = {
        name: {"members": list(j.members), "axis": j.axis} for name, j in spec.joined.items() if name in used
    }
    return {
        "permgraph": "slices",
        "model": spec.model,
        "fingerprint": spec.fingerprint,
        "groups": groups,
        "joined": joined,
    }


def remove(
    spec: PermSpec, units: Mapping[str, Any], state: Mapping[str, T], allow_tables: bool = False
) -> dict[str, T]:
    """A new state dict without these units.

    units         group → numbers of units, (removed,), the same in every copy of a nested group; or (*copies, removed)
    allow_tables  leave integer tables, which may number units, as they are

    Raises PlanError for units that do not exist, for all units of a group, for a network whose groups depend on tables, and
    where rows would differ in length; FileError for a state dict of another network.
    """
    if spec.values and not allow_tables:
        raise PlanError(
            f"{min(spec.values)}: an integer table that the groups depend on. It may number the units that go, and would be wrong "
            "then. With allow_tables=True it stays as it is."
        )
    gone: dict[tuple[str, int], Mask] = {}
    by_row: dict[tuple[str, int, int], Mask] = {}
    for name, typed in units.items():
        group = spec[name]
        numbers = _numbers(spec, group, typed)
        for one in slices_of(spec, group):
            _refuse(spec, group, one)
            taken = np.take_along_axis(one.coordinates, numbers[..., None], axis=-2)
            length = spec.tensors[one.tensor][one.axis]
            if one.rows is None or one.rows_axis is None:
                mask = gone.setdefault((one.tensor, one.axis), np.zeros(length, dtype=np.bool_))
                mask[taken[taken >= 0]] = True
                continue
            rows = np.take_along_axis(one.rows, numbers[..., None], axis=-2)
            height = spec.tensors[one.tensor][one.rows_axis]
            table = by_row.setdefault(
                (one.tensor, one.axis, one.rows_axis), np.zeros((height, length), dtype=np.bool_)
            )
            table[rows[..., :, None], taken[..., None, :]] = True
    tensors = tensors_of(state)
    names = match_names(
        spec, {key: tuple(getattr(t, "shape", ())) for key, t in tensors.items()}, "state dict", None, ()
    )
    cuts = _cuts(gone, by_row)
    left = {key: apply_gathers(tensor, cuts.get(names.get(key, ""), ())) for key, tensor in tensors.items()}
    return with_rest_of(state, left)


def _numbers(spec: PermSpec, group: Group, typed: Any) -> IntArray:
    """(*copies, removed), sorted."""
    copies = spec.shape_of(group)[:-1]
    numbers = np.asarray(typed, dtype=np.int64)
    if numbers.ndim not in (1, 1 + len(copies)) or (numbers.ndim > 1 and numbers.shape[:-1] != copies):
        raise PlanError(
            f"{group.name}: units of shape {numbers.shape}; give a list, the same in every copy, or as many for each of the "
            f"copies {copies}."
        )
    numbers = np.sort(np.broadcast_to(numbers, (*copies, numbers.shape[-1])), axis=-1)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < group.size):
        raise PlanError(
            f"{group.name}: has units 0 to {group.size - 1}, not {numbers.max() if numbers.min() >= 0 else numbers.min()}."
        )
    if (np.diff(numbers, axis=-1) == 0).any():
        raise PlanError(f"{group.name}: a unit is given twice.")
    if numbers.shape[-1] >= group.size:
        raise PlanError(
            f"{group.name}: all {group.size} units would be removed, and nothing is left to compute with."
        )
    return numbers


def _refuse(spec: PermSpec, group: Group, one: Slice) -> None:
    """What cannot be cut out of one tensor."""
    if one.tensor.startswith("output:"):
        raise PlanError(f"{group.name}: its units are an output of the network. Infer without --free-output.")
    if one.tensor in spec.joined:
        raise PlanError(
            f"{group.name}: its units are whole modules or lie in several ({', '.join(spec.members(one.tensor)[:3])}). Remove those modules."
        )


def _cuts(
    gone: Mapping[tuple[str, int], Mask], by_row: Mapping[tuple[str, int, int], Mask]
) -> dict[str, list[Gather]]:
    """Tensor → what is kept of it, axis by axis; an order per row after its rows."""
    cuts: dict[str, list[Gather]] = {}
    whole = {key: mask for key, mask in gone.items() if key not in {key[:2] for key in by_row}}
    for (tensor, axis), mask in whole.items():
        cuts.setdefault(tensor, []).append(Gather(tensor, axis, np.flatnonzero(~mask)))
    for (tensor, axis, rows_axis), table in by_row.items():
        rows = ~gone.get((tensor, rows_axis), np.zeros(len(table), dtype=np.bool_))
        keep = ~(table | gone.get((tensor, axis), np.False_))[rows]
        counts = keep.sum(axis=1)
        if (counts != counts[0]).any():
            raise PlanError(
                f"{tensor}[{axis}]: its rows would keep {counts.min()} to {counts.max()} coordinates. Remove as many of each block."
            )
        index = np.nonzero(keep)[1].reshape(len(counts), -1)
        cuts.setdefault(tensor, []).append(Gather(tensor, axis, index, rows_axis))
    return cuts
