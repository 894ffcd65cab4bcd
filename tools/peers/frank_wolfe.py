"""Frank and Wolfe's algorithm on soft permutations of several networks, as C2M3 does it: what `permgraph merge --align
universe` is held against.

After Crisostomi et al., C2M3: Cycle-Consistent Multi-Model Merging (https://arxiv.org/abs/2405.17897): the sum over all pairs
of ⟨P_i · W_i, P_j · W_j⟩ is maximised over all groups of all networks at once, each P relaxed to a doubly stochastic matrix;
every step is an assignment of the gradient, its length a search along the line; at the end each P is rounded by an assignment.

It shares with permgraph the places of a plan and nothing else: weights are moved by products of matrices, assignments are
scipy's. For groups that lie within no other, on places of one group each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from permgraph.ir.plan import Plan

Matrix = NDArray[np.float64]
Soft = list[dict[str, Matrix]]  # for every network, group → (slots, units)
STEPS, TOLERANCE = 50, 1e-6


@dataclass(frozen=True)
class Axis:
    """Groups on one axis of a tensor, and where their units lie: (units, numbers of one unit)."""

    groups: tuple[str, ...]
    at: tuple[NDArray[np.int64], ...]

    def matrix(self, soft: Mapping[str, Matrix], length: int) -> Matrix:
        """What moves the whole axis."""
        whole = np.eye(length)
        for name, at in zip(self.groups, self.at, strict=True):
            for column in at.T:
                whole[np.ix_(column, column)] = soft[name]
        return whole


class Relaxed:
    """The networks, tensor by tensor, with the axes on which groups lie."""

    def __init__(self, plan: Plan, states: Sequence[Mapping[str, Matrix]]) -> None:
        self.sizes = {group.name: group.size for group in plan.groups}
        self.axes: dict[str, dict[int, Axis]] = {}
        for place in plan.steps:
            if place.tensor.rpartition(".")[2] in ("running_mean", "running_var"):
                continue
            assert len(place.layout) == 1 and place.rows is None
            known = self.axes.setdefault(place.tensor, {}).setdefault(place.axis, Axis((), ()))
            at = (*known.at, place.positions.array())
            self.axes[place.tensor][place.axis] = Axis((*known.groups, *place.layout), at)
        self.states = [{name: np.asarray(s[name], np.float64) for name in self.axes} for s in states]

    def start(self, rng: np.random.Generator | None = None) -> Soft:
        """All in place; with a generator, at random orders."""
        made: Soft = [{n: np.eye(u) for n, u in self.sizes.items()} for _ in self.states]
        if rng is not None:
            made = [{n: m[rng.permutation(len(m))] for n, m in one.items()} for one in made]
        return made

    def moved(self, soft: Soft, but: int | None = None, name: str | None = None) -> list[dict[str, Matrix]]:
        """All networks as the matrices move them, `but` an axis of every tensor (or of one, `name`)."""
        found = []
        for state, own in zip(self.states, soft, strict=True):
            result = {}
            for tensor in self.axes if name is None else (name,):
                array = state[tensor]
                for number, axis in self.axes[tensor].items():
                    if number != but:
                        array = _along(axis.matrix(own, array.shape[number]), array, number)
                result[tensor] = array
            found.append(result)
        return found

    def value(self, soft: Soft) -> float:
        total = 0.0
        moved = self.moved(soft)
        for name in self.axes:
            each = [one[name] for one in moved]
            total += (float(np.square(sum(each)).sum()) - sum(float(np.square(x).sum()) for x in each)) / 2
        return total

    def gradient(self, soft: Soft) -> Soft:
        """Of the sum, by every matrix."""
        slopes: Soft = [{n: np.zeros((u, u)) for n, u in self.sizes.items()} for _ in self.states]
        whole = self.moved(soft)
        for name, axes in self.axes.items():
            total = sum(one[name] for one in whole)
            for number, axis in axes.items():
                rest = self.moved(soft, number, name)
                for i, slope in enumerate(slopes):
                    others, own = (np.moveaxis(x, number, 0) for x in (total - whole[i][name], rest[i][name]))
                    table = others.reshape(len(others), -1) @ own.reshape(len(own), -1).T
                    for group, at in zip(axis.groups, axis.at, strict=True):
                        slope[group] += sum(table[np.ix_(column, column)] for column in at.T)
        return slopes

    def climb(self, soft: Soft) -> tuple[Soft, float]:
        """Steps until none gains; rounded, and what is reached so."""
        value = self.value(soft)
        for _ in range(STEPS):
            towards = [{n: rounded(g) for n, g in one.items()} for one in self.gradient(soft)]
            lengths = np.linspace(0, 1, 11)[1:]
            tried = [self.value(_between(soft, towards, float(t))) for t in lengths]
            best = int(np.argmax(tried))
            if tried[best] - value <= TOLERANCE * abs(value):
                break
            soft, value = _between(soft, towards, float(lengths[best])), tried[best]
        hard = [{n: rounded(m) for n, m in one.items()} for one in soft]
        return hard, self.value(hard)


def rounded(table: Matrix) -> Matrix:
    """The permutation matrix that has most of it."""
    return np.asarray(np.eye(len(table))[linear_sum_assignment(table, maximize=True)[1]])


def _along(matrix: Matrix, array: Matrix, axis: int) -> Matrix:
    return np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)


def _between(a: Soft, b: Soft, t: float) -> Soft:
    return [{n: (1 - t) * one[n] + t * two[n] for n in one} for one, two in zip(a, b, strict=True)]
