"""Kept: whether the groups that were read keep the coloured graph, whatever the reader did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import Edges, Hash, joined, mix, rank, runs_of, unique_edges
from permgraph.symmetry.layout import Addresses


def find_broken(at: Addresses, colour: Labels, edges: Edges, state: NDArray[np.bool_]) -> Labels:
    """Vertices to hold, because a group as it was read would not keep a colour or an edge, or has no place.

    Empty where all is right: among the edges of one kind between two sorts of vertices, those whose
    coordinates coincide in the same way are as many as the groups make of any one of them.
    """
    sort = rank(mix(at.chain_of.astype(np.uint64)) + at.column.astype(np.uint64))
    held = [_misplaced(at, sort, colour, state)]
    if at.pairs.size:  # an edge to a pair joins it in either order
        ends = [(a, b) for a in (edges.a, at.lifted[edges.a]) for b in (edges.b, at.lifted[edges.b])]
        edges = unique_edges(joined([Edges(a, b, edges.kind) for a, b in ends]))
    edges = edges.select((at.chain_of[edges.a] > 0) | (at.chain_of[edges.b] > 0))
    pair = at.chain_of[edges.a] * len(at.chains) + at.chain_of[edges.b]
    key, orbit = np.zeros(len(edges), dtype=np.uint64), np.ones(len(edges))
    for rows in runs_of(pair):
        key[rows], orbit[rows] = _coincidences(at, edges.a[rows], edges.b[rows])
    for part in (edges.kind, sort[edges.a], sort[edges.b]):
        key = mix(key) + part.astype(np.uint64)
    same = rank(key)
    uneven = np.bincount(same, minlength=1)[same] != orbit
    found = np.concatenate([*held, edges.a[uneven], edges.b[uneven]])
    single = at.lifted.size
    return np.unique(np.concatenate([found[found < single], at.pairs[found[found >= single] - single]]))


def _misplaced(at: Addresses, sort: Labels, colour: Labels, state: NDArray[np.bool_]) -> Labels:
    """Vertices of one sort that differ in colour, share an address, or (of the state) leave addresses empty."""
    address = sort.astype(np.uint64)
    for axis in range(max(map(len, at.chains))):
        used = np.where([len(c) > axis for c in at.chains], 1, 0)[at.chain_of]
        address = mix(address) + (at.coordinates[:, axis] * used).astype(np.uint64)
    where = rank(address)
    bad = np.bincount(where)[where] > 1
    mine = slice(0, at.vertices)
    _, first = np.unique(sort[mine], return_index=True)
    model = np.zeros(int(sort.max(initial=0)) + 1, dtype=np.int64)
    model[sort[mine][first]] = colour[first]
    bad[mine] |= colour != model[sort[mine]]
    bad[mine] |= ~_filled(at, sort)[mine] & state
    return np.flatnonzero(bad)


def _filled(at: Addresses, sort: Labels) -> NDArray[np.bool_]:
    """Whether there is a vertex of this sort at all coordinates; or, of pairs, at all of two different units."""
    sizes = [[float(at.blocks[k].size) for k in keys] for keys in at.chains]
    count = np.bincount(sort)[sort]
    filled: NDArray[np.bool_] = count == np.array(list(map(np.prod, sizes)))[at.chain_of]
    for chain, keys in enumerate(at.chains):
        twice = [axis for axis, key in enumerate(keys) if keys.count(key) > 1]
        if len(twice) == 2:
            rows = np.flatnonzero(at.chain_of == chain)
            a, b = (at.coordinates[rows, axis] for axis in twice)
            apart = np.bincount(sort[rows], a == b)[sort[rows]] == 0
            off = np.prod(sizes[chain]) - np.prod(sizes[chain]) / sizes[chain][twice[0]]
            filled[rows] |= apart & (count[rows] == off)
    return filled


def _coincidences(at: Addresses, a: Labels, b: Labels) -> tuple[Hash, NDArray[np.float64]]:
    """For edges between two layouts: which coordinates of the ends are one, and how many edges have the same."""
    ends = [(v, axis, key) for v in (a, b) for axis, key in enumerate(at.chains[at.chain_of[v[0]]])]
    pattern, orbit = np.zeros(a.size, dtype=np.uint64), np.ones(a.size)
    seen: list[tuple[int, list[Labels], NDArray[np.bool_]]] = []
    for v, axis, key in ends:
        chain = at.chains[at.chain_of[v[0]]]
        slot = [at.coordinates[v, chain.index(k)] for k in at.blocks[key].under]
        unit = [*slot, at.coordinates[v, axis]]
        taken, known = np.zeros(a.size), np.zeros(a.size, dtype=bool)
        for other, theirs, new in seen:
            pattern = mix(pattern)
            if other == key:
                together = np.all([x == y for x, y in zip(slot, theirs, strict=False)], axis=0)
                same = together & (unit[-1] == theirs[-1])
                known, taken = known | same, taken + (together & new)
                pattern = pattern + same + np.uint64(2) * together
        orbit *= np.where(known, 1, at.blocks[key].size - taken)
        seen.append((key, unit, ~known))
    return pattern, orbit
