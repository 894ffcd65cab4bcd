"""Reductions: what can be taken out of one connected unit without changing which permutations it admits.

- edges that join two cells completely say nothing (`informative`);
- a cell whose vertices are told by their neighbours in other cells follows those (`product_vertices`);
- twins, vertices of one cell with the same neighbours, may be exchanged among themselves (`find_twins`);
- where two cells are joined by disjoint bicliques, each biclique becomes a vertex (`find_bicliques`).

A kind of edge always belongs to one pair of cells here (`informative` sees to it), so a reduction that moves the
end of an edge to another vertex never forgets where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels, components
from permgraph.symmetry.coloured_graph import (
    Edges,
    joined,
    mix,
    rank,
    refine,
    scatter_sum,
    unique_edges,
)


@dataclass(frozen=True)
class Product:
    """Vertices that follow others: vertex[i], of cell[i], is where factors[i, :] say; in any order, if `unordered`."""

    vertex: Labels
    factors: Labels
    cell: Labels
    unordered: bool = False

    def among(self, row: Labels) -> Product:
        """The same, where vertex i is called row[i]."""
        return Product(row[self.vertex], row[self.factors], self.cell, self.unordered)


@dataclass(frozen=True)
class Twins:
    """Vertices with the same neighbours: row i holds k of them that may be exchanged; column 0 stands for all."""

    vertex: Labels

    def among(self, row: Labels) -> Twins:
        """The same, where vertex i is called row[i]."""
        return Twins(row[self.vertex])


def informative(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> tuple[Labels, Edges]:
    """The edges that say something, their kinds distinguished by the cells they join; and the cells that loops split."""
    loops = edges.a == edges.b
    if loops.any():
        marks = scatter_sum(edges.a[loops], mix(edges.kind[loops].astype(np.uint64)), cell.size)
        edges = edges.select(~loops)
        marked = rank(mix(cell.astype(np.uint64)) + marks)
        if marked.max() > cell.max():
            cell = refine(marked, edges)
    if not len(edges):
        return cell, edges
    cells = int(cell.max()) + 1
    key = (edges.kind * cells + cell[edges.a]) * cells + cell[edges.b]
    edges = unique_edges(Edges(edges.a, edges.b, np.unique(key, return_inverse=True)[1].reshape(-1)))
    size, count = np.bincount(cell[alive], minlength=cells), np.bincount(edges.kind)
    a, b = cell[edges.a], cell[edges.b]
    return cell, edges.select(count[edges.kind] < size[a] * (size[b] - (a == b)))


def distinct_ends(edges: Edges) -> tuple[Labels, Labels, Labels]:
    """For every kind: how many edges, and how many different vertices at either end."""
    kinds = int(edges.kind.max()) + 1
    left, right = (np.sort(end * kinds + edges.kind) for end in (edges.a, edges.b))
    left, right = (key[np.diff(key, prepend=-1) > 0] % kinds for key in (left, right))
    return np.bincount(edges.kind), np.bincount(left, minlength=kinds), np.bincount(right, minlength=kinds)


def falls_apart(vertices: Labels, edges: Edges) -> bool:
    index = np.zeros(int(vertices.max()) + 1, dtype=np.int64)
    index[vertices] = np.arange(vertices.size)
    return components(vertices.size, index[edges.a], index[edges.b])[0] > 1


def find_twins(cell: Labels, vertices: Labels, edges: Edges) -> list[Twins]:
    """Sets of twins, one array (sets, k) per cell and size k ≥ 2."""
    out, back = ((2 * edges.kind + side).astype(np.uint64) for side in (0, 1))
    near = scatter_sum(edges.a, mix(mix(edges.b.astype(np.uint64)) + out), cell.size)
    near += scatter_sum(edges.b, mix(mix(edges.a.astype(np.uint64)) + back), cell.size)
    key = rank(mix(near[vertices]) + mix(cell[vertices].astype(np.uint64)) * np.uint64(3))
    size = np.bincount(key)
    twin = vertices[size[key] > 1]
    key = key[size[key] > 1]
    sort = cell[twin] * (cell.size + 1) + size[key]
    found = []
    for kind in np.unique(sort):
        mine = np.flatnonzero(sort == kind)
        rows = twin[mine[np.lexsort([twin[mine], key[mine]])]].reshape(-1, int(size[key[mine[0]]]))
        found.append(Twins(rows[np.argsort(rows[:, 0], kind="stable")]))
    return found


def find_bicliques(cell: Labels, edges: Edges) -> tuple[Labels, Edges] | None:
    """Give the cliques of a kind of edge a vertex each, where its edges are nothing but disjoint (bi)cliques.

    Grouped-query attention whose key heads nothing marks: every key channel is joined to the query heads that
    share it. The new vertices are the key heads, and each key channel is a pair (key head, channel). Channels
    that are added to their mirror images: the new vertices are the pairs.

    Returns the cells, the new ones at the end, and the edges.
    """
    for kind in np.unique(edges.kind):
        chosen = edges.kind == kind
        a, b = edges.a[chosen], edges.b[chosen]
        _, of = components(cell.size, a, b)
        left, right = np.unique(a), np.unique(b)
        inside = bool(cell[a[0]] == cell[b[0]])
        ends = left if inside else np.concatenate([left, right])
        cliques, which = np.unique(of[ends], return_inverse=True)
        n = np.bincount(which[: left.size], minlength=cliques.size)
        m = n - 1 if inside else np.bincount(which[left.size :], minlength=cliques.size)
        if cliques.size < 2 or (not inside and (max(n.min(), m.min()) < 2 or min(n.max(), m.max()) < 2)):
            continue  # one clique says nothing; one vertex on a side stands for it already
        if np.array_equal(np.bincount(np.searchsorted(cliques, of[a]), minlength=cliques.size), n * m):
            fresh = int(edges.kind.max()) + 1 + (np.arange(ends.size) >= left.size)
            joins = joined([edges.select(~chosen), Edges(ends, cell.size + which, fresh)])
            grown = np.concatenate([cell, np.full(cliques.size, int(cell.max()) + 1)])
            return refine(grown, joins), joins
    return None
