"""Classes: tied points become one vertex; links become typed edges; colours say which vertices look alike.

The result is a coloured graph whose automorphisms are the permutation symmetries of the network: a vertex per
class of tied points, coloured by the tensor axes it touches, an edge per link, pinned vertices all distinct.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from permgraph.axes.points import Labels, Points

Hash = NDArray[np.uint64]


@dataclass(frozen=True)
class Edges:
    """Typed edges a—b; `kind` is the link call they come from."""

    a: Labels
    b: Labels
    kind: Labels

    def select(self, mask: NDArray[np.bool_] | Labels) -> Edges:
        return Edges(self.a[mask], self.b[mask], self.kind[mask])

    def same(self, other: Edges) -> bool:
        return all(np.array_equal(getattr(self, f), getattr(other, f)) for f in ("a", "b", "kind"))

    def __len__(self) -> int:
        return int(self.a.size)


@dataclass(frozen=True)
class Classes:
    """The coloured graph.

    of       class of every point
    count    number of classes
    pinned   whether a class holds a pinned point
    colour   equal for classes that look alike after refinement
    edges    links between classes
    """

    of: Labels
    count: int
    pinned: NDArray[np.bool_]
    colour: Labels
    edges: Edges


def classify(points: Points) -> Classes:
    """Merge tied points, then refine colours until nothing more is told apart."""
    a, b = points.ties()
    x, y, kind = points.links()
    count, of = components(points.count, a, b)
    part = _parts(points, of)
    crossed = _crossed(points, of, part)
    if crossed.any():
        ties = np.concatenate([np.full(t.size, i) for i, (t, _, _) in enumerate(points.tied)])
        loose = crossed[of[a]]
        x, y = np.concatenate([x, a[loose]]), np.concatenate([y, b[loose]])
        kind = np.concatenate([kind, len(points.linked) + ties[loose]])
        count, of = components(points.count, a[~loose], b[~loose])
    pinned = np.zeros(count, dtype=bool)
    pinned[of[points.pins()[0]]] = True
    # a link to one coordinate of a class is not a link to another one: of another axis, or of another part
    key = kind.astype(np.uint64)
    for member in (_runs(points)[x], part[x], _runs(points)[y], part[y]):
        key = mix(key) + member.astype(np.uint64)
    kind = rank(key)
    edges = unique_edges(Edges(of[x], of[y], kind))
    colour = refine(_initial(points, of, count, pinned), edges)
    return Classes(of, count, pinned, colour, edges.select(edges.a != edges.b))


def _parts(points: Points, of: Labels) -> Labels:
    """For points that share a class with another coordinate of their own axis: which part of the axis they lie in.

    The halves of a gate, or q and k in one matrix, are tied to each other and told apart by what pins they are
    linked to. Pinned points are parts of their own. 0 for all other points.
    """
    part = np.zeros(points.count, dtype=np.int64)
    held = np.zeros(points.count, dtype=bool)
    held[points.pins()[0]] = True
    pinned = np.zeros(int(of.max(initial=-1)) + 1, dtype=bool)
    pinned[of[held]] = True
    run, order = _runs(points), np.argsort(of, kind="stable")  # runs are contiguous, so pairs are neighbours
    pair = np.flatnonzero((np.diff(of[order]) == 0) & (np.diff(run[order]) == 0))
    shared = np.unique(order[np.concatenate([pair, pair + 1])])
    if shared.size:
        x, y, links = points.links()
        kind = links.astype(np.uint64)
        looks = scatter_sum(x[held[y]], mix(kind[held[y]]) + mix(y[held[y]].astype(np.uint64)), part.size)
        looks += scatter_sum(y[held[x]], mix(~kind[held[x]]) + mix(x[held[x]].astype(np.uint64)), part.size)
        free = ~pinned[of[shared]]
        part[shared[free]] = 1 + rank(looks[shared[free]])
        part[shared[~free]] = 1 + shared.size + np.arange(int((~free).sum()))
    return part


def _crossed(points: Points, of: Labels, part: Labels) -> NDArray[np.bool_]:
    """Classes that hold two coordinates of one part of an axis (x + x[permuted]).

    Their ties relate coordinates instead of making them one, so they have to be read as typed edges.
    """
    crossed = np.zeros(int(of.max(initial=-1)) + 1, dtype=bool)
    shared = np.flatnonzero(part)
    if shared.size:
        rows = np.stack([of[shared], _runs(points)[shared], part[shared]])
        _, which, times = np.unique(rows, axis=1, return_inverse=True, return_counts=True)
        crossed[of[shared[times[which.reshape(-1)] > 1]]] = True
    return crossed


def _runs(points: Points) -> Labels:
    """For every point, which call made it: one axis of a tensor, or one step inside the graph."""
    starts = np.zeros(points.count + 1, dtype=np.int64)
    starts[[o.start for o in points.origins if o.stop > o.start]] = 1
    return np.cumsum(starts[:-1])


def components(size: int, a: Labels, b: Labels) -> tuple[int, Labels]:
    """Number of connected components, and the component of every vertex."""
    graph = coo_matrix((np.ones(a.size, dtype=np.int8), (a, b)), shape=(size, size))
    count, of = connected_components(graph, directed=False)
    return int(count), of.astype(np.int64)


def joined(parts: list[Edges]) -> Edges:
    return Edges(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("a", "b", "kind")))


def unique_edges(edges: Edges) -> Edges:
    """Without repetitions, sorted."""
    if not len(edges):
        return edges
    height = int(max(edges.a.max(), edges.b.max())) + 1
    kinds = int(edges.kind.max()) + 1
    if height * height * kinds < 2**62:
        key = np.sort((edges.a * height + edges.b) * kinds + edges.kind)
        key = key[np.diff(key, prepend=-1) > 0]
        pair, kind = np.divmod(key, kinds)
        return Edges(pair // height, pair % height, kind)
    rows = np.unique(np.stack([edges.a, edges.b, edges.kind]), axis=1)
    return Edges(rows[0], rows[1], rows[2])


def _initial(points: Points, of: Labels, count: int, pinned: NDArray[np.bool_]) -> Labels:
    """The multiset of axes a class touches; a pinned class is like no other."""
    origin = _runs(points)
    colour = scatter_sum(of, mix(origin.astype(np.uint64)), count)
    colour[pinned] = mix(np.flatnonzero(pinned).astype(np.uint64) + np.uint64(1 << 40))
    return rank(colour)


def refine(colour: Labels, edges: Edges) -> Labels:
    """1-dimensional Weisfeiler-Leman refinement: a vertex is told apart by the colours around it."""
    if not len(edges):
        return colour
    source = np.concatenate([edges.a, edges.b])
    target = np.concatenate([edges.b, edges.a])
    kind = np.concatenate([2 * edges.kind, 2 * edges.kind + 1]).astype(np.uint64)
    known = int(colour.max()) + 1 if colour.size else 0
    while True:
        message = mix(colour[source].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + mix(kind))
        around = scatter_sum(target, message, colour.size)
        refined = rank(mix(colour.astype(np.uint64)) + around * np.uint64(3))
        found = int(refined.max()) + 1
        if found == known:
            return colour
        colour, known = refined, found


def rank(values: Hash) -> Labels:
    """Small integers for hashes, equal where they are equal, in order of first appearance."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    place = np.empty(first.size, dtype=np.int64)
    place[np.argsort(first)] = np.arange(first.size)
    return place[which.reshape(-1)]


def mix(values: Hash) -> Hash:
    """splitmix64: a 64-bit hash, so that sums of hashes stand for multisets."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Hash = z ^ (z >> np.uint64(31))
        return mixed


def scatter_sum(target: Labels, values: Hash, size: int) -> Hash:
    """Sum of values per target, modulo 2^64."""
    total = np.zeros(size, dtype=np.uint64)
    np.add.at(total, target, values)
    return total
