"""Many networks by their activations: the sum over all pairs of the scores of units that come to one slot.

Groups that share no probe are independent: each family of groups is aligned by itself. With all other networks held, one is
an assignment by the sum of the scores that its units have with those of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from permgraph.ir.moments import BoolArray, FloatArray, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import IntArray
from permgraph.matching.ascent import Ascent
from permgraph.matching.matchers import deciding_keys
from permgraph.matching.nested_assignment import align, evidence
from permgraph.matching.probes import families
from permgraph.matching.scores import flat_source

LEAST = 1e-12  # of the largest score: a smaller gain may be rounding
Pairs = Mapping[tuple[int, int], Moments]  # numbers of two networks, the smaller first → their moments


@dataclass(frozen=True, eq=False)
class JointMoments:
    """The networks, by the moments of every pair."""

    plan: Plan
    count: int
    moments: Pairs
    score: Callable[[ProbeMoments], FloatArray]

    def align(self, way: str, rng: np.random.Generator) -> tuple[list[Permutations], dict[str, Any]]:
        """The best permutations into one order, and what is to be reported of them: scores per pair and unit."""
        arrays: list[dict[str, IntArray]] = [{} for _ in range(self.count)]
        reached = dict.fromkeys(("objective", "first", "in_place"), 0.0)
        units = starts = 0
        for family in self.families():
            tried = list(family.starts(way))
            for ascent in tried:
                ascent.climb(rng)
            best = max(tried, key=lambda one: one.history[-1])
            for own, perms in zip(arrays, best.perms, strict=True):
                own |= perms.arrays
            reached["objective"] += best.history[-1]
            reached["first"] += tried[0].history[0]
            reached["in_place"] += family.start(None).value()
            units, starts = units + family.units, len(tried)
        of_all = max(units, 1) * self.count * (self.count - 1) / 2
        told = {key: value / of_all for key, value in reached.items()}
        return [Permutations(own) for own in arrays], {**told, "starts": starts}

    def families(self) -> Iterator[Family]:
        """One at a time: their scores are large."""
        chosen = set(self.plan.selected)
        some = self.moments[0, 1].probes
        for keys in families({key: probe.layout.groups for key, probe in some.items()}):
            layouts = {key: some[key].layout.groups for key in keys}
            groups = tuple(
                g.name for g in self.plan.groups if any(g.name in layout for layout in layouts.values())
            )
            if chosen & set(groups):
                yield Family(
                    self.plan,
                    groups,
                    layouts,
                    {pair: {k: self.score(one[k]) for k in keys} for pair, one in self.moments.items()},
                    [{k: self._dead(i, k) for k in keys} for i in range(self.count)],
                )

    def _dead(self, number: int, key: str) -> BoolArray:
        """Units of one network that never vary."""
        if number == self.count - 1:
            return self.moments[0, number][key].dead_b()
        return self.moments[number, number + 1][key].dead_a()


@dataclass(frozen=True, eq=False)
class Family:
    """Groups that share probes.

    layouts  key of a probe → groups of its units
    scores   pair of networks → key → (U, U)
    dead     for every network, key → (U,)
    """

    plan: Plan
    groups: tuple[str, ...]
    layouts: Mapping[str, tuple[str, ...]]
    scores: Mapping[tuple[int, int], Mapping[str, FloatArray]]
    dead: Sequence[Mapping[str, BoolArray]]

    @property
    def units(self) -> int:
        return sum(len(one) for one in self.dead[0].values())

    def start(self, hub: int | None) -> Ascent:
        """With all brought to one network, or as they are."""
        count = len(self.dead)
        here = _MomentsAscent(self, [Permutations({})] * count)
        if hub is not None:
            here.perms = [here.assigned(i, [hub]) if i != hub else Permutations({}) for i in range(count)]
        return here

    def starts(self, way: str) -> Iterator[Ascent]:
        for hub in range(len(self.dead) if way == "universe" else 1):
            yield self.start(hub)

    def between(self, a: int, b: int, key: str) -> FloatArray:
        """Scores of the units of a (rows) with those of b."""
        return self.scores[a, b][key] if a < b else self.scores[b, a][key].T


class _MomentsAscent(Ascent):
    def __init__(self, family: Family, perms: Sequence[Permutations]) -> None:
        super().__init__(perms)
        self.family = family

    def flat(self, number: int, key: str, perms: Permutations | None = None) -> IntArray:
        """For every unit of a probe, the unit of a network that comes to it."""
        family = self.family
        return flat_source(family.plan.spec, family.layouts[key], perms or self.perms[number])

    def total(self, number: int, key: str, others: Sequence[int]) -> FloatArray:
        """(U, U): what each unit of a network is worth in each slot, by the units of others that are there."""
        found = sum(self.family.between(i, number, key)[self.flat(i, key)] for i in others)
        return np.asarray(found)

    def totals(self, number: int, others: Sequence[int]) -> dict[str, FloatArray]:
        return {key: self.total(number, key, others) for key in self.family.layouts}

    def assigned(
        self, number: int, others: Sequence[int], totals: Mapping[str, FloatArray] | None = None
    ) -> Permutations:
        """The best permutation of one network with these others held. `totals` of them, where they are known."""
        family, spec, found = self.family, self.family.plan.spec, []
        totals = totals or self.totals(number, others)
        for key, layout in family.layouts.items():
            dead = np.all([family.dead[i][key][self.flat(i, key)] for i in others], axis=0)
            found.append(evidence(spec, key, layout, totals[key], dead, family.dead[number][key]))
        return Permutations(align(spec, family.groups, found, deciding_keys(family.plan, family.layouts)))

    def worth(self, number: int, perms: Permutations, totals: Mapping[str, FloatArray]) -> float:
        """The scores of one network with the others of these totals, under these permutations of it."""
        found = 0.0
        for key, total in totals.items():
            source = self.flat(number, key, perms)
            found += float(total[np.arange(len(source)), source].sum())
        return found

    def value(self) -> float:
        pairs = combinations(range(len(self.perms)), 2)
        return sum(self.worth(b, self.perms[b], self.totals(b, [a])) for a, b in pairs)

    def step(self, number: int) -> bool:
        others = [i for i in range(len(self.perms)) if i != number]
        totals = self.totals(number, others)
        new = self.assigned(number, others, totals)
        before, after = (self.worth(number, perms, totals) for perms in (self.perms[number], new))
        if after - before <= LEAST * max(abs(before), abs(after)):
            return False
        self.perms[number] = new
        return True
