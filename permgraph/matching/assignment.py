"""Linear assignment: the one-to-one matching of two sets of units with the largest total score.

Exact (scipy's Jonker–Volgenant), and the same answer every time: among equally good matchings the one that
keeps more units in place, and constant units only after all others.
"""

from __future__ import annotations

import math

import numpy as np

from permgraph.errors import MatchError
from permgraph.ir.moments import BoolArray, FloatArray
from permgraph.ir.spec import IntArray


def assign(
    score: FloatArray,
    dead_a: BoolArray | None = None,
    dead_b: BoolArray | None = None,
    stable: bool = True,
) -> IntArray:
    """`perm`, (n,): B's unit perm[i] goes to A's slot i; maximises Σ score[i, perm[i]].

    score    (n, n), finite; row = unit of A, column = unit of B
    dead_*   (n,), units that never vary: matched only with what the others leave over
    stable   among equally good matchings prefer units that stay; twice the time

    Raises MatchError when the score is not square or not finite.
    """
    score = np.asarray(score, dtype=np.float64)
    _check(score)
    n = len(score)
    live_a = np.arange(n) if dead_a is None else np.flatnonzero(~dead_a)
    live_b = np.arange(n) if dead_b is None else np.flatnonzero(~dead_b)
    padded = max(len(live_a), len(live_b))
    table, same = np.zeros((padded, padded)), np.zeros((padded, padded), dtype=bool)
    table[: len(live_a), : len(live_b)] = score[np.ix_(live_a, live_b)]
    same[: len(live_a), : len(live_b)] = live_a[:, None] == live_b
    best = solve(table)
    if stable:
        best = _keep_in_place(table, same, best)
    perm = np.full(n, -1, dtype=np.int64)
    rows = np.flatnonzero(best[: len(live_a)] < len(live_b))
    perm[live_a[rows]] = live_b[best[rows]]
    return _fill(perm)


def solve(score: FloatArray) -> IntArray:
    """The optimal columns of a finite square table, with ties as scipy leaves them."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(score, maximize=True)[1], dtype=np.int64)


def _keep_in_place(table: FloatArray, same: BoolArray, best: IntArray) -> IntArray:
    """An assignment as good as `best` with as many units in place (`same`) as ties allow.

    A second solution, of the table with a small bonus on units that stay, differs from `best` by disjoint
    cycles. A cycle is taken over only if it loses nothing of the true score, summed without rounding; so the
    bonus can never change the optimum, whatever its size.
    """
    bonus = 2.0**-36 * float(np.abs(table).max(initial=0)) or 1.0
    other = solve(table + bonus * same)
    back = np.argsort(best)  # row that `best` gives each column
    result: IntArray = best.copy()
    seen = other == best
    for start in np.flatnonzero(~seen):
        cycle = []
        row = int(start)
        while not seen[row]:
            seen[row] = True
            cycle.append(row)
            row = int(back[other[row]])
        old, new = table[cycle, best[cycle]], table[cycle, other[cycle]]
        gained = int(same[cycle, other[cycle]].sum()) - int(same[cycle, best[cycle]].sum())
        if cycle and gained > 0 and math.fsum([*new, *-old]) >= 0:
            result[cycle] = other[cycle]
    return result


def _fill(perm: IntArray) -> IntArray:
    """Give the open slots (-1) the unused units: their own where it is free, then in ascending order."""
    free = np.setdiff1d(np.arange(len(perm)), perm)
    stay = np.intersect1d(free, np.flatnonzero(perm < 0))
    perm[stay] = stay
    perm[perm < 0] = np.setdiff1d(free, stay)
    return perm


def _check(score: FloatArray) -> None:
    if score.ndim != 2 or score.shape[0] != score.shape[1]:
        raise MatchError(
            f"a score of shape {score.shape} cannot be assigned one to one: it must be square. "
            "Do both models have the same widths?"
        )
    bad = np.argwhere(~np.isfinite(score))
    if len(bad):
        raise MatchError(
            f"score[{bad[0][0]}, {bad[0][1]}] is {score[tuple(bad[0])]} ({len(bad)} of {score.size} are not "
            "finite): the assignment would be meaningless. Calibrate again; constant channels score 0."
        )
