"""Ties: among equally good assignments, the one that keeps more units in place."""

from __future__ import annotations

import math

import numpy as np

from permgraph.ir.moments import FloatArray
from permgraph.ir.spec import IntArray
from permgraph.matching.certified import Solution


def dense(table: FloatArray) -> IntArray:
    """The optimal columns of a finite square table, with ties as scipy leaves them."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(table, maximize=True)[1], dtype=np.int64)


def in_place(table: FloatArray, home: IntArray) -> IntArray:
    """An optimal assignment with as many units in place as ties allow, by dense solutions: one where that is certain.

    home  (n,), the column at which each row stays; -1 where it has none
    """
    once = in_place_at_once(table, home)
    if once is not None:
        return once
    if (table.argmax(axis=1) == home).all():  # every row has its best
        return home
    favoured = dense(_favoured(table, home, 2.0**-36 * float(np.abs(table).max(initial=0)) or 1.0))
    if not (favoured == home)[home >= 0].any():
        return favoured  # nothing of its sum is a bonus, and no other sum is larger with one
    best = dense(table)
    return best if (best == home)[home >= 0].all() else _taken_over(table, home, best, favoured)


def in_place_at_once(table: FloatArray, home: IntArray) -> IntArray | None:
    """The same by one dense solution, where no sum of scores is rounded (whole numbers); None for all others."""
    bonus = _exact_bonus(table)
    return None if bonus is None else dense(_favoured(table, home, bonus))


def settled(table: FloatArray, home: IntArray, solution: Solution, stable: bool) -> IntArray:
    """The certified solution, with ties settled.

    An equally good matching differs by cycles of tight entries. These stay within strongly connected parts of the
    graph row → row that holds the entry's column, nearly all of a single row; the others are solved by themselves.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    from permgraph.symmetry.coloured_graph import runs_of

    perm: IntArray = solution.perm.copy()
    rows, columns = solution.tight.T
    ends = np.argsort(perm)[columns]
    graph = csr_matrix((np.ones(len(rows), np.int8), (rows, ends)), shape=(len(perm), len(perm)))
    part = connected_components(graph, connection="strong")[1]
    sizes = np.bincount(part)
    several = np.flatnonzero(sizes[part] > 1)
    for together in runs_of(part[several]):
        members = several[together]
        taken = perm[members]
        within = {int(column): i for i, column in enumerate(taken)}
        own = np.array([within.get(int(h), -1) for h in home[members]])
        some = table[np.ix_(members, taken)]
        perm[members] = taken[in_place(some, own) if stable else dense(some)]
    return perm


def _favoured(table: FloatArray, home: IntArray, bonus: float) -> FloatArray:
    table = table.copy()
    rows = np.flatnonzero(home >= 0)
    table[rows, home[rows]] += bonus
    return table


def _exact_bonus(table: FloatArray) -> float | None:
    """A bonus so small that all of them together decide among equally good matchings only; where no sum is rounded.

    That is so for integers, counts and rounded scores: multiples of a unit large enough that sums over all rows, in
    steps of the bonus, are exact in float64.
    """
    n, most = len(table), float(np.abs(table).max(initial=0))
    if not most:
        return 1.0
    bits = math.ceil(math.log2(n + 1)) + 1
    unit = 2.0 ** (math.frexp(most)[1] - 50 + 2 * bits)
    for rows in (table[:: max(1, n // 8)], table):  # most tables are told by a few rows
        if not (np.rint(rows / unit) * unit == rows).all():
            return None
    return unit * 2.0**-bits


def _taken_over(table: FloatArray, home: IntArray, best: IntArray, other: IntArray) -> IntArray:
    """An assignment as good as `best` with what `other` keeps in place.

    `other` is the solution of the table with a small bonus on units that stay, and differs from `best` by disjoint
    cycles. A cycle is taken over only if it loses nothing of the true score, summed without rounding; so the
    bonus can never change the optimum, whatever its size.
    """
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
        gained = int((other == home)[cycle].sum()) - int((best == home)[cycle].sum())
        if cycle and gained > 0 and math.fsum([*new, *-old]) >= 0:
            result[cycle] = other[cycle]
    return result
