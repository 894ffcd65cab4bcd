"""Addresses: which unit of which groups every vertex belongs to, and how an axis is laid out in units.

A group element acts on coordinates, so it takes a vertex to the one of the same layout and column at the new
coordinates. That this keeps every edge is checked in `symmetry/kept.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.points import Labels
from permgraph.symmetry.block import Block, Unreadable
from permgraph.symmetry.coloured_graph import mix, rank, runs_of
from permgraph.symmetry.reductions import Product, Twins
from permgraph.symmetry.wreath import Family, Reading

_DEPTH = 8  # groups on one layout at most; nets in the wild need three


class Addresses:
    """For every vertex: a layout (keys of blocks, slowest first), its coordinates in it, and a column.

    Layout and column together say what a vertex is, coordinates which of its kind.
    """

    def __init__(self, vertices: int, reading: Reading) -> None:
        count = vertices + reading.sets
        self.vertices = vertices
        self.blocks: list[Block] = []
        self.chains: list[tuple[int, ...]] = [()]
        self._chain_ids: dict[tuple[int, ...], int] = {(): 0}
        self.chain_of = np.zeros(count, dtype=np.int64)
        self.coordinates = np.zeros((count, _DEPTH), dtype=np.int32)
        self.column = np.arange(count)  # a vertex in no group is like no other
        self._columns = count
        self.turned = np.zeros(count, dtype=bool)  # stands for a pair of units in either order,
        self.other = np.zeros((0, _DEPTH), dtype=np.int32)  # with these coordinates in the other one
        for family in reading.families:
            self._family(family, family.units, ())
        for derived in reading.derived:
            self._derived(derived, lambda v: v)
        self._lift(count)

    def moving(self, chosen: NDArray[np.bool_]) -> list[Block]:
        """The groups that move some of these vertices."""
        chains = np.unique(self.chain_of[: chosen.size][chosen])
        keys = {key for chain in chains for key in self.chains[chain]}
        return [block for block in self.blocks if block.key in keys]

    def _lift(self, count: int) -> None:
        """A second address for each vertex that stands for a pair in either order, after those of all vertices."""
        self.pairs = np.flatnonzero(self.turned)
        self.lifted = np.arange(count)  # vertex → its second address, or the only one
        if not self.pairs.size:
            return
        self.lifted[self.pairs] = count + np.arange(self.pairs.size)
        for name in ("chain_of", "column"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(self, name)[self.pairs]]))
        self.coordinates = np.concatenate([self.coordinates, self.other[self.pairs]])

    def _chain(self, keys: tuple[int, ...], vertices: Labels) -> int:
        if keys not in self._chain_ids:
            # whoever asks for an ancestor's coordinate takes the first one of that key
            unclear = any(keys[:i].count(k) > 1 for i, key in enumerate(keys) for k in self._under(key))
            if len(keys) > _DEPTH or unclear:
                raise Unreadable(vertices.ravel())
            self._chain_ids[keys] = len(self.chains)
            self.chains.append(keys)
        return self._chain_ids[keys]

    def _under(self, key: int) -> tuple[int, ...]:
        return self.blocks[key].under if key < len(self.blocks) else ()

    def _family(self, family: Family, units: Labels, above: tuple[int, ...]) -> None:
        """Give addresses to all copies of a family; units (*ancestors, n, m)."""
        *outer, n, m = units.shape
        key = len(self.blocks)
        keys = (*above, key)
        self.chain_of[units] = self._chain(keys, units)
        self.blocks.append(Block(key, n, above, int(np.prod(outer)), units, self))
        for axis, coordinate in enumerate(np.indices(units.shape)[:-1]):
            self.coordinates[units, axis] = coordinate
        self.column[units] = np.arange(m)
        for child in family.inner:
            self._family(child, units[..., child.units], keys)
        for derived in family.derived:
            self._derived(derived, lambda v: units[..., v])

    def _derived(self, derived: Product | Twins, at: Callable[[Labels], Labels]) -> None:
        if isinstance(derived, Twins):
            self._twins(at(derived.vertex))
            return
        vertex = at(derived.vertex)
        cell = np.broadcast_to(derived.cell, vertex.shape).reshape(-1)
        self._follow(
            vertex.reshape(-1), at(derived.factors).reshape(vertex.size, -1), cell, derived.unordered
        )

    def _follow(self, vertex: Labels, factors: Labels, cell: Labels, unordered: bool) -> None:
        """A vertex lies at the combined coordinates of its factors; what these are says what it is."""
        if unordered:  # of two that differ in more than coordinates, one comes first
            kinds = [self.chain_of[factors], self.column[factors]]
            factors = np.take_along_axis(factors, np.lexsort([factors, *kinds[::-1]], axis=1), axis=1)
        chains = self.chain_of[factors]
        kind = cell.astype(np.uint64)
        for column in (*chains.T, *self.column[factors].T):
            kind = mix(kind) + column.astype(np.uint64)
        self.column[vertex] = self._columns + rank(kind)
        self._columns += vertex.size
        layouts = rank(sum(mix(c.astype(np.uint64)) * np.uint64(2 * i + 1) for i, c in enumerate(chains.T)))
        for rows in runs_of(layouts):
            self._combine(vertex[rows], factors[rows])
            one_kind = (chains[rows[0]] == chains[rows[0], 0]).all()
            even = (self.column[factors[rows]] == self.column[factors[rows, :1]]).all(axis=1)
            turned = self.turned[factors[rows]].any(axis=1)
            if unordered and one_kind and even.any():
                self._turn(vertex[rows[even]], factors[rows[even], ::-1])
            elif turned.any():
                self._turn(vertex[rows[turned]], factors[rows[turned]])

    def _turn(self, vertex: Labels, factors: Labels) -> None:
        """Vertices that stand for a pair in either order: the coordinates in the other order, of these factors."""
        pairs = self.turned[factors]
        if pairs.any(axis=0).sum() > 1 or (pairs.any() and not pairs.any(axis=1).all()):
            raise Unreadable(vertex)
        chain, known = self.chain_of[vertex[0]], self.coordinates.copy()
        self.other = self.other if self.other.size else known.copy()
        self.coordinates[self.turned] = self.other[self.turned]
        self._combine(vertex, factors)
        found = self.coordinates[vertex]
        self.coordinates = known
        differ = (known[vertex] != found).any(axis=1)
        keys = self.chains[chain]
        if self.chain_of[vertex[0]] != chain or (differ.any() and len(set(keys)) == len(keys)):
            raise Unreadable(vertex)
        self.turned[vertex] = differ
        self.other[vertex] = found

    def _combine(self, vertex: Labels, factors: Labels) -> None:
        """Vertices whose j-th factors all have the same layout."""
        layout: list[int] = []
        found: list[Labels] = []
        for factor in factors.T:
            for axis, key in enumerate(self.chains[int(self.chain_of[factor[0]])]):
                mine = self.coordinates[factor, axis]
                told = (c for k, c in zip(layout, found, strict=True) if k == key)
                if not any(self._tells(key, c, mine) for c in told):
                    layout.append(key)
                    found.append(mine)
        self.chain_of[vertex] = self._chain(tuple(layout), vertex)
        for axis, coordinate in enumerate(found):
            self.coordinates[vertex, axis] = coordinate

    def _tells(self, key: int, known: Labels, other: Labels) -> bool:
        """Whether one coordinate tells the other: always the same unit, or always the other one of two."""
        same = known == other
        return bool(same.all() or (self.blocks[key].size == 2 and not same.any()))

    def _twins(self, vertex: Labels) -> None:
        """Twins form a group under the layout of the one that stands for them."""
        rows = vertex.reshape(-1, vertex.shape[-1])
        chain, column = self.chain_of[rows[:, 0]], self.column[rows[:, 0]]
        for c, j in np.unique(np.stack([chain, column]), axis=1).T.tolist():
            mine, above = rows[(chain == c) & (column == j)], self.chains[c]
            sizes = [self.blocks[k].size for k in above]
            if len(mine) != np.prod(sizes) or len(set(above)) < len(above):
                raise Unreadable(mine)
            places = [self.coordinates[mine[:, 0], axis] for axis in reversed(range(len(above)))]
            units = mine[np.lexsort(places)] if places else mine
            self._family(Family(units), units.reshape(*sizes, -1, 1), above)
            self.column[mine] = self._columns
            self._columns += 1

    @cached_property
    def _innermost(self) -> tuple[Labels, Labels]:
        """Vertices sorted by the innermost key of their layout, and where each key's run begins."""
        last = np.array([keys[-1] if keys else -1 for keys in self.chains])[self.chain_of[: self.vertices]]
        order = np.argsort(last, kind="stable")
        return order, np.searchsorted(last[order], np.arange(len(self.blocks) + 1))

    def members(self, block: Block) -> Labels:
        """Vertices of the block's units, and what follows them alone; some twice."""
        order, starts = self._innermost
        own = block.units.ravel()
        return np.concatenate([own[own < self.vertices], order[starts[block.key] : starts[block.key + 1]]])

    def layouts(self, vertices: Labels) -> Iterator[tuple[tuple[int, ...], Labels]]:
        """Split an axis (the vertex of every coordinate) by layout.

        Yields (keys, positions of shape (*sizes, m)): the coordinates of the axis that each unit owns. Where a key
        stands twice, units are pairs: in either order, if both have one position; -1 where there is no such pair.
        """
        chains = self.chain_of[vertices]
        for chain in np.flatnonzero(np.bincount(chains, minlength=1)).tolist():
            keys = self.chains[chain]
            if not keys:
                continue
            at = np.flatnonzero(chains == chain)
            mine = vertices[at]
            if len(set(keys)) < len(keys):
                yield from ((keys, grid) for grid in self._grids(mine, at))
                continue
            fields = [at, self.column[mine], *(self.coordinates[mine, i] for i in reversed(range(len(keys))))]
            sizes = [self.blocks[k].size for k in keys]
            per_unit, rest = divmod(at.size, int(np.prod(sizes)))
            if rest or not per_unit:
                continue  # distinguished by coordinates, but not one of each: no group of the state lies there
            coordinates = [self.coordinates[mine, i] for i in range(len(keys))]
            if (np.bincount(np.ravel_multi_index(coordinates, sizes)) != per_unit).any():
                continue
            placed = at[np.lexsort(fields)].reshape(*sizes, per_unit)
            yield keys, placed[..., np.argsort(placed.reshape(-1, per_unit)[0])]

    def _grids(self, vertices: Labels, at: Labels) -> Iterator[Labels]:
        """The positions of pairs of units, an array for each column."""
        keys = self.chains[self.chain_of[vertices[0]]]
        for column in np.unique(self.column[vertices]):
            mine = self.column[vertices] == column
            grid = np.full([self.blocks[k].size for k in keys], -1)
            for ids in (vertices[mine], self.lifted[vertices[mine]]):
                grid[tuple(self.coordinates[ids, axis] for axis in range(len(keys)))] = at[mine]
            if np.unique(grid[grid >= 0]).size == mine.sum():
                yield grid[..., None]
