"""Orbits of a small coloured graph, by individualisation and refinement.

Only for what colours leave open: units that are alike but not in the order of their coordinates, cells that
refinement cannot split although no automorphism joins all of their vertices, reflections.
"""

from __future__ import annotations

import numpy as np

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, joined, refine, unique_edges

_TRIES = 64  # refinements for one question; where orbits are symmetric groups, one path is enough
_LARGEST = 4096  # edges of a graph that is asked about
_CELL = 16  # vertices of a cell whose orbits are looked for


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
            order: Labels = np.argsort(right)[np.argsort(np.argsort(left))]
            moved = unique_edges(Edges(order[first.a], order[first.b], first.kind))
            return order if moved.same(wanted) else None
        v = np.flatnonzero(size[left] == size[size > 1].min())[0]
        for w in np.flatnonzero(right == left[v]):
            held = colour.copy()
            held[[v, n + w]] = int(colour.max()) + 1
            if (image := search(held)) is not None:
                return image
        return None

    return search(np.concatenate([one, two]))


def split_cells(cell: Labels, edges: Edges) -> Labels | None:
    """Split a cell that refinement cannot split although it is not one orbit; None where there is none."""
    size = np.bincount(cell)
    for v in _movable(cell):
        members = np.flatnonzero(cell == cell[v]).tolist()
        if len(members) <= _CELL:
            reached = [w for w in members if w == v or _joined(v, w, cell, edges)]
            if len(reached) < size[cell[v]]:
                return refine(_told(cell, np.array(reached)), edges)
    return None


def exchange(v: int, cell: Labels, edges: Edges) -> Labels | None:
    """An automorphism that takes v elsewhere, is its own inverse, and moves nothing that can move when v is held.

    Returns rows of two vertices that change places, shape (2, m); None if none was found.
    """
    held = refine(_told(cell, np.array([v])), edges)
    free = np.flatnonzero(np.bincount(held)[held] > 1)
    fixed = cell.copy()
    fixed[free] = int(cell.max()) + 1 + np.arange(free.size)
    for w in np.flatnonzero(fixed == fixed[v]):
        try:
            image = isomorphism(_told(fixed, np.array([v])), _told(fixed, np.array([w])), edges, edges)
        except Undecided:
            return None
        if w != v and image is not None and np.array_equal(image[image], np.arange(cell.size)):
            one = np.flatnonzero(image > np.arange(cell.size))
            return np.stack([one, image[one]])
    return None


def _movable(cell: Labels) -> list[int]:
    """The first vertex of every cell that has several, the smallest cells first."""
    size = np.bincount(cell)
    first = np.unique(cell, return_index=True)[1]
    return sorted(first[size[cell[first]] > 1].tolist(), key=lambda v: int(size[cell[v]]))


def hold(cell: Labels, edges: Edges) -> tuple[int, Labels]:
    """A vertex of the smallest cell that has several, and the cells when it is distinguished."""
    v = _movable(cell)[0]
    return v, refine(_told(cell, np.array([v])), edges)


def _told(cell: Labels, vertices: Labels) -> Labels:
    cell = cell.copy()
    cell[vertices] = int(cell.max()) + 1
    return cell


def _joined(v: int, w: int, cell: Labels, edges: Edges) -> bool:
    """Whether an automorphism takes v to w; where that is undecided, it may."""
    try:
        return isomorphism(_told(cell, np.array([v])), _told(cell, np.array([w])), edges, edges) is not None
    except Undecided:
        return True
