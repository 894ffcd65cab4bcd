"""Simplify: what can be taken out of one connected unit without changing which permutations it admits.

- edges that join two colours completely say nothing (`informative`);
- colours joined one to one are one colour (`matched_cells`);
- a colour whose vertices are the full product of others follows them (`find_products`);
- twins, vertices of one colour with the same neighbours, may be exchanged among themselves (`find_twins`);
- where two colours are joined completely within sets, and not across them, the sets become vertices (`find_sets`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.classes import Edges, components, mix, rank, refine, scatter_sum, unique_edges


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


def find_products(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> tuple[list[Product], Edges]:
    """Find cells that are the full product of neighbouring cells; what hung on them hangs on their factors then.

    One pass over the candidates. A cell whose edges were changed by an earlier one waits for the next pass.
    """
    if not len(edges):
        return [], edges
    index = _ByCell(cell, edges)
    touched = np.zeros(index.cells, dtype=bool)
    gone = np.zeros(len(edges), dtype=bool)
    found: list[Product] = []
    parts: list[Edges] = []
    kinds = int(edges.kind.max()) + 1
    for z in _candidates(cell, alive, edges):
        if touched[z]:
            continue
        vertex, rows = index.vertices(z, alive), index.rows(z)
        around = edges.select(rows)
        made = _factored(vertex, cell, around, kinds)
        if made is None:
            continue
        product, left = made
        found.append(product)
        parts.append(left)
        kinds += 2 * len(around) * product.factors.shape[1]
        gone[rows] = True
        touched[np.unique(cell[np.concatenate([around.a, around.b])])] = True
    if not found:
        return [], edges
    parts.append(edges.select(~gone))
    whole = Edges(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("a", "b", "kind")))
    return found, unique_edges(replace(whole, kind=np.unique(whole.kind, return_inverse=True)[1]))


class _ByCell:
    """The vertices of every cell, and the edges at either end."""

    def __init__(self, cell: Labels, edges: Edges) -> None:
        self.cells = int(cell.max()) + 1
        self._vertex, self._starts = self._sorted(cell)
        self._ends = [self._sorted(cell[end]) for end in (edges.a, edges.b)]

    def _sorted(self, of: Labels) -> tuple[Labels, Labels]:
        order = np.argsort(of, kind="stable")
        return order, np.searchsorted(of[order], np.arange(self.cells + 1))

    def vertices(self, z: int, alive: NDArray[np.bool_]) -> Labels:
        mine = self._vertex[self._starts[z] : self._starts[z + 1]]
        return mine[alive[mine]]

    def rows(self, z: int) -> Labels:
        return np.unique(np.concatenate([order[at[z] : at[z + 1]] for order, at in self._ends]))


def _candidates(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> list[int]:
    """Cells with edges enough to be a product: each vertex has one neighbour in cells that multiply to its size."""
    cells = int(cell.max()) + 1
    size = np.bincount(cell[alive], minlength=cells)
    room = np.zeros(cells)
    for mine, other in ((edges.a, edges.b), (edges.b, edges.a)):
        key = (edges.kind * cells + cell[mine]) * cells + cell[other]
        _, first, which, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        ends = np.unique(which * cell.size + mine)
        distinct = np.bincount(ends // cell.size, minlength=first.size)
        z, x = cell[mine[first]], cell[other[first]]
        one = (count == size[z]) & (distinct == size[z]) & (x != z)
        np.add.at(room, z[one], np.log(np.maximum(size[x[one]], 1)))
    inside = np.zeros(cells, dtype=bool)
    inside[cell[edges.a[cell[edges.a] == cell[edges.b]]]] = True  # vertices that have to do with each other
    found: list[int] = np.flatnonzero(
        (size > 1) & ~inside & (room > np.log(np.maximum(size, 1)) - 1e-6)
    ).tolist()
    return found


def _factored(vertex: Labels, cell: Labels, around: Edges, fresh: int) -> tuple[Product, Edges] | None:
    """One cell as a product, and what replaces the edges around it."""
    maps = _functions(vertex, cell, around)
    for chosen in _choices(maps):
        factors = np.stack([maps[key] for key in chosen], axis=1)
        sizes = [np.unique(f).size for f in factors.T]
        distinct = np.unique(factors, axis=0).shape[0]
        if distinct == vertex.size == int(np.prod(sizes)):
            left = _hung(vertex, factors, around, chosen, cell, fresh)
            if left is not None:
                return Product(vertex, factors), left
    return None


def _choices(maps: dict[tuple[int, int, int], Labels]) -> Iterator[list[tuple[int, int, int]]]:
    """Sets of maps that may be the factors: the independent ones, or any two whose sizes fit.

    Two of three fit where a third one is determined by both together: the queries (key head, copy, channel) of
    grouped-query attention are pairs (head, channel), and each reads one (key head, channel).
    """
    if independent := _independent(maps):
        yield independent
    size = {key: np.unique(target).size for key, target in maps.items()}
    for one, two in combinations(maps, 2):
        if size[one] * size[two] == maps[one].size and 1 < size[one] < maps[one].size:
            yield [one, two]


def _functions(vertex: Labels, cell: Labels, edges: Edges) -> dict[tuple[int, int, int], Labels]:
    """(kind, direction, cell of the other end) → the one neighbour every vertex has there."""
    position = np.full(cell.size, -1)
    position[vertex] = np.arange(vertex.size)
    maps = {}
    for direction, (mine, other) in enumerate(((edges.a, edges.b), (edges.b, edges.a))):
        inside = position[mine] >= 0
        mine, other, kind = mine[inside], other[inside], edges.kind[inside]
        key = np.stack([kind, cell[other]])
        for k, x in np.unique(key, axis=1).T if mine.size else ():
            chosen = (kind == k) & (cell[other] == x)
            if x != cell[vertex[0]] and np.array_equal(np.sort(mine[chosen]), vertex):
                target = np.zeros(vertex.size, dtype=np.int64)
                target[position[mine[chosen]]] = other[chosen]
                maps[(int(k), direction, int(x))] = target
    return maps


def _independent(maps: dict[tuple[int, int, int], Labels]) -> list[tuple[int, int, int]]:
    """Leave out maps that another one determines (a coarser block of the same thing)."""
    chosen: list[tuple[int, int, int]] = []
    for key in sorted(maps, key=lambda k: -np.unique(maps[k]).size):
        finer = (
            np.unique(np.stack([maps[c], maps[key]]), axis=1).shape[1] == np.unique(maps[c]).size
            for c in chosen
        )
        if not any(finer):
            chosen.append(key)
    return chosen


def _hung(
    vertex: Labels,
    factors: Labels,
    around: Edges,
    chosen: list[tuple[int, int, int]],
    cell: Labels,
    fresh: int,
) -> Edges | None:
    """What hung on product vertices, hung on each of their factors. `around` are the edges of those vertices.

    None when that would say less than the edges did.
    """
    position = np.full(cell.size, -1)
    position[vertex] = np.arange(vertex.size)
    parts = []
    for direction, (mine, other) in enumerate(((around.a, around.b), (around.b, around.a))):
        hanging = position[mine] >= 0
        for k, x in np.unique(np.stack([around.kind[hanging], cell[other[hanging]]]), axis=1).T:
            if (int(k), direction, int(x)) in chosen:
                continue
            rows = hanging & (around.kind == k) & (cell[other] == x)
            if not _says_all(factors[position[mine[rows]]], other[rows]):
                return None
            for factor in factors.T:
                ends = factor[position[mine[rows]]]
                keep = ends != other[rows]
                parts.append(Edges(ends[keep], other[rows][keep], np.full(int(keep.sum()), fresh)))
                fresh += 1
    none = np.zeros(0, dtype=np.int64)
    return Edges(*(np.concatenate([none, *(getattr(p, f) for p in parts)]) for f in ("a", "b", "kind")))


def _says_all(factors: Labels, other: Labels) -> bool:
    """Whether the pairs (product, other) are, for every other, all combinations of the factors it is joined to."""
    ends, which = np.unique(other, return_inverse=True)
    expected = np.ones(ends.size, dtype=np.int64)
    for factor in factors.T:
        pairs = np.unique(which.astype(np.int64) * (int(factor.max()) + 1) + factor)
        expected *= np.bincount(pairs // (int(factor.max()) + 1), minlength=ends.size)
    return bool((expected == np.bincount(which, minlength=ends.size)).all())
