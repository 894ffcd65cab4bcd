"""Weight matching: the permutations under which B's weights are most like A's, without data.

After Git Re-Basin (https://arxiv.org/abs/2209.04836, algorithm 1): coordinate descent on the sum over all tensors of the
inner product ⟨A, P·B⟩. With all other groups held, the gain of giving B's unit j to A's slot k is a table of scores, and
the best permutation an assignment, nested where groups are. A step that does not gain is not taken, so the objective
never falls.

Every step starts from B as it is moved so far. So units stay where they are when scores are equal; and a group on two axes
of one tensor (recurrent weights), which no assignment solves, is scored by moving one axis at a time, and moves when
both together gain.

The optimum that is found depends on the start, so there are several, and the best is kept. One goes from front to back and
reads only tensors whose other axes are aligned already; one starts from B as it is, in graph order; the others from random
elements of the group, in random orders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from permgraph.errors import MatchError
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin, Plan
from permgraph.ir.spec import IntArray, Place
from permgraph.matching.nested_assignment import align, evidence
from permgraph.matching.probes import families
from permgraph.matching.weight_scores import (
    Array,
    Numbers,
    inner,
    tables,
    with_joined,
    without_implied,
    without_statistics,
)
from permgraph.planning.gather import apply_gathers, gathers

RANDOM_STARTS = 30  # at most, of small networks: their gain is small, and those of large networks take long
WORK = 1e10  # products of numbers in a pass: above it a network is large, and has no random starts
LITTLE = 3e-4  # of what is reached: a pass of a large network that gains less is the last
PASSES = 100  # of one start; it ends when nothing gains, after far fewer
LEAST = 1e-12  # of the largest objective that there can be: a smaller gain may be rounding
ENOUGH = 1e-5  # of it: a start that comes as near leaves nothing to the others


@dataclass(frozen=True, eq=False)
class Weights:
    """Both models' weights: the plan's name of a tensor → its numbers, and what they belong to."""

    a: Mapping[str, Array]
    b: Mapping[str, Array]
    origin: Origin

    @classmethod
    def of(
        cls, plan: Plan, a: tuple[Mapping[str, Array], str], b: tuple[Mapping[str, Array], str]
    ) -> Weights:
        """From the numbers and the fingerprint of each."""
        return cls(a[0], b[0], replace(plan.origin, weights_a=a[1], weights_b=b[1]))


@dataclass(frozen=True)
class Family:
    """Groups that share a place: they are assigned together. `plan` selects them alone."""

    plan: Plan
    places: tuple[Place, ...]

    @cached_property
    def tensors(self) -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for place in self.places:
            found.setdefault(place.tensor, []).append(place)
        return found

    def linear(self, tensor: str) -> bool:
        """Whether its units lie on one axis of this tensor, once each: then one assignment is the best there is."""
        places = self.tensors[tensor]
        return len({p.axis for p in places}) == 1 and all(len(set(p.layout)) == len(p.layout) for p in places)


@dataclass
class Descent:
    """One start: where B is by now, and what the objective is.

    moved    B's tensors under the permutations so far
    values   tensor → ⟨A, P·B⟩
    stale    families of which a tensor has changed since they were last assigned
    history  the objective after every pass
    """

    problem: Problem
    perms: Permutations
    moved: Numbers
    values: dict[str, float]
    stale: set[int]
    history: list[float] = field(default_factory=list)

    @property
    def objective(self) -> float:
        return sum(self.values.values())

    def passes(self, order: Iterable[Sequence[int]], best: float = -math.inf) -> None:
        """One pass after another, in these orders, until nothing gains; of large networks until one gains little or is behind `best`."""
        self.history.append(self.objective)
        for number, turn in enumerate(order):
            now, large = self.history[-1], self.problem.cost > WORK
            little = large and number > 0 and (now < best or now - self.history[-2] < LITTLE * abs(now))
            if little or not self.stale:
                break
            for family in turn:
                if family in self.stale:
                    self.stale.discard(family)
                    self.step(family, self.problem.families[family].places)
            self.history.append(self.objective)

    def step(self, number: int, places: Sequence[Place], gain_only: bool = True) -> None:
        """Assign a family by these places of it; with `gain_only`, keep it where that gains nothing."""
        family, problem = self.problem.families[number], self.problem
        new = problem.assigned(family, places, self.moved)
        if all((array == np.arange(array.shape[-1])).all() for array in new.arrays.values()):
            return
        moved, values = problem.apply(family, new, self.moved)
        gain = sum(values.values()) - sum(self.values[name] for name in values)
        if not gain_only or gain > LEAST * problem.most:
            self.move(new, moved, values)
            self.stale |= {
                n for name in moved for n in problem.on[name] if n != number or not family.linear(name)
            }

    def move(self, new: Permutations, moved: Numbers, values: dict[str, float]) -> None:
        self.moved |= moved
        self.values |= values
        self.perms = self.perms.then(new, self.problem.plan.spec)


@dataclass(frozen=True)
class Problem:
    """A and B, by tensors of the plan, and what is to be assigned."""

    plan: Plan
    a: Numbers
    b: Numbers

    @classmethod
    def of(cls, plan: Plan, weights: Weights) -> Problem:
        """With what counts as weights. Raises MatchError where a tensor is complex in one model alone."""
        a, b = (with_joined(plan.spec.joined, one) for one in (weights.a, weights.b))
        problem = cls(plan, without_statistics(plan, a), without_statistics(plan, b))
        for name in problem.on:
            if problem.a[name].shape != problem.b[name].shape:
                raise MatchError(
                    f"{name}: complex in one model and real in the other. Store both in one dtype."
                )
        return problem

    @cached_property
    def families(self) -> list[Family]:
        """In graph order."""
        chosen = set(self.plan.selected)
        places = [p for p in self.plan.steps if p.tensor in self.a and p.tensor in self.b]
        names = [f"{i:09}" for i in range(len(places))]
        keys = families({n: chosen.intersection(p.layout) for n, p in zip(names, places, strict=True)})
        found = []
        for several in sorted(keys):
            of_tensor: dict[str, list[Place]] = {}
            for key in several:
                of_tensor.setdefault(places[int(key)].tensor, []).append(places[int(key)])
            held = [
                p for t, on in of_tensor.items() for p in without_implied(on, self.a[t].shape.__getitem__)
            ]
            groups = {name for key in several for name in places[int(key)].layout} & chosen
            selected = tuple(g.name for g in self.plan.groups if g.name in groups)
            found.append(Family(replace(self.plan, selected=selected, taps={}), tuple(held)))
        return found

    @cached_property
    def on(self) -> dict[str, list[int]]:
        """Tensor → the families that have places on it."""
        found: dict[str, list[int]] = {}
        for number, family in enumerate(self.families):
            for name in family.tensors:
                found.setdefault(name, []).append(number)
        return found

    @cached_property
    def most(self) -> float:
        """No objective is larger (Cauchy and Schwarz)."""
        return sum(math.sqrt(inner(self.a[n], self.a[n]) * inner(self.b[n], self.b[n])) for n in self.on)

    def start(self, perms: Permutations | None = None) -> Descent:
        """With B moved by these permutations, or as it is."""
        start = Descent(
            self,
            Permutations({}),
            {name: self.b[name] for name in self.on},
            {name: inner(self.a[name], self.b[name]) for name in self.on},
            set(range(len(self.families))),
        )
        if perms is not None:
            for family in self.families:
                own = perms.only(family.plan.selected)
                start.move(own, *self.apply(family, own, start.moved))
        return start

    def starts(
        self, rng: np.random.Generator, random: int, afresh: bool = True
    ) -> Iterator[tuple[Descent, Iterable[Sequence[int]]]]:
        """Each start, with the orders of its passes; so many random ones at most. `afresh`: from front to back, too."""
        count = len(self.families)
        in_order = list(range(count))
        alternating = [in_order, in_order[::-1]] * (PASSES // 2)
        if afresh:
            yield self.front_to_back(), alternating
        yield self.start(), alternating
        for number in range(random):
            if self.cost * (number + 1) > WORK:
                return
            orders = (rng.permutation(count).tolist() for _ in range(PASSES))
            yield self.start(random_permutations(self.plan, int(rng.integers(2**32)))), orders

    @cached_property
    def cost(self) -> float:
        """Products of numbers in one pass."""
        places = [place for family in self.families for place in family.places]
        return sum(self.a[p.tensor].size * math.prod(p.positions.shape[:-1]) for p in places)

    def assigned(self, family: Family, places: Iterable[Place], moved: Mapping[str, Array]) -> Permutations:
        """The best permutation of a family on top of those that B is moved by, as far as these places tell."""
        spec, found = self.plan.spec, []
        for layout, score in tables(places, self.a, moved).items():
            alive = np.zeros(len(score), dtype=bool)
            found.append(evidence(spec, "weights", layout, score, alive, alive))
        seen = {name for one in found for name in one.layout}
        return Permutations(align(spec, [g for g in family.plan.selected if g in seen], found))

    def apply(
        self, family: Family, perms: Permutations, moved: Mapping[str, Array]
    ) -> tuple[Numbers, dict[str, float]]:
        """The tensors that a family changes, after it, and their part of the objective."""
        steps: dict[str, list[Any]] = {}
        for gather in gathers(family.plan, perms):
            if gather.tensor in self.on:
                steps.setdefault(gather.tensor, []).append(gather)
        changed = {name: [g for g in several if g.moves] for name, several in steps.items()}
        after = {n: apply_gathers(moved[n], several) for n, several in changed.items() if several}
        return after, {name: inner(self.a[name], tensor) for name, tensor in after.items()}

    def front_to_back(self) -> Descent:
        """A start in which every family is assigned once, by what meets units that are in A's order already."""
        descent, done = self.start(), set[int]()
        for number, family in enumerate(self.families):
            known = [n for n in family.tensors if family.linear(n) and {*self.on[n]} <= done | {number}]
            told = {name for n in known for p in family.tensors[n] for name in p.layout}
            # a group that nothing known tells of reads all that there is
            places = [p for p in family.places if p.tensor in known or not set(p.layout) <= told]
            descent.step(number, places, gain_only=False)
            done.add(number)
        descent.stale = set(range(len(self.families)))
        return descent


def match_weights(
    plan: Plan, weights: Weights, seed: int = 0, random_starts: int = RANDOM_STARTS, afresh: bool = True
) -> tuple[dict[str, IntArray], dict[str, Any]]:
    """The permutations of the selected groups that the weights tell of, and what is reported:
    objective  Σ ⟨A, P·B⟩ over the weights that the plan moves; `in_place`: of B as it is; `most`: none can be larger
    history    the objective before and after every pass of the best start
    starts     how many were tried

    seed   of the random starts, of which there are `random_starts` at most
    afresh whether a start from front to back is made, too; else B is only moved from where it is

    Raises MatchError where a tensor is complex in one model alone, or a group has too many units.
    """
    problem = Problem.of(plan, weights)
    best = in_place = problem.start()
    tried = 0
    for descent, orders in problem.starts(np.random.default_rng(seed), random_starts, afresh):
        tried += 1
        descent.passes(orders, best.objective)
        descent.moved = {}  # as large as B
        if descent.objective > best.objective:
            best = descent
        if best.objective >= (1 - ENOUGH) * problem.most:
            break
    report = {
        "objective": best.objective,
        "in_place": in_place.objective,
        "most": problem.most,
        "history": best.history,
        "starts": tried,
    }
    return best.perms.arrays, report
