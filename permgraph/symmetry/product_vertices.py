"""Products: a colour whose vertices are all pairs (triples, …) of others has no freedom of its own, and is taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, unique_edges
from permgraph.symmetry.reductions import Product


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
