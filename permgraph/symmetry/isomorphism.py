"""Isomorphism of two small coloured graphs, found by individualisation and refinement; and orbits from it.

Only for what colours leave open: units that are alike but not in the order of their coordinates, and cells that
refinement cannot split although no automorphism joins all of their vertices.
"""

from __future__ import annotations

import numpy as np

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, joined, refine, unique_edges

_TRIES = 64  # refinements for one question; where orbits are symmetric groups, one path is enough
_LARGEST = 4096  # edges of a graph that is asked about


class Undecided(Exception):
    """The question takes longer than it is worth."""


def isomorphism(one: Labels, two: Labels, first: Edges, second: Edges) -> Labels | None:
    """The vertex of the second graph for every vertex of the first, with colours `one` and `two`; None: none.

    Raises:
        Undecided: too large, or too many ways to try.
    """
    n = one.size
    if n != two.size or len(first) != len(second):
        return None
    if len(first) > _LARGEST:
        raise Undecided
    edges, wanted = joined([first, Edges(second.a + n, second.b + n, second.kind)]), unique_edges(second)
    tries = 0

    def search(colour: Labels) -> Labels | None:
        nonlocal tries
        if (tries := tries + 1) > _TRIES:
            raise Undecided
        colour = refine(colour, edges)
        left, right = colour[:n], colour[n:]
        if not np.array_equal(np.sort(left), np.sort(right)):
            return None
        size = np.bincount(left)
        if size.max() == 1:
            image = np.argsort(right)[np.argsort(np.argsort(left))]
            moved = unique_edges(Edges(image[first.a], image[first.b], first.kind))
            return image if moved.same(wanted) else None
        v = np.flatnonzero(size[left] == size[size > 1].min())[0]
        for w in np.flatnonzero(right == left[v]):
            held = colour.copy()
            held[[v, n + w]] = int(colour.max()) + 1
            if (image := search(held)) is not None:
                return image
        return None

    return search(np.concatenate([one, two]))


def orbit(v: int, cell: Labels, edges: Edges) -> Labels:
    """The vertices to which automorphisms take v; those where it is undecided count."""
    return np.array([w for w in np.flatnonzero(cell == cell[v]).tolist() if w == v or _joins(v, w, cell, edges)])


def _joins(v: int, w: int, cell: Labels, edges: Edges) -> bool:
    one, two = cell.copy(), cell.copy()
    one[v] = two[w] = int(cell.max()) + 1
    try:
        return isomorphism(one, two, edges, edges) is not None
    except Undecided:
        return True
