"""Exchanges: groups whose stripes hold units of others too, improved by two units that take each other's slots.

Channels that a flatten lays out as blocks of 7 × 7, heads of six channels, concatenations at odd offsets. One exchange
after another is tried, in a random order, and kept where the stripes that it touches keep more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from permgraph.compression.pattern import Array, Pattern
from permgraph.ir.spec import IntArray

TRIALS = 20_000  # exchanges that are tried for one group
LEAST = 1e-6  # of the magnitude of the stripes: a smaller gain may be rounding


@dataclass(frozen=True, eq=False)
class Consumer:
    """A tensor that sums over the units of a group.

    weights      (rows, length of the axis summed over, rest), the size of every weight; changed by exchanges
    coordinates  (*copies, size, owned), on the axis summed over
    rows         (*copies, size, owned), where the coordinates hold for some rows only; else None: for all
    """

    weights: Array
    coordinates: IntArray
    rows: IntArray | None = None

    def swap(self, u: tuple[int, ...], v: tuple[int, ...]) -> None:
        """Exchange two units, each given by its copy and number."""
        one, other = self._at(u), self._at(v)
        self.weights[one], self.weights[other] = self.weights[other], self.weights[one].copy()

    def kept(self, pattern: Pattern, u: tuple[int, ...], v: tuple[int, ...]) -> tuple[float, float]:
        """What the pattern keeps of the stripes that hold the two units, and all that there is in them."""
        touched = np.unique(np.concatenate([self.coordinates[u], self.coordinates[v]]) // pattern.of)
        at = touched[:, None] * pattern.of + np.arange(pattern.of)
        rows = slice(None) if self.rows is None else np.union1d(self.rows[u], self.rows[v])
        stripes = self.weights[rows][:, at]
        return float(pattern.magnitude(stripes, 2).sum()), float(stripes.sum(dtype=np.float64))

    def _at(self, unit: tuple[int, ...]) -> tuple[IntArray | slice, ...]:
        if self.rows is None:
            return slice(None), self.coordinates[unit]
        return self.rows[unit][:, None], self.coordinates[unit][None]


def improve(
    consumers: Sequence[Consumer], shape: tuple[int, ...], pattern: Pattern, rng: np.random.Generator
) -> tuple[IntArray, bool]:
    """The order of each copy's units, (*copies, size), and whether anything gained."""
    order = np.broadcast_to(np.arange(shape[-1]), shape).copy()
    gained = False
    for copy, i, j in _pairs(shape, rng):
        u, v = (*copy, i), (*copy, j)
        before = [one.kept(pattern, u, v) for one in consumers]
        for one in consumers:
            one.swap(u, v)
        after = [one.kept(pattern, u, v) for one in consumers]
        gain = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
        if gain > LEAST * sum(total for _, total in before):
            order[u], order[v] = order[v], order[u]
            gained = True
        else:
            for one in reversed(consumers):
                one.swap(u, v)
    return order, gained


def _pairs(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Copy and two of its units: every pair once in a random order, or as many as are tried."""
    copies, size = list(np.ndindex(shape[:-1])), shape[-1]
    every = len(copies) * size * (size - 1) // 2
    if every > TRIALS:
        for _ in range(TRIALS):
            i, j = rng.choice(size, 2, replace=False).tolist()
            yield copies[int(rng.integers(len(copies)))], i, j
        return
    first, second = np.triu_indices(size, 1)
    for number in rng.permutation(every).tolist():
        copy, pair = divmod(number, len(first))
        yield copies[copy], int(first[pair]), int(second[pair])
