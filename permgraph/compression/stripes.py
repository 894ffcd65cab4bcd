"""The order of units under which N:M sparsity keeps most magnitude: which units share a stripe.

Take one unit out of every stripe. What a stripe keeps of a row of weights when unit u comes in is the N - 1 largest of the
others, and the larger of u's weight w and the N-th largest, x. Since max(x, w) = (x + w + |x - w|) / 2, and neither Σ x nor
Σ w depends on who goes where, the units go back best when the sum of the L1 distances between x and w is largest: an
assignment. One round so finds the best of (number of stripes)! orders at once, among them every exchange of the units that
were taken out, where the search of Pool and Yu (NeurIPS 2021, https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html)
exchanges two channels, or re-orders two stripes, at a time. No round loses. As theirs, the search leaves an optimum by a
few random exchanges, and keeps the best.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from permgraph.compression.pattern import Array, Pattern
from permgraph.ir.spec import IntArray
from permgraph.matching.assignment import solve

SIDE_BY_SIDE = 512  # stripes in one assignment, at most
LEAST = 1e-6  # of the magnitude: a smaller gain of M rounds ends a search
ENOUGH = 1e-4  # the same once the search has done its work
EXCHANGES = 20  # work of the greedy search, in differences between all weights of all units
RESTARTS = 12  # from the best order, with a part of its units exchanged at random
PART = 0.05  # of the stripes
ROUNDING = 1e-9


def best_order(weights: Array, pattern: Pattern, rng: np.random.Generator, work: float) -> IntArray:
    """`order`, (units,): the unit of each slot; every M slots are a stripe.

    weights  (units, rows), the size of every unit's weights. M divides the number of units.
    work     differences of weights, after which nothing is started anew and a round has to gain more
    """
    in_place = np.arange(len(weights))
    if len(weights) == pattern.of:
        return in_place
    search = _Search(np.asarray(weights, dtype=np.float64), pattern, rng, work)
    best, kept = in_place, search.kept(in_place)
    starts = [search.dealt()]
    if work > EXCHANGES * weights.size * len(weights):
        starts.append(search.greedy(in_place))
    for number in range(len(starts) + RESTARTS):
        order = search.climb(starts[number] if number < len(starts) else search.shaken(best))
        value = search.kept(order)
        if value > kept:
            best, kept = order, value
        if search.work < 0:
            break
    return best


class _Search:
    """work   what is left of it"""

    def __init__(self, weights: Array, pattern: Pattern, rng: np.random.Generator, work: float) -> None:
        self.weights, self.pattern, self.rng, self.work = weights, pattern, rng, work

    def kept(self, order: IntArray) -> float:
        stripes = self.weights[order].reshape(-1, self.pattern.of, self.weights.shape[1])
        return float(self.pattern.magnitude(stripes, 1).sum())

    def dealt(self) -> IntArray:
        """A start: units by size, the largest one to each stripe, then the next to each in turn."""
        by_size = np.argsort(-self.weights.sum(axis=1), kind="stable")
        dealt: IntArray = by_size.reshape(self.pattern.of, -1).T.ravel()
        return dealt

    def climb(self, order: IntArray) -> IntArray:
        """Rounds until M of them gain next to nothing: every unit was taken out about once."""
        kept, total = self.kept(order), float(self.weights.sum())
        while True:
            before = kept
            for _ in range(self.pattern.of):
                order = self.round(order)
            kept = self.kept(order)
            if kept - before <= (LEAST if self.work > 0 else ENOUGH) * total:
                return order

    def round(self, order: IntArray) -> IntArray:
        """One unit of every stripe taken out, at random, and put back where it is worth most."""
        stripes: IntArray = order.reshape(-1, self.pattern.of).copy()
        taken = self.rng.integers(self.pattern.of, size=len(stripes))
        shuffled = self.rng.permutation(len(stripes))
        for part in np.array_split(shuffled, -(-len(stripes) // SIDE_BY_SIDE)):
            out = stripes[part, taken[part]]
            others = stripes[part][np.arange(self.pattern.of) != taken[part, None]].reshape(len(part), -1)
            limit = self.limit(others)
            apart = cdist(limit, self.weights[out], "cityblock")
            self.work -= apart.size * self.weights.shape[1]
            stripes[part, taken[part]] = out[_improved(apart)]
        return np.ravel(stripes)

    def limit(self, others: IntArray) -> Array:
        """x, (stripes, rows): the N-th largest weight of the units that stay, (stripes, M - 1)."""
        nth = self.pattern.of - 1 - self.pattern.kept  # from the smallest
        found: Array = np.partition(self.weights[others], nth, axis=1)[:, nth]
        return found

    def greedy(self, order: IntArray) -> IntArray:
        """The exchange of two units that gains most, one after another, until none gains.

        By the same distances: slots a and b gain half of apart[a, b] - apart[a, a] + apart[b, a] - apart[b, b].
        """
        order, count, slots = order.copy(), self.pattern.of, np.arange(len(order))
        stripe = slots // count
        beside = np.array([[k for k in range(count) if k != i] for i in range(count)])[slots % count]
        beside += stripe[:, None] * count
        apart = cdist(self.limit(order[beside]), self.weights[order], "cityblock")
        while True:
            own = apart.diagonal()
            gain = apart + apart.T - own[:, None] - own
            gain[stripe[:, None] == stripe] = 0
            a, b = np.unravel_index(gain.argmax(), gain.shape)
            if gain[a, b] <= ROUNDING * own.sum():
                return order
            order[[a, b]] = order[[b, a]]
            apart[:, [a, b]] = apart[:, [b, a]]
            near = np.flatnonzero((stripe == stripe[a]) | (stripe == stripe[b]))
            apart[near] = cdist(self.limit(order[beside[near]]), self.weights[order], "cityblock")
            self.work -= near.size * self.weights.size

    def shaken(self, order: IntArray) -> IntArray:
        """A few units, of different stripes, in each other's places."""
        stripes: IntArray = order.reshape(-1, self.pattern.of).copy()
        count = max(2, round(PART * len(stripes)))
        chosen = self.rng.permutation(len(stripes))[:count]
        taken = self.rng.integers(self.pattern.of, size=count)
        stripes[chosen, taken] = stripes[np.roll(chosen, 1), np.roll(taken, 1)]
        return np.ravel(stripes)


def _improved(score: Array) -> IntArray:
    """The best assignment, or none where units stay equally well."""
    found = solve(score)
    stay = np.arange(len(score))
    return found if score[stay, found].sum() > score.trace() else stay
