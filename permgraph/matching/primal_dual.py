"""The assignment of least loss where each row may take only some columns, with the prices that prove it.

The Hungarian method in phases: shortest paths from all free rows at once (Dijkstra) give prices, and a largest matching
of the entries that are then tight (Hopcroft–Karp) takes over several rows. Both are scipy's, in polynomial time.
scipy's own sparse assignment is not used: rows that compete for nearly equal columns bid against each other in steps
as small as their difference, for hours where that is rounding.
"""

from __future__ import annotations

import numpy as np

from permgraph.ir.moments import FloatArray
from permgraph.ir.spec import IntArray

SLOW = 0.6  # of the free rows: where three phases leave more, hundreds will be needed


class Entries:
    """Entries (row, column, loss) of an n × n table, sorted by row, at least one in each row and column."""

    def __init__(self, n: int, rows: IntArray, columns: IntArray, loss: FloatArray) -> None:
        self.n, self.rows, self.columns, self.loss = n, rows, columns, loss
        self.starts = np.searchsorted(rows, np.arange(n + 1))

    def assign(
        self, column: FloatArray, tolerance: float, phases: int
    ) -> tuple[IntArray, FloatArray, FloatArray] | None:
        """perm and prices: row[i] + column[j] <= loss of every entry up to the tolerance, equal on perm.

        column     prices to start from: any will do, good ones are faster
        phases     None is returned when so many were not enough, when the first take few rows over, or when no full
                   matching exists
        """
        row = np.minimum.reduceat(self.loss - column[self.columns], self.starts[:-1])
        column = column + self._least_of_columns(self._rest(row, column))
        free: list[int] = []
        for _ in range(phases):
            rest = self._rest(row, column)
            perm = self._matching(rest <= tolerance)
            free.append(int((perm < 0).sum()))
            if not free[-1]:
                return perm, row, column
            if free[-2:-1] and free[-1] >= free[-2]:  # rounding stands in the way
                return None
            if len(free) == 3 and free[2] > SLOW * free[0]:
                return None
            near = self._distances(np.maximum(rest, 0), perm)
            of_row, of_column = near[: self.n], near[self._node_of_column(perm)]
            if not np.isfinite(of_column[_unmatched(perm)]).any():
                return None
            most = float(near[np.isfinite(near)].max())
            row, column = row - np.minimum(of_row, most), column + np.minimum(of_column, most)
        return None

    def _rest(self, row: FloatArray, column: FloatArray) -> FloatArray:
        """Loss beyond the prices."""
        return np.asarray(self.loss - row[self.rows] - column[self.columns])

    def _least_of_columns(self, rest: FloatArray) -> FloatArray:
        least = np.full(self.n, np.inf)
        np.minimum.at(least, self.columns, rest)
        return least

    def _matching(self, tight: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> IntArray:
        """A largest matching of these entries: column of each row, -1 of a free one."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_bipartite_matching

        ends = np.concatenate([[0], np.cumsum(tight)])[self.starts]
        ones = np.ones(int(ends[-1]), dtype=np.int8)
        table = csr_matrix((ones, self.columns[tight], ends), shape=(self.n, self.n))
        return np.asarray(maximum_bipartite_matching(table, perm_type="column"), dtype=np.int64)

    def _distances(self, rest: FloatArray, perm: IntArray) -> FloatArray:
        """Length of the shortest alternating path from a free row to every node, (2n,): rows, then free columns.

        A matched column is one node with its row: the way back over the matching costs nothing.
        """
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import dijkstra

        ends = np.concatenate([self.starts, np.full(self.n, self.starts[-1])])
        target = self._node_of_column(perm)[self.columns]
        graph = csr_matrix((rest, target, ends), shape=(2 * self.n, 2 * self.n))
        return np.asarray(dijkstra(graph, indices=np.flatnonzero(perm < 0), min_only=True))

    def _node_of_column(self, perm: IntArray) -> IntArray:
        node = np.arange(self.n, 2 * self.n)
        taken = np.flatnonzero(perm >= 0)
        node[perm[taken]] = taken
        return node


def _unmatched(perm: IntArray) -> IntArray:
    free = np.ones(len(perm), dtype=bool)
    free[perm[perm >= 0]] = False
    return np.flatnonzero(free)
