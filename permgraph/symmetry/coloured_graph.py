"""Classes: tied points become one vertex; links become typed edges; colours say which vertices look alike.

The result is a coloured graph whose automorphisms are the permutation symmetries of the network: a vertex per
class of tied points, coloured by the tensor axes it touches, an edge per link, pinned vertices all distinct.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels, Points
from permgraph.axes.tied import tied_classes

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
    """Merge tied points, then refine colours until nothing more is distinguished."""
    run, look, axis = _runs(points)
    count, of = tied_classes(points, ((a, b) for a, b, _ in points.tied))
    pinned = _pinned(points, of, count)
    crossed = _crossed(of, axis[run], count)
    x, y, kind = points.links()
    held = (crossed & pinned)[of]  # points that share a pinned class with another one of their axis
    crossed &= ~pinned
    if crossed.any():
        a, b = points.ties()
        ties = np.repeat(np.arange(len(points.tied)), [t.size for t, _, _ in points.tied])
        loose = crossed[of[a]]
        x, y = np.concatenate([x, a[loose]]), np.concatenate([y, b[loose]])
        kind = np.concatenate([kind, len(points.linked) + ties[loose]])
        kept = (~crossed[of[a]] for a, _, _ in points.tied)
        count, of = tied_classes(
            points, [(a[k], b[k]) for (a, b, _), k in zip(points.tied, kept, strict=True)]
        )
        pinned = _pinned(points, of, count)
    member = look[run]
    if held.any():
        member = np.where(held, 2 * int(look.max(initial=0)) + 2 + np.arange(points.count), member)
    kind = _told(kind, *(_member(points, kind, end, member, of, run) for end in (x, y)))
    del member  # an array of all points is large
    edges = unique_edges(Edges(of[x], of[y], kind))
    del x, y, kind
    colour = refine(_initial(look[run], of, count, pinned), edges)
    del run
    return Classes(of, count, pinned, colour, edges.select(edges.a != edges.b))


def _member(points: Points, kind: Labels, end: Labels, member: Labels, of: Labels, run: Labels) -> Labels:
    """Which member of its class the end of a link is: by what it looks like; and by its axis, where a class holds two
    members that look alike and the link is none that equal branches recorded."""
    if not points.alike:
        return member[end]
    order = np.lexsort([member, of])
    same = (np.diff(of[order]) == 0) & (np.diff(member[order]) == 0)
    twice = np.isin(of, of[order[1:][same]])[end] & ~np.isin(kind, np.array(sorted(points.alike)))
    return np.where(twice, int(member.max()) + 1 + run[end], member[end])


def _told(kind: Labels, x: Labels, y: Labels) -> Labels:
    """A link to one member of a class is not a link to another one: kinds distinguished by the members they join."""
    mixed = np.zeros(int(kind.max(initial=-1)) + 1, dtype=bool)
    for end in (x, y):
        first = np.zeros(mixed.size, dtype=np.int64)
        first[kind[::-1]] = end[::-1]
        mixed[kind[end != first[kind]]] = True
    told = mixed[kind]
    key = mix(kind[told].astype(np.uint64)) + x[told].astype(np.uint64)
    kind = kind.copy()
    kind[told] = mixed.size + rank(mix(key) + y[told].astype(np.uint64))
    return kind


def _pinned(points: Points, of: Labels, count: int) -> NDArray[np.bool_]:
    pinned = np.zeros(count, dtype=bool)
    pinned[of[points.pins()[0]]] = True
    return pinned


def _crossed(of: Labels, axis: Labels, count: int) -> NDArray[np.bool_]:
    """Classes that hold two coordinates of one axis: the halves of a gate, q and k in one matrix, x + x[permuted].

    Their ties relate coordinates instead of making them one, so they are read as typed edges.
    """
    crossed = np.zeros(count, dtype=bool)
    bounds = np.flatnonzero(np.diff(axis, prepend=-1))
    back = np.concatenate([of[1:] <= of[:-1], [False]])
    back[bounds[1:] - 1] = False  # from one axis to the next
    unsorted = np.zeros(int(axis.max(initial=-1)) + 1, dtype=bool)
    unsorted[axis[back]] = True  # where classes ascend along an axis, none stands there twice
    unsorted[np.bincount(axis[bounds], minlength=unsorted.size) > 1] = True
    chosen = unsorted[axis]
    of, axis = of[chosen], axis[chosen]
    order = np.lexsort([axis, of])
    crossed[of[order][:-1][(np.diff(of[order]) == 0) & (np.diff(axis[order]) == 0)]] = True
    return crossed


def _runs(points: Points) -> tuple[Labels, Labels, Labels]:
    """For every point, which call made it: one axis of a tensor, or one step inside the graph. For every call the first
    one whose points look like its own, and the first one of the axis of which its points are coordinates."""
    run = points.runs()
    like = np.arange(int(run.max(initial=0)) + 1)
    axis = like.copy()
    for origin in points.origins:
        if origin.kin >= 0 and origin.stop > origin.start:
            like[run[origin.start]] = run[points.origins[origin.kin].start]
            axis[run[origin.start]] = like[run[origin.start]] if origin.longer else run[origin.start]
    return run, like, axis


def joined(parts: list[Edges]) -> Edges:
    return Edges(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("a", "b", "kind")))


def unique_edges(edges: Edges) -> Edges:
    """Without repetitions, sorted."""
    if not len(edges):
        return edges
    height = int(max(edges.a.max(), edges.b.max())) + 1
    kinds = int(edges.kind.max()) + 1
    pair, kind = edges.a * height + edges.b, edges.kind
    if height * height * kinds < 2**63:
        key = np.sort(pair * kinds + kind)
        pair, kind = np.divmod(key[np.diff(key, prepend=-1) > 0], kinds)
    else:
        order = np.lexsort([kind, pair])
        pair, kind = pair[order], kind[order]
        new = (np.diff(pair, prepend=-1) > 0) | (np.diff(kind, prepend=-1) != 0)
        pair, kind = pair[new], kind[new]
    return Edges(pair // height, pair % height, kind)


def _initial(run: Labels, of: Labels, count: int, pinned: NDArray[np.bool_]) -> Labels:
    """The multiset of axes a class touches; a pinned class is like no other."""
    colour = scatter_sum(of, mix(np.arange(int(run.max(initial=0)) + 1, dtype=np.uint64))[run], count)
    colour[pinned] = mix(np.flatnonzero(pinned).astype(np.uint64) + np.uint64(1 << 40))
    return rank(colour)


def refine(colour: Labels, edges: Edges) -> Labels:
    """1-dimensional Weisfeiler-Leman refinement: a vertex is distinguished by the colours around it."""
    if not len(edges):
        return colour
    kinds = mix(np.arange(2 * int(edges.kind.max()) + 2, dtype=np.uint64))
    out, back = kinds[2 * edges.kind], kinds[2 * edges.kind + 1]
    known = int(colour.max()) + 1 if colour.size else 0
    while True:
        told = colour.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        around = scatter_sum(edges.b, mix(told[edges.a] + out), colour.size)
        around += scatter_sum(edges.a, mix(told[edges.b] + back), colour.size)
        refined = rank(mix(colour.astype(np.uint64)) + around * np.uint64(3))
        found = int(refined.max()) + 1
        if found == known:
            return colour
        colour, known = refined, found


def rank(values: Hash) -> Labels:
    """Small integers for hashes, equal where they are equal, in order of first appearance.

    A table of slots, filled with all values at once: the first value of each slot is settled with all its equals, the
    others are tried again. Several times faster than sorting, which np.unique does.
    """
    left, tried = np.arange(values.size), values
    first = left.copy()  # where each value stands for the first time
    while left.size:
        slot = (tried & np.uint64((1 << int(2 * left.size).bit_length()) - 1)).astype(np.int64)
        table = np.empty(int(slot.max()) + 1, dtype=np.int64)
        table[slot[::-1]] = left[::-1]  # of several the last one written stays, so the first one of all
        known = table[slot]
        other = values[known] != values[left]
        first[left] = known
        left = left[other]
        tried = mix(tried[other])
    number: Labels = np.cumsum(first == np.arange(values.size)) - 1
    ranked: Labels = number[first]
    return ranked


def mix(values: Hash) -> Hash:
    """splitmix64: a 64-bit hash, so that sums of hashes stand for multisets."""
    mixed: Hash = values + np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, mixed.size, 1 << 14):  # a piece that stays in the cache
        z = mixed[start : start + (1 << 14)]
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return mixed


def scatter_sum(target: Labels, values: Hash, size: int) -> Hash:
    """Sum of values per target, modulo 2^64."""
    total = np.zeros(size, dtype=np.uint64)
    np.add.at(total, target, values)
    return total


def runs_of(key: Labels) -> list[Labels]:
    """Where each value of `key` stands."""
    order = np.argsort(key, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if key.size else []
