"""Linear assignment: the one-to-one matching of two sets of units with the largest total score.

Exact (Jonker–Volgenant for small tables, a certified solution for large ones), and the same answer every time: among
equally good matchings the one that keeps more units in place, and constant units only after all others.
"""

from __future__ import annotations

import math

import numpy as np

from permgraph.errors import MatchError
from permgraph.ir.moments import BoolArray, FloatArray
from permgraph.ir.spec import IntArray
from permgraph.matching.certified import BLOCK, WarmStart, certified
from permgraph.matching.ties import dense, in_place, in_place_at_once, settled

LARGE = 512  # units from which the certified solution is the faster one
HUGE = 1280  # the same for whole numbers, which one dense solution settles


def assign(
    score: FloatArray,
    dead_a: BoolArray | None = None,
    dead_b: BoolArray | None = None,
    stable: bool = True,
    warm: WarmStart | None = None,
) -> IntArray:
    """`perm`, (n,): B's unit perm[i] goes to A's slot i; maximises Σ score[i, perm[i]].

    score    (n, n), finite; row = unit of A, column = unit of B
    dead_*   (n,), units that never vary: matched only with what the others leave over
    stable   among equally good matchings prefer units that stay; up to twice the time for small tables
    warm     holds the prices of the last large score, and then of this one; the result is the same

    Raises MatchError when the score is not square or not finite.
    """
    score = np.asarray(score, dtype=np.float64)
    _check_square(score)
    scale = _scale(score)
    _check_finite(score, scale)
    n = len(score)
    live_a = np.arange(n) if dead_a is None else np.flatnonzero(~dead_a)
    live_b = np.arange(n) if dead_b is None else np.flatnonzero(~dead_b)
    if len(live_a) == len(live_b) == n:
        return _best(score, scale, np.arange(n), stable, warm)
    padded = max(len(live_a), len(live_b))
    table = np.zeros((padded, padded))
    table[: len(live_a), : len(live_b)] = score[np.ix_(live_a, live_b)]
    at = np.full(n, -1)
    at[live_b] = np.arange(len(live_b))
    home = np.full(padded, -1)
    home[: len(live_a)] = at[live_a]
    best = _best(table, _scale(table), home, stable, warm)
    perm = np.full(n, -1, dtype=np.int64)
    rows = np.flatnonzero(best[: len(live_a)] < len(live_b))
    perm[live_a[rows]] = live_b[best[rows]]
    return _fill(perm)


def solve(score: FloatArray) -> IntArray:
    """An optimal assignment of a finite square table, whichever: where its value alone is asked for."""
    return _best(score, _scale(score), np.full(len(score), -1), False)


def _best(
    table: FloatArray, scale: float, home: IntArray, stable: bool, warm: WarmStart | None = None
) -> IntArray:
    """The optimum. home: (n,), the column at which each row stays, or -1."""
    if stable and LARGE <= len(table) < HUGE and (whole := in_place_at_once(table, home)) is not None:
        return whole
    if len(table) >= LARGE:
        solution = certified(table, scale) if warm is None else warm.certified(table, scale)
        if solution is not None:
            return settled(table, home, solution, stable)
    return in_place(table, home) if stable else dense(table)


def _fill(perm: IntArray) -> IntArray:
    """Give the open slots (-1) the unused units: their own where it is free, then in ascending order."""
    free = np.setdiff1d(np.arange(len(perm)), perm)
    stay = np.intersect1d(free, np.flatnonzero(perm < 0))
    perm[stay] = stay
    perm[perm < 0] = np.setdiff1d(free, stay)
    return perm


def _scale(score: FloatArray) -> float:
    """The largest absolute value; NaN where there is one."""
    height = max(1, BLOCK // max(1, len(score)))
    blocks = [score[at : at + height] for at in range(0, len(score), height)]
    return float(np.max([[block.max(), -block.min()] for block in blocks], initial=0.0))


def _check_square(score: FloatArray) -> None:
    if score.ndim != 2 or score.shape[0] != score.shape[1]:
        raise MatchError(
            f"a score of shape {score.shape} cannot be assigned one to one: it must be square. "
            "Do both models have the same widths?"
        )


def _check_finite(score: FloatArray, scale: float) -> None:
    if math.isfinite(scale):
        return
    bad = np.argwhere(~np.isfinite(score))
    raise MatchError(
        f"score[{bad[0][0]}, {bad[0][1]}] is {score[tuple(bad[0])]} ({len(bad)} of {score.size} are not "
        "finite): the assignment would be meaningless. Calibrate again; constant channels score 0."
    )
