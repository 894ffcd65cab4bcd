"""Product vertices: a cell whose vertices are told by their neighbours in other cells has no freedom of its own.

Each vertex z of the cell has one neighbour f(z) in one cell and one g(z) in another, and no two vertices have both
in common. So z follows f(z) and g(z), and what z says is that these two belong together: an edge. Where all
combinations occur even that says nothing, and there may be more than two factors. Cells that are joined one to one follow one
of them: a product of one factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from permgraph.axes.points import Labels, components
from permgraph.symmetry.coloured_graph import Edges, joined
from permgraph.symmetry.reductions import Product, distinct_ends

Maps = dict[tuple[int, int], Labels]  # (kind of edge, which end is z's) → the one neighbour of every z


def find_matched(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> tuple[Product | None, Edges]:
    """Cells that are joined one to one, all at once: what hung on them hangs on the one that they follow then.

    Query channels that a rotary embedding tells apart, for example: in each, the heads. A kind of edge belongs to one pair of
    cells, so an edge does not forget from which cell it came; one to one that closes a circle stays an edge.
    """
    size = np.bincount(cell[alive], minlength=int(cell.max()) + 1)
    count, left, right = distinct_ends(edges)
    kinds, first = np.unique(edges.kind, return_index=True)
    x, y = cell[edges.a[first]], cell[edges.b[first]]
    counts = np.stack([count[kinds], left[kinds], right[kinds], size[y]])
    matched = np.flatnonzero((x != y) & (counts == size[x]).all(axis=0))
    pairs = np.sort(np.stack([x[matched], y[matched]]), axis=0)
    pairs, chosen = np.unique(
        pairs, axis=1, return_index=True
    )  # one kind for two cells: a sparse matrix adds up
    tree = minimum_spanning_tree(
        coo_matrix((1 + kinds[matched[chosen]], pairs), shape=(size.size, size.size))
    )
    joins = np.isin(edges.kind, tree.data.astype(np.int64) - 1)
    if not joins.any():
        return None, edges
    _, of = components(cell.size, edges.a[joins], edges.b[joins])  # one vertex of every cell of a tree
    order = np.lexsort([cell, of])
    root = order[np.flatnonzero(np.diff(of[order], prepend=-1))][of]
    moved = np.flatnonzero(alive & (root != np.arange(cell.size)))
    moved = moved[np.argsort(cell[moved], kind="stable")]
    rest = edges.select(~joins)
    return Product(moved, root[moved][:, None], cell[moved]), Edges(root[rest.a], root[rest.b], rest.kind)


def find_products(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> tuple[list[Product], Edges]:
    """Find cells that follow neighbouring cells; what hung on them hangs on their factors then.

    One pass over the candidates. A cell whose edges were changed by an earlier one waits for the next pass.
    """
    found: list[Product] = []
    parts: list[Edges] = []
    gone = np.zeros(len(edges), dtype=bool)
    touched: set[int] = set()
    cells = int(cell.max()) + 1
    vertices, *ends = (_by_cell(c, cells) for c in (cell, cell[edges.a], cell[edges.b]))
    fresh = int(edges.kind.max()) + 1
    for z, functions in _candidates(cell, alive, edges).items():
        if z in touched:
            continue
        rows = np.unique(np.concatenate([order[at[z] : at[z + 1]] for order, at in ends]))
        around = edges.select(rows)
        vertex = vertices[0][vertices[1][z] : vertices[1][z + 1]]
        made = _factored(vertex[alive[vertex]], around, functions, cell)
        if made is not None:
            found.append(made[0])
            parts.append(Edges(made[1].a, made[1].b, made[1].kind + fresh))
            fresh = int(parts[-1].kind.max(initial=fresh)) + 1
            gone[rows] = True
            touched |= set(cell[np.concatenate([around.a, around.b])].tolist())
    return found, joined([edges.select(~gone), *parts])


def _by_cell(cell: Labels, cells: int) -> tuple[Labels, Labels]:
    """What lies in every cell: an order, and where each cell begins in it."""
    order = np.argsort(cell, kind="stable")
    return order, np.searchsorted(cell[order], np.arange(cells + 1))


def _candidates(
    cell: Labels, alive: NDArray[np.bool_], edges: Edges
) -> dict[int, list[tuple[int, int, int]]]:
    """Cells that may follow others → their functions: (kind, z's end, number of vertices at the other end)."""
    size = np.bincount(cell[alive], minlength=int(cell.max()) + 1)
    count, *ends = distinct_ends(edges)
    kinds, first = np.unique(edges.kind, return_index=True)
    inside: set[int] = set()
    functions: dict[int, list[tuple[int, int, int]]] = {}
    for side, (mine, other) in enumerate(((edges.a, edges.b), (edges.b, edges.a))):
        z, x = cell[mine[first]], cell[other[first]]
        inside |= set(z[z == x].tolist())  # vertices of one cell that have to do with each other
        single = (count[kinds] == size[z]) & (ends[side][kinds] == size[z]) & (z != x)
        for kind, own in zip(kinds[single].tolist(), z[single].tolist(), strict=True):
            functions.setdefault(own, []).append((kind, side, int(ends[1 - side][kind])))
    return {
        z: found
        for z, found in sorted(functions.items(), reverse=True)
        if z not in inside and sum(np.log([n for *_, n in found])) > np.log(size[z]) - 1e-6
    }


def _factored(
    vertex: Labels, around: Edges, functions: list[tuple[int, int, int]], cell: Labels
) -> tuple[Product, Edges] | None:
    """One cell as a product, and what replaces the edges around it."""
    position = np.full(cell.size, -1)
    position[vertex] = np.arange(vertex.size)
    maps: Maps = {}
    for kind, side, _ in functions:
        chosen = around.kind == kind
        mine, other = around.a[chosen], around.b[chosen]
        maps[kind, side] = (other if side == 0 else mine)[np.argsort(position[mine if side == 0 else other])]
    different = _counter(maps)
    for names in _choices(maps, different):
        if different(*names) < vertex.size:
            continue
        factors = np.stack([maps[name] for name in names], axis=1)
        full = int(np.prod([np.unique(f).size for f in factors.T])) == vertex.size
        left = _hung(position, factors, around, names) if full or len(names) == 2 else None
        if left is not None:
            if not full:
                pair = Edges(
                    factors[:, 0], factors[:, 1], np.full(vertex.size, int(left.kind.max(initial=-1)) + 1)
                )
                left = joined([left, pair])
            return Product(vertex, factors, cell[vertex]), left
    return None


def _choices(maps: Maps, different: Callable[..., int]) -> Iterator[list[tuple[int, int]]]:
    """Sets of maps that may be the factors: the independent ones, then any two.

    Two of three may do where a third one is determined by both together: the queries (key head, copy, channel) of
    grouped-query attention are pairs (head, channel), and each reads one (key head, channel).
    """
    size = {name: different(name) for name in maps}
    chosen: list[tuple[int, int]] = []
    for name in sorted(
        maps, key=lambda k: (-size[k], -int(maps[k][0]))
    ):  # leave out a coarser block of the same thing
        if all(different(c, name) > size[c] for c in chosen):
            chosen.append(name)
    yield chosen
    yield from sorted(map(list, combinations(maps, 2)), key=lambda two: size[two[0]] * size[two[1]])


def _counter(maps: Maps) -> Callable[..., int]:
    """A function of names of maps: how many different rows their targets make.

    Maps that split the vertices alike are counted once: a cell in a window of positions has one for every position.
    """
    splits: dict[bytes, int] = {}
    of: dict[tuple[int, int], int] = {}
    labels: list[Labels] = []
    for name, targets in maps.items():
        _, first, inverse = np.unique(targets, return_index=True, return_inverse=True)
        split = np.argsort(np.argsort(first))[
            inverse.reshape(-1)
        ]  # blocks in the order of their first vertices
        of[name] = splits.setdefault(split.tobytes(), len(splits))
        if of[name] == len(labels):
            labels.append(split)

    @cache
    def count(*chosen: int) -> int:
        key = labels[chosen[0]]
        for each in chosen[1:]:
            key = (
                np.unique(key, return_inverse=True)[1].reshape(-1) * (int(labels[each].max()) + 1)
                + labels[each]
            )
        return int(np.unique(key).size)

    return lambda *names: count(*(of[name] for name in names))


def _hung(position: Labels, factors: Labels, around: Edges, chosen: list[tuple[int, int]]) -> Edges | None:
    """What hung on product vertices, hung on each of their factors. `around` are the edges of those vertices.

    None when that would say less than the edges did.
    """
    parts: list[Labels] = [np.zeros((3, 0), dtype=np.int64)]
    for kind in np.unique(around.kind).tolist():
        rows = around.kind == kind
        side = 0 if position[around.a[rows][0]] >= 0 else 1
        if (kind, side) in chosen:
            continue
        mine, other = (around.a[rows], around.b[rows])[:: 1 - 2 * side]
        if not _says_all(factors[position[mine]], other):
            return None
        for factor in factors.T:
            ends = np.stack([factor[position[mine]], other])[:: 1 - 2 * side]
            parts.append(np.vstack([ends, np.full(other.size, len(parts))]))
    return Edges(*np.concatenate(parts, axis=1))


def _says_all(factors: Labels, other: Labels) -> bool:
    """Whether the pairs (product, other) are, for every other, all combinations of the factors it is joined to."""
    ends, which = np.unique(other, return_inverse=True)
    expected = np.ones(ends.size, dtype=np.int64)
    for factor in factors.T:
        height = int(factor.max()) + 1
        pairs = np.unique(which.reshape(-1) * height + factor)
        expected *= np.bincount(pairs // height, minlength=ends.size)
    return bool((expected == np.bincount(which.reshape(-1), minlength=ends.size)).all())
