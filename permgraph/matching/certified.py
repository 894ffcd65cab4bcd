"""Certified assignment: the optimum of a large linear assignment, several times faster than a dense solver, and proved.

1. Entropic duals: a few scalings of exp(score / ε) (Sinkhorn, Cuturi 2013, https://arxiv.org/abs/1306.0895), in
   float32, say which entries may matter: about two dozen of each row.
2. The assignment on these entries is solved with its duals (`primal_dual`), in float64.
3. The certificate: no entry of the whole score exceeds row[i] + column[j]. Entries that do are added, and 2 repeated.

Where a similar score was solved before (`WarmStart`), its duals and the entries near them stand for the first step.

By duality a matching whose entries all meet row[i] + column[j] is then optimal, however the entries were chosen: the
first step decides about speed alone. What does not succeed soon (ties everywhere) is given back for a dense solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.ir.moments import FloatArray
from permgraph.ir.spec import IntArray
from permgraph.matching.primal_dual import Entries

WIDTH = 24  # entries kept of each row
NEAR = 8  # the same where a similar score was solved before
FEW = 0.02  # entries of a row that such a start may lack: with more, the score is not similar
SCALINGS = 6
SHARPNESS = 0.15  # ε as a share of the usual distance between a row's best entry and its 16th
MOST = 96  # entries of a row on average, before the dense solver is cheaper
ROUNDS = 8  # of adding entries, before the dense solver is cheaper
BLOCK = 2**18  # entries of the score that are certified at a time: they stay in the cache
TIGHT = 1e-14  # of the largest score: an entry so near its price may be matched
TOLERANCE = 1e-13  # of the largest score: what rounding may add to a sum of two duals
FLOOR = -60.0  # exponents below are kept there: denormal numbers are slow

Single = NDArray[np.float32]
_NONE: IntArray = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Duals:
    """Prices of rows and columns, (n,) each: score[i, j] <= row[i] + column[j] for all i and j, up to rounding."""

    row: FloatArray
    column: FloatArray


@dataclass(frozen=True, eq=False)
class Solution:
    """perm maximises Σ score[i, perm[i]]; the duals prove it, and meet score[i, perm[i]] with equality.

    tight  (m, 2): row and column of every entry so near its price that it may be part of an equally good matching
    kept   flat indices, ascending, of the entries that were tried: at least one in each row and column, or none
    """

    perm: IntArray
    duals: Duals
    tight: IntArray
    kept: IntArray


def certified(score: FloatArray, scale: float) -> Solution | None:
    """The optimum of a finite square score, or None where a dense solver is the better choice.

    scale  the largest absolute value of the score
    """
    if not 1e-30 < scale < 1e30:  # float32 holds no more
        return None
    best = score.argmax(axis=1)
    top = score[np.arange(len(score)), best]
    if np.bincount(best).max() == 1:  # no two rows want the same column
        return _certificate(score, best, Duals(top, np.zeros(len(score))), scale, _NONE)[0]
    if _alike(score[_some(len(score), 64)]):
        return None
    return _solve(score, *_entropic(score, top), scale)


class WarmStart:
    """Solves one large score after another, each from the prices of the last: several times faster where they are similar."""

    def __init__(self) -> None:
        self._last: tuple[Duals, IntArray] | None = None

    def certified(self, score: FloatArray, scale: float) -> Solution | None:
        """As `certified`, and the same optimum."""
        n = len(score)
        solution = None
        if self._last is not None and len(self._last[0].row) == n and 1e-30 < scale < 1e30:
            solution = _solve(score, *self._last, scale, FEW)
        kept = solution.kept if solution is not None else _NONE
        solution = solution or certified(score, scale)
        if solution is not None:
            near = 0 < len(kept) <= 2 * NEAR * n
            self._last = solution.duals, kept if near else _nearest(score, solution.duals)
        return solution


def _some(n: int, count: int) -> IntArray:
    """Rows spread over all."""
    return np.linspace(0, n - 1, min(count, n)).astype(np.int64)


def _alike(rows: FloatArray) -> bool:
    """Whether many rows hold their best value often: then a dense solver is fast, and this one is not."""
    often = (rows == rows.max(axis=1)[:, None]).sum(axis=1) > 16
    return bool(often.mean() > 1 / 16)


def _entropic(score: FloatArray, top: FloatArray) -> tuple[Duals, IntArray]:
    """Approximate duals, and flat indices of the entries of largest weight in the entropic optimum."""
    plan: Single = score.astype(np.float32)
    epsilon = _epsilon(plan)
    plan -= top.astype(np.float32)[:, None]
    plan *= np.float32(1 / epsilon)
    np.maximum(plan, np.float32(FLOOR), out=plan)
    np.exp(plan, out=plan)
    column = np.ones(len(score), np.float32)
    for _ in range(SCALINGS):
        row = 1 / np.maximum(plan @ column, np.float32(1e-30))
        column = 1 / np.maximum(row @ plan, np.float32(1e-30))
    plan *= column
    keep = _entries(plan, row)
    return Duals(
        top - epsilon * np.log(row, dtype=np.float64), -epsilon * np.log(column, dtype=np.float64)
    ), keep


def _epsilon(plan: Single) -> float:
    n = len(plan)
    rows = plan[_some(n, 256)]
    far = min(16, n - 1)
    ordered = np.partition(rows, n - 1 - far, axis=1)[:, n - 1 - far :]
    return max(SHARPNESS * float((ordered.max(axis=1) - ordered.min(axis=1)).mean()), 1e-30)


def _nearest(score: FloatArray, prices: Duals) -> IntArray:
    """Flat indices of the entries nearest to their prices."""
    n = len(score)
    sample = _some(n, 96)
    least = _least(score[sample] - prices.column - prices.row[sample, None], NEAR)
    parts = [at * n + np.flatnonzero(gap > least) for at, gap in _gaps(score, prices)]
    return _covering(
        np.concatenate(parts),
        n,
        lambda rows: (score[rows] - prices.column).argmax(axis=1),
        lambda columns: (score[:, columns] - prices.row[:, None]).argmax(axis=0),
    )


def _entries(weight: Single, row: Single) -> IntArray:
    """Flat indices of the largest entries of weight · row."""
    sample = _some(len(weight), 96)
    least = np.float32(_least(weight[sample] * row[sample, None], WIDTH))
    return _covering(
        np.flatnonzero(weight > (least / row)[:, None]),
        len(weight),
        lambda rows: weight[rows].argmax(axis=1),
        lambda columns: (weight[:, columns] * row[:, None]).argmax(axis=0),
    )


def _least(sample: NDArray[Any], count: int) -> float:
    """What about so many entries of each sampled row exceed."""
    at = sample.size - min(count, sample.shape[1]) * len(sample)
    return float(np.partition(sample.ravel(), at)[at])


def _covering(
    keep: IntArray,
    n: int,
    best_of_rows: Callable[[IntArray], IntArray],
    best_of_columns: Callable[[IntArray], IntArray],
) -> IntArray:
    """With the best entry of every row and column of which none was kept."""
    rows, columns = np.divmod(keep, n)
    bare_rows = np.flatnonzero(np.bincount(rows, minlength=n) == 0)
    bare_columns = np.flatnonzero(np.bincount(columns, minlength=n) == 0)
    if not len(bare_rows) and not len(bare_columns):
        return keep
    more = [bare_rows * n + best_of_rows(bare_rows), best_of_columns(bare_columns) * n + bare_columns]
    return np.unique(np.concatenate([keep, *more]))


def _gaps(score: FloatArray, prices: Duals) -> Iterator[tuple[int, FloatArray]]:
    """First row of a block, and how far its entries exceed their prices; the array is used again for the next block."""
    n = len(score)
    height = max(1, BLOCK // n)
    buffer = np.empty((height, n))
    for start in range(0, n, height):
        gap = np.subtract(score[start : start + height], prices.column, out=buffer[: n - start])
        gap -= prices.row[start : start + height, None]
        yield start, gap


def _solve(
    score: FloatArray, near: Duals, keep: IntArray, scale: float, few: float = np.inf
) -> Solution | None:
    """Steps 2 and 3, until the certificate holds; None when that takes too long, or lacks more than a `few` of a row."""
    n = len(score)
    column = near.column
    for _ in range(ROUNDS):
        if len(keep) > MOST * n:
            return None
        rows, columns = np.divmod(keep, n)
        loss = near.row[rows] + near.column[columns] - score.ravel()[keep]
        found = Entries(n, rows, columns, loss).assign(column - near.column, TIGHT * scale, 10 + n // 50)
        if found is None:
            return None
        perm, of_row, of_column = found
        prices = Duals(near.row - of_row, near.column - of_column)
        solution, beyond = _certificate(score, perm, prices, scale, keep)
        if not len(beyond):
            return solution
        if len(beyond) > few * n:
            return None
        keep, column = np.union1d(keep, beyond), near.column + of_column
    return None


def _certificate(
    score: FloatArray, perm: IntArray, prices: Duals, scale: float, kept: IntArray
) -> tuple[Solution, IntArray]:
    """The solution with its tight entries, and flat indices of entries that exceed their price: none when it is optimal.

    An equally good matching loses no more at any entry than all others together may gain by rounding: n times the
    tolerance. So the tight entries hold every equally good one.
    """
    n = len(score)
    tolerance = TOLERANCE * scale
    tight: list[Any] = []
    beyond: list[Any] = []
    for start, gap in _gaps(score, prices):
        flat = np.flatnonzero(gap >= -n * tolerance)
        over = flat[gap.ravel()[flat] > tolerance]
        tight.append(start * n + flat)
        beyond.append(start * n + _worst(gap, over))
    pairs = np.stack(np.divmod(np.concatenate(tight), n), axis=1)
    return Solution(perm, prices, pairs, kept), np.concatenate(beyond)


def _worst(gap: FloatArray, over: IntArray) -> IntArray:
    """At most 16 of a row."""
    rows, columns = np.divmod(over, gap.shape[1])
    order = np.lexsort((-gap[rows, columns], rows))
    rows = rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return over[order[rank < 16]]
