"""Simplify: what can be taken out of one connected unit without changing which permutations it admits.

- edges that join two colours completely say nothing (`informative`);
- colours joined one to one are one colour (`matched_cells`);
- a colour whose vertices are the full product of others follows them (`products.find_products`);
- twins, vertices of one colour with the same neighbours, may be exchanged among themselves (`find_twins`);
- where two colours are joined completely within sets, and not across them, the sets become vertices (`find_sets`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, components, mix, rank, refine, scatter_sum, unique_edges


@dataclass(frozen=True)
class Product:
    """Vertices determined by others: vertex[i] is the pair (triple, …) factors[i, :].

    cell   tells apart vertices of several cells, where one product holds them
    """

    vertex: Labels
    factors: Labels
    cell: Labels | None = None


@dataclass(frozen=True)
class Twins:
    """Vertices with the same neighbours: row i holds k of them that may be exchanged; column 0 stands for all."""

    vertex: Labels


def hold_one(cell: Labels, vertices: Labels, edges: Edges) -> tuple[Labels, int]:
    """Hold one vertex of the smallest cell in place: what still moves then is a subgroup, so it is true.

    Returns the refined cells, and how many vertices are held now that were not before.
    """
    size = np.bincount(cell[vertices])
    movable = vertices[size[cell[vertices]] > 1]
    cell = cell.copy()
    cell[movable[np.argmin(size[cell[movable]])]] = int(cell.max()) + 1
    cell = refine(cell, edges)
    return cell, int((np.bincount(cell[vertices])[cell[movable]] == 1).sum())


def matched_cells(cell: Labels, edges: Edges) -> tuple[Product | None, Edges]:
    """Cells joined one to one are one cell: all but the first follow it. A short cut for products of one factor."""
    if not len(edges):
        return None, edges
    cells = int(cell.max()) + 1
    size = np.bincount(cell, minlength=cells)
    key = (edges.kind * cells + cell[edges.a]) * cells + cell[edges.b]
    _, which, count = np.unique(key, return_inverse=True, return_counts=True)
    even = (count[which] == size[cell[edges.a]]) & (size[cell[edges.a]] == size[cell[edges.b]])
    even &= size[cell[edges.a]] > 1
    for end in (edges.a, edges.b):  # every vertex once, on both sides
        pair, times = np.unique(which * cell.size + end, return_counts=True)
        even &= ~np.isin(which, pair[times > 1] // cell.size)
    if not even.any():
        return None, edges
    count_of, of = components(cell.size, edges.a[even], edges.b[even])
    if np.unique(of * cells + cell).size < cell.size:
        return None, edges  # going round leads to another vertex of the same cell: not a matching
    first = np.full(count_of, cell.size)
    order = np.argsort(cell, kind="stable")
    np.minimum.at(first, of[order], np.arange(cell.size))
    stands = order[first[of]]
    moved = np.flatnonzero(stands != np.arange(cell.size))
    if not moved.size:
        return None, edges
    a, b = stands[edges.a], stands[edges.b]
    kept = a != b
    product = Product(moved, stands[moved][:, None], cell[moved])
    return product, unique_edges(Edges(a[kept], b[kept], edges.kind[kept]))


def falls_apart(vertices: Labels, edges: Edges) -> bool:
    index = np.zeros(int(vertices.max()) + 1, dtype=np.int64)
    index[vertices] = np.arange(vertices.size)
    return components(vertices.size, index[edges.a], index[edges.b])[0] > 1


def find_twins(cell: Labels, vertices: Labels, edges: Edges) -> list[Labels]:
    """Sets of twins, one array (sets, k) per colour and size k ≥ 2."""
    near = scatter_sum(
        edges.a, mix(mix(edges.b.astype(np.uint64)) + (2 * edges.kind).astype(np.uint64)), cell.size
    )
    near = near + scatter_sum(
        edges.b, mix(mix(edges.a.astype(np.uint64)) + (2 * edges.kind + 1).astype(np.uint64)), cell.size
    )
    key = rank(mix(near[vertices]) + mix(cell[vertices].astype(np.uint64)) * np.uint64(3))
    size = np.bincount(key)
    found = []
    for c in np.unique(cell[vertices]):
        inside = cell[vertices] == c
        for k in np.unique(size[key[inside]]):
            chosen = inside & (size[key] == k)
            if k > 1:
                order = np.lexsort([vertices[chosen], key[chosen]])
                rows = vertices[chosen][order].reshape(-1, int(k))
                found.append(rows[np.argsort(rows[:, 0], kind="stable")])
    return found


def find_sets(cell: Labels, edges: Edges) -> tuple[Labels, Edges] | None:
    """Give the sets a vertex of their own where two cells are joined completely within sets, never across them.

    Grouped-query attention whose key heads nothing marks: every key channel is joined to the query heads that
    share it. The new vertices are the key heads, and each key channel is a pair (key head, channel).

    Returns the cells, the new ones at the end, and the edges.
    """
    cells = int(cell.max()) + 1
    key = (edges.kind * cells + cell[edges.a]) * cells + cell[edges.b]
    for k in np.unique(key):
        chosen = key == k
        a, b = edges.a[chosen], edges.b[chosen]
        if cell[a[0]] == cell[b[0]]:
            continue
        _, of = components(cell.size, a, b)
        ends = np.concatenate([np.unique(a), np.unique(b)])
        sets, which = np.unique(of[ends], return_inverse=True)
        left = np.bincount(which[: np.unique(a).size], minlength=sets.size)
        right = np.bincount(which[np.unique(a).size :], minlength=sets.size)
        joined = np.bincount(np.searchsorted(sets, of[a]), minlength=sets.size)
        if sets.size < 2 or max(left.min(), right.min()) < 2 or min(left.max(), right.max()) < 2:
            continue  # one set says nothing; one vertex on a side is a set already
        if not np.array_equal(joined, left * right):
            continue
        stands = cell.size + which
        fresh = int(edges.kind.max()) + 1
        side = np.where(np.arange(ends.size) < np.unique(a).size, fresh, fresh + 1)
        kept = edges.select(~chosen)
        made = Edges(*(np.concatenate(x) for x in ((kept.a, ends), (kept.b, stands), (kept.kind, side))))
        grown = np.concatenate([cell, np.full(sets.size, cells)])
        return refine(grown, made), made
    return None


def informative(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> Edges:
    """Drop the edges between two cells that are joined completely."""
    if not len(edges):
        return edges
    edges = unique_edges(edges)
    cells = int(cell.max()) + 1
    size = np.bincount(cell[alive], minlength=cells)
    key = (edges.kind * cells + cell[edges.a]) * cells + cell[edges.b]
    _, which, count = np.unique(key, return_inverse=True, return_counts=True)
    complete = count[which] == size[cell[edges.a]] * size[cell[edges.b]]
    return edges.select(~complete)
