"""Reorder: the element of a plan's groups under which N:M sparsity keeps most of the weights' magnitude.

Counted are the weights of products: tensors with two axes or more, by the axis that is summed over, where a selected group
lies on it. Which rows a tensor has does not depend on their order, so a group is judged by its consumers alone, and a group
whose stripes hold its own units only is solved apart (`stripes.py`), once for each unit of the groups that it lives within. Stripes
that hold units of several groups or copies are improved by exchanges of two units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from permgraph.compression.exchanges import Consumer, improve
from permgraph.compression.pattern import Array, Pattern
from permgraph.compression.stripes import best_order
from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, IntArray, Place
from permgraph.matching.weight_scores import Numbers, units, with_joined
from permgraph.planning.gather import Gather, apply_gathers, gathers

PASSES = 3  # over groups that share stripes
WORK = 3e10  # differences of weights in all, about a minute, after which searches end sooner
NO_PRODUCT = {"embedding", "add", "sub", "mul", "div", "weight_norm"}  # they read rows, or element by element


@dataclass(frozen=True)
class Row:
    """Magnitude of one tensor: all of it, what the pattern keeps `before` and `after`, and the `most` that any order could."""

    tensor: str
    axis: int
    all: float
    before: float
    after: float
    most: float


@dataclass(frozen=True)
class Reordered:
    """The permutations, and what they are worth.

    rows      of the tensors that the pattern applies to
    left_out  consumers on an axis whose length M does not divide
    """

    pattern: Pattern
    perms: Permutations
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()

    @property
    def total(self) -> Row:
        """Of all tensors."""
        sums = (
            (math.fsum(getattr(row, key) for row in self.rows)) for key in ("all", "before", "after", "most")
        )
        return Row("all", -1, *sums)

    @property
    def efficacy(self) -> float:
        """What the order gains, of what separates the order before from the most there can be (so named by Pool and Yu)."""
        total = self.total
        room = total.most - total.before
        return (total.after - total.before) / room if room > 0 else 1.0


def reorder(
    plan: Plan, numbers: tuple[Mapping[str, Array], str], pattern: Pattern, seed: int = 0
) -> Reordered:
    """Permutations of the selected groups that keep more magnitude; groups that do not matter stay in order.

    numbers  of the weights by the plan's names, and their fingerprint

    Raises PlanError where no product sums over units of the plan, or its mode does not keep the function.
    """
    if plan.mode != "exact":
        raise PlanError(
            f"reorder: the plan has mode {plan.mode}, which changes the function. Plan with --mode exact."
        )
    held = with_joined(plan.spec.joined, numbers[0])
    places, left_out = _counted(plan, held, pattern)
    if not places:
        why = (
            f" M = {pattern.of} divides the length of none of {', '.join(left_out[:3])}." if left_out else ""
        )
        raise PlanError(f"reorder: no product sums over units that this plan moves.{why} Plan more groups.")
    axes = {(place.tensor, place.axis): None for place in places}
    before = {name: np.abs(held[name]) for name, _ in axes}
    search = _Improvement(plan, pattern, places, dict(before), np.random.default_rng(seed))
    search.run()
    arrays = {g.name: search.perms.arrays.get(g.name, _in_order(plan.spec.shape_of(g))) for g in plan.groups}
    origin = replace(plan.origin, weights_b=numbers[1])
    rows = tuple(
        Row(
            name,
            axis,
            float(before[name].sum(dtype=np.float64)),
            pattern.kept_of(before[name], axis),
            pattern.kept_of(search.moved[name], axis),
            pattern.most_of(before[name], axis),
        )
        for name, axis in axes
    )
    return Reordered(pattern, Permutations(arrays, origin=origin), rows, left_out)


def _counted(plan: Plan, held: Numbers, pattern: Pattern) -> tuple[list[Place], tuple[str, ...]]:
    """Places on which products sum over selected units; those left out because of their length, as text."""
    counted: list[Place] = []
    left_out: dict[str, None] = {}
    for place in plan.steps:
        tensor = held.get(place.tensor)
        if place.side != "un-permute" or tensor is None or tensor.ndim < 2 or not _summed_over(place):
            continue
        joined = plan.spec.joined.get(place.tensor)
        one_after_another = joined is not None and joined.axis == place.axis
        length = tensor.shape[place.axis] // (len(joined.members) if joined and one_after_another else 1)
        if length % pattern.of:
            left_out[str(place)] = None
        else:
            counted.append(place)
    return counted, tuple(left_out)


def _summed_over(place: Place) -> bool:
    """Whether a product sums over this axis. Recurrent layers, which consume what they produce, and convolutions sum over
    axis 1 of a weight, transposed convolutions over axis 0."""
    node = re.sub(r"(_interface)?(_\d+)?$", "", place.node.lstrip("_"))
    if node.startswith(("conv", "gru", "lstm", "rnn")):
        return place.axis == (0 if "transpose" in node else 1)
    return node not in NO_PRODUCT


@dataclass
class _Improvement:
    """moved   the magnitudes of the counted tensors under `perms`"""

    plan: Plan
    pattern: Pattern
    places: list[Place]
    moved: Numbers
    rng: np.random.Generator
    perms: Permutations = field(default_factory=lambda: Permutations({}))

    @cached_property
    def work(self) -> float:
        """For each of the problems that are solved apart."""
        names = {name for place in self.places for name in place.layout}
        return WORK / max(1, sum(group.copies for group in self.plan.groups if group.name in names))

    def run(self) -> None:
        shared = [group for group in self.plan.groups if not self.apart(group)]
        for _ in range(PASSES if shared else 0):
            if not any([self.exchange(group) for group in shared]):
                break

    def apart(self, group: Group) -> bool:
        """Solve a group whose stripes are its own; False where some are not."""
        shape = self.plan.spec.shape_of(group)
        on = [place for place in self.places if group.name in place.layout]
        at = [_by_unit(place.positions.array(), place, group, shape) for place in on]
        held = [_by_unit(units(place, self.moved[place.tensor]), place, group, shape) for place in on]
        order = _in_order(shape)
        for copy in np.ndindex(shape[:-1]):
            split = [i for i, one in enumerate(at) if not _whole(one[copy], self.pattern.of)]
            if not split:
                continue
            stripes = _common_stripes([at[i][copy] for i in split], self.pattern.of)
            if stripes is None:
                return False
            weights = np.concatenate([held[i][copy][stripes] for i in split], axis=1)
            order[copy][stripes] = stripes[best_order(weights, self.pattern, self.rng, self.work)]
        self.move(group, order)
        return True

    def exchange(self, group: Group) -> bool:
        """Exchanges of two units of a group; whether any gained."""
        shape = self.plan.spec.shape_of(group)
        on = [place for place in self.places if group.name in place.layout]
        consumers = [_consumer(place, self.moved[place.tensor], group, shape) for place in on]
        order, gained = improve(consumers, shape, self.pattern, self.rng)
        if gained:
            self.move(group, order)
        return gained

    def move(self, group: Group, order: IntArray) -> None:
        new = Permutations({group.name: order})
        steps: dict[str, list[Gather]] = {}
        for gather in gathers(replace(self.plan, selected=(group.name,), taps={}), new):
            if gather.tensor in self.moved and gather.moves:
                steps.setdefault(gather.tensor, []).append(gather)
        self.moved |= {name: apply_gathers(self.moved[name], several) for name, several in steps.items()}
        self.perms = self.perms.then(new, self.plan.spec)


def _by_unit(array: Array, place: Place, group: Group, shape: tuple[int, ...]) -> Array:
    """From the axes of a place's layout to (*copies of the group, size, what a unit owns)."""
    axes = [place.layout.index(name) for name in (*group.ancestors, group.name)]
    return np.moveaxis(array, axes, range(len(axes))).reshape(*shape, -1)


def _consumer(place: Place, weights: Array, group: Group, shape: tuple[int, ...]) -> Consumer:
    """A copy of the weights, the axis that is summed over second."""
    at = _by_unit(place.positions.array(), place, group, shape)
    if place.rows is None or place.rows_axis is None:
        return Consumer(np.moveaxis(weights, place.axis, 0)[None].copy(), at)
    front = np.moveaxis(weights, (place.rows_axis, place.axis), (0, 1)).copy()
    return Consumer(front, at, _by_unit(place.rows.array(), place, group, shape))


def _whole(coordinates: IntArray, length: int) -> bool:
    """Whether every unit owns whole stripes: (size, owned). Then its slot does not matter."""
    for own in coordinates:
        _, counts = np.unique(np.unique(own) // length, return_counts=True)
        if (counts != length).any():
            return False
    return True


def _common_stripes(coordinates: Sequence[IntArray], length: int) -> IntArray | None:
    """Units in the order of their stripes, which hold nothing else and are the same wherever the units are summed over.

    None where there are no such stripes. `coordinates`: one (size, owned) for each tensor.
    """
    found: IntArray | None = None
    for own in (column for one in coordinates for column in one.T):
        stripe = own // length
        members = np.argsort(own, kind="stable")
        _, counts = np.unique(stripe, return_counts=True)
        if own.min() < 0 or (counts != length).any():
            return None
        stripes = np.sort(members.reshape(-1, length), axis=1)
        stripes = stripes[np.argsort(stripes[:, 0])]
        if found is not None and not np.array_equal(stripes, found):
            return None
        found = stripes
    return None if found is None else np.ravel(found)


def _in_order(shape: tuple[int, ...]) -> IntArray:
    order: IntArray = np.broadcast_to(np.arange(shape[-1]), shape).copy()
    return order
