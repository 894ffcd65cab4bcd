"""Scores between units, read off the weights: what the places of a group are worth when a unit takes another's slot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import MatchError
from permgraph.ir.joined import Joined
from permgraph.ir.moments import FloatArray
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Place

Array = NDArray[Any]
Numbers = dict[str, Array]  # tensor of a plan, or joined one → its numbers
STATISTICS = ("running_mean", "running_var")
MOST = 2**15  # units side by side: their table of scores takes 8 GB


def with_joined(joined: Mapping[str, Joined], tensors: Mapping[str, Array]) -> Numbers:
    """The tensors of floating point, and the joined ones whose members are all there; complex numbers as pairs."""
    found = {name: _real(t) for name, t in tensors.items() if t.dtype.kind in "fc"}
    for name, one in joined.items():
        members = [found[m] for m in one.members if m in found]
        if len(members) == len(one.members):
            found[name] = np.stack(members) if one.axis is None else np.concatenate(members, one.axis)
    return found


def without_statistics(plan: Plan, tensors: Mapping[str, Array]) -> Numbers:
    """Without the running statistics of norms: they are no weights, and so large that they would decide alone. A group that
    has places on nothing else keeps them."""
    rest = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in STATISTICS}
    told = {name for place in plan.steps if place.tensor in rest for name in place.layout}
    silent = set(plan.selected) - told
    kept = {p.tensor for p in plan.steps if p.tensor in tensors and silent & {*p.layout}}
    return rest | {name: tensors[name] for name in kept}


def tables(places: Iterable[Place], a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[Any, FloatArray]:
    """Layout → (U, U): the inner product of A's weights at slot k with B's at slot j, summed over these places.

    It is what the objective gains there when B's unit of slot j comes to slot k, all others as they are. Where a place
    holds pairs of units of one group, one unit of the pair moves at a time. Raises MatchError for too many units.
    """
    found: dict[Any, FloatArray] = {}
    for place in places:
        left, right = units(place, a[place.tensor]), units(place, b[place.tensor])
        for axes in _distinct(place.layout):
            layout = tuple(place.layout[axis] for axis in axes)
            ours, theirs = (_rows(x, axes) for x in (left, right))
            if len(ours) > MOST:
                raise MatchError(
                    f"{place}: {len(ours):,} units of {', '.join(layout)} would need a table of {len(ours):,} × {len(ours):,} "
                    f"scores. Leave them in order: -x {','.join(layout)}."
                )
            score = (ours @ theirs.T).astype(np.float64, copy=False)
            found[layout] = found[layout] + score if layout in found else score
    return found


def without_implied(places: Sequence[Place], length: Callable[[int], int]) -> list[Place]:
    """Places of one tensor, but for those whose units another place moves with its own: an order per expert says what
    becomes of a whole expert. `length` of an axis of the tensor."""

    def implied(place: Place) -> bool:
        return any(
            other.rows_axis == place.axis
            and set(place.layout) <= set(other.layout)
            and _cells(other) == math.prod(place.positions.shape) * length(other.axis)
            for other in places
            if other is not place
        )

    return [place for place in places if not implied(place)]


def _cells(place: Place) -> int:
    """How many coordinates a place with an order per row holds: none lies in two of its units."""
    rows = 0 if place.rows is None else place.rows.shape[-1]
    return math.prod(place.positions.shape) * rows


def units(place: Place, array: Array) -> Array:
    """What the units of a place own on a tensor, shape (*sizes of the layout, numbers of one unit)."""
    at = place.positions.array()
    if place.rows is not None and place.rows_axis is not None:
        rows = place.rows.array()
        held = np.moveaxis(array, (place.rows_axis, place.axis), (0, 1))[rows[..., :, None], at[..., None, :]]
        return held.reshape(*at.shape[:-1], -1)
    along = np.moveaxis(array, place.axis, 0)
    if at.shape[-1] == 1 and np.array_equal(at.ravel(), np.arange(len(along))):
        return along.reshape(*at.shape[:-1], -1)
    held = along[at]
    held[at < 0] = 0  # where nothing lies
    return held.reshape(*at.shape[:-1], -1)


def inner(a: Array, b: Array) -> float:
    """The inner product, summed in float64."""
    return float(np.dot(a.ravel().astype(np.float64), b.ravel().astype(np.float64)))


def _real(tensor: Array) -> Array:
    return np.stack([tensor.real, tensor.imag], axis=-1) if tensor.dtype.kind == "c" else tensor


def _distinct(layout: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """Axes of a layout that name each group once; several times where a group is there twice, for each of its axes."""
    most = max(layout.count(name) for name in layout)
    for turn in range(most):
        held: dict[str, list[int]] = {}
        for axis, name in enumerate(layout):
            held.setdefault(name, []).append(axis)
        yield tuple(axes[min(turn, len(axes) - 1)] for axes in held.values())


def _rows(held: Array, axes: tuple[int, ...]) -> Array:
    """A row per unit of these axes; the others are summed over."""
    front = np.moveaxis(held, axes, range(len(axes)))
    count = int(np.prod(front.shape[: len(axes)], dtype=np.int64))
    return front.reshape(count, -1)
