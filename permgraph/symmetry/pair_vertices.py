"""Pair vertices: a cell whose vertices each have two neighbours in another cell, no two of them the same two.

Such a vertex is an unordered pair (an element of xᵀx on or above the diagonal is one of two channels), so it follows
the two. What it says is that they belong together: an edge, in either direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, joined
from permgraph.symmetry.reductions import Product, distinct_ends


def find_pairs(cell: Labels, alive: NDArray[np.bool_], edges: Edges) -> tuple[Product, Edges] | None:
    """The first cell of pairs on which nothing else hangs, and the edges that replace those of its vertices."""
    size = np.bincount(cell[alive], minlength=int(cell.max()) + 1)
    count, *ends = distinct_ends(edges)
    kinds, first = np.unique(edges.kind, return_index=True)
    for kind, row in zip(kinds.tolist(), first.tolist(), strict=True):
        for side, (mine, other) in enumerate(((edges.a, edges.b), (edges.b, edges.a))):
            z, x = cell[mine[row]], cell[other[row]]
            shared = (
                ends[1 - side][kind] < count[kind]
            )  # blocks of two that have no other in common are no pairs
            if shared and z != x and count[kind] == 2 * size[z] and ends[side][kind] == size[z]:
                found = _pairs(cell, edges, edges.kind == kind, mine, other)
                if found is not None:
                    return found
    return None


def _pairs(
    cell: Labels, edges: Edges, chosen: NDArray[np.bool_], mine: Labels, other: Labels
) -> tuple[Product, Edges] | None:
    order = np.lexsort([other[chosen], mine[chosen]])
    vertex, factors = mine[chosen][order][::2], other[chosen][order].reshape(-1, 2)
    if np.unique(vertex).size < vertex.size or np.unique(factors, axis=0).shape[0] < vertex.size:
        return None
    inside = np.zeros(cell.size, dtype=bool)
    inside[vertex] = True
    around = inside[edges.a] | inside[edges.b]
    for more in np.unique(edges.kind[around & ~chosen]):  # it may say the same once more
        mine, other = (end[edges.kind == more] for end in (edges.a, edges.b))
        mine, other = (mine, other) if inside[mine[0]] else (other, mine)
        order = np.lexsort([other, mine])
        same = np.array_equal(mine[order], vertex.repeat(2))
        if not same or not np.array_equal(other[order], factors.ravel()):
            return None
    kind = np.full(2 * vertex.size, int(edges.kind.max()) + 1)
    f, g = factors.T
    pair = Edges(np.concatenate([f, g]), np.concatenate([g, f]), kind)
    return Product(vertex, factors, cell[vertex], unordered=True), joined([edges.select(~around), pair])
