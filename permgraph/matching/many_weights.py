"""Many networks by their weights: the sum over all pairs of ⟨P_i · W_i, P_j · W_j⟩.

With all others held, it is largest for one network where that is most like the mean of the others: weight matching of two
(`matching/weights.py`), from where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.matching.ascent import Ascent
from permgraph.matching.weight_scores import Array
from permgraph.matching.weights import ENOUGH, LEAST, RANDOM_STARTS, Problem, Weights, match_weights
from permgraph.planning.gather import gathers
from permgraph.planning.moves import moves_of

STARTS = 4  # at most, for all pairs
Tensors = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class JointWeights:
    """The networks, by tensors of the plan, each in its own order."""

    plan: Plan
    each: Sequence[Tensors]
    seed: int = 0

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """Tensors whose likeness counts: those that the plan moves, running statistics aside."""
        on = Problem.of(self.plan, Weights(self.each[0], self.each[1], self.plan.origin)).on
        return tuple(dict.fromkeys(m for name in on for m in self.plan.spec.members(name)))

    @cached_property
    def most(self) -> float:
        """No sum is larger (Cauchy and Schwarz)."""
        total = 0.0
        for name in self.counted:
            norms = np.array([np.sqrt(_square(one[name])) for one in self.each])
            total += (norms.sum() ** 2 - np.square(norms).sum()) / 2
        return float(total)

    def start(self, perms: Sequence[Permutations] | None = None) -> Ascent:
        """With the networks moved by these permutations, or as they are."""
        return _WeightsAscent(self, [Permutations({})] * len(self.each) if perms is None else perms)

    def starts(self, way: str) -> Iterator[Ascent]:
        """All to the first; for "universe" also all to another, to those from which most is reached at once."""
        yield self.hub(0)
        if way == "universe":
            others = sorted(range(1, len(self.each)), key=lambda number: -self.hub(number).value())
            yield from map(self.hub, others[: STARTS - 1])

    def hub(self, number: int) -> Ascent:
        """All brought to one, each by itself."""
        return self.start([self.pair(number, i) for i in range(len(self.each))])

    def pair(self, hub: int, other: int) -> Permutations:
        """What brings `other` to `hub`, matched by themselves."""
        if hub == other:
            return Permutations({})
        if hub > other:
            return self.pair(other, hub).inverse(self.plan.spec)
        if (hub, other) not in self._known:
            both = Weights(self.each[hub], self.each[other], self.plan.origin)
            random = (
                0 if hub else RANDOM_STARTS
            )  # as `match` does it, and quickly where it is one start of several
            self._known[hub, other] = Permutations(match_weights(self.plan, both, self.seed, random)[0])
        return self._known[hub, other]

    @cached_property
    def _known(self) -> dict[tuple[int, int], Permutations]:
        return {}

    def align(self, way: str, rng: np.random.Generator) -> tuple[list[Permutations], dict[str, Any]]:
        """The best permutations into one order, and what is to be reported of them."""
        best: Ascent | None = None  # as large as all networks: one is held beside that at hand
        firsts: list[float] = []
        for ascent in self.starts(way):
            ascent.climb(rng)
            firsts.append(ascent.history[0])
            if best is None or ascent.history[-1] > best.history[-1]:
                best = ascent
            if best.history[-1] >= (1 - ENOUGH) * self.most:
                break
        assert best is not None
        return best.perms, {
            "objective": best.history[-1],
            "first": firsts[0],
            "in_place": self.start().value(),
            "most": self.most,
            "history": best.history,
            "starts": len(firsts),
        }


class _WeightsAscent(Ascent):
    def __init__(self, joint: JointWeights, perms: Sequence[Permutations]) -> None:
        super().__init__(perms)
        self.joint = joint
        self.moved = [self.after(one, own) for one, own in zip(joint.each, perms, strict=True)]

    def after(self, tensors: Tensors, perms: Permutations) -> dict[str, Array]:
        """The tensors of one network, moved."""
        moves = moves_of(self.joint.plan.spec, gathers(self.joint.plan, perms)) if perms.arrays else {}
        return {n: moves[n].of(tensors.__getitem__) if n in moves else t for n, t in tensors.items()}

    def value(self) -> float:
        total = 0.0
        for name in self.joint.counted:
            each = [one[name] for one in self.moved]
            total += (_square(sum(x.astype(_wide(x)) for x in each)) - sum(map(_square, each))) / 2
        return total

    def step(self, number: int) -> bool:
        joint, rest = self.joint, [one for i, one in enumerate(self.moved) if i != number]
        mean = {name: _mean([one[name] for one in rest]) for name in self.moved[number]}
        both = Weights(mean, self.moved[number], joint.plan.origin)
        arrays, told = match_weights(joint.plan, both, joint.seed, 0, afresh=False)
        if told["objective"] - told["in_place"] <= LEAST * told["most"]:
            return False
        more = Permutations(arrays)
        self.perms[number] = self.perms[number].then(more, joint.plan.spec)
        self.moved[number] = self.after(self.moved[number], more)
        return True


def _mean(arrays: Sequence[Array]) -> Array:
    return np.asarray(sum(arrays[1:], arrays[0]) / len(arrays))


def _square(array: Any) -> float:
    """The sum of squares, in float64."""
    flat = array.ravel().astype(_wide(array))
    return float(np.vdot(flat, flat).real)


def _wide(array: Any) -> type:
    return np.complex128 if array.dtype.kind == "c" else np.float64
