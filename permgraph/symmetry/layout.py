"""Addresses: which unit of which groups every vertex belongs to, and how an axis is laid out in units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from permgraph.axes.points import Labels
from permgraph.symmetry.coloured_graph import mix, rank
from permgraph.symmetry.reductions import Product, Twins
from permgraph.symmetry.wreath import Family, Reading

_DEPTH = 8  # groups on one layout at most; nets in the wild need three


@dataclass(frozen=True)
class Block:
    """A group before it has a name. `units` has shape (*sizes of ancestors, size, m): vertices."""

    key: int
    size: int
    under: tuple[int, ...]  # ancestors, outermost first
    copies: int
    units: Labels = field(repr=False)
    owner: Addresses = field(repr=False)

    @property
    def parent(self) -> int | None:
        return self.under[-1] if self.under else None


class Addresses:
    """For every vertex: a layout (keys of blocks, slowest first) and its coordinates in it."""

    def __init__(self, vertices: int, reading: Reading) -> None:
        count = vertices + reading.sets
        self.vertices = vertices
        self.blocks: list[Block] = []
        self.chains: list[tuple[int, ...]] = [()]
        self._chain_ids: dict[tuple[int, ...], int] = {(): 0}
        self.chain_of = np.zeros(count, dtype=np.int64)
        self.coordinates = np.zeros((count, _DEPTH), dtype=np.int32)
        self.column = np.zeros(count, dtype=np.int64)  # which member of its unit a vertex is
        self._products = 0
        for family in reading.families:
            self._family(family, family.units, ())
        for derived in reading.derived:
            self._derived(derived, lambda v: v)

    def _chain(self, keys: tuple[int, ...]) -> int:
        if keys not in self._chain_ids:
            self._chain_ids[keys] = len(self.chains)
            self.chains.append(keys)
        return self._chain_ids[keys]

    def _family(self, family: Family, units: Labels, above: tuple[int, ...]) -> None:
        """Give addresses to all copies of a family; units (*ancestors, n, m)."""
        *outer, n, m = units.shape
        key = len(self.blocks)
        self.blocks.append(Block(key, n, above, int(np.prod(outer)), units, self))
        keys = (*above, key)
        self.chain_of[units] = self._chain(keys)
        grid = np.indices(units.shape)
        for axis in range(len(keys)):
            self.coordinates[units, axis] = grid[axis]
        self.column[units] = np.arange(m)
        for child in family.inner:
            self._family(child, units[..., child.units], keys)
        for derived in family.derived:
            self._derived(derived, lambda v: units[..., v])

    def _derived(self, derived: Product | Twins, at: Callable[[Labels], Labels]) -> None:
        if isinstance(derived, Twins):
            self._twins(at(derived.vertex))
        elif derived.cell is not None:
            vertex = at(derived.vertex)
            self._follow(vertex, at(derived.factors)[..., 0], np.broadcast_to(derived.cell, vertex.shape))
        else:
            self._product(at(derived.vertex), at(derived.factors))

    def _follow(self, vertex: Labels, source: Labels, cell: Labels) -> None:
        """Vertices with one factor each lie where it lies; those of one cell are one column."""
        vertex, source = vertex.reshape(-1), source.reshape(-1)
        self.chain_of[vertex] = self.chain_of[source]
        self.coordinates[vertex] = self.coordinates[source]
        kinds = rank(mix(cell.reshape(-1).astype(np.uint64)) + mix(~self.column[source].astype(np.uint64)))
        self.column[vertex] = (self._products + 1 + kinds) << 32
        self._products += 1 + int(kinds.max(initial=0))

    def _twins(self, vertex: Labels) -> None:
        """Twins form a group under the layout of the one that stands for them."""
        rows = vertex.reshape(-1, vertex.shape[-1])
        chain, column = self.chain_of[rows[:, 0]], self.column[rows[:, 0]]
        for c, j in np.unique(np.stack([chain, column]), axis=1).T.tolist():
            mine = rows[(chain == c) & (column == j)]
            above = self.chains[c]
            order = [self.coordinates[mine[:, 0], axis] for axis in reversed(range(len(above)))]
            sizes = [self.blocks[k].size for k in above]
            units = mine[np.lexsort(order)] if order else mine
            if not order and len(mine) > 1:  # held in place: each set of twins is a group of its own
                for row in mine:
                    self._family(Family(row[:, None]), row[:, None], ())
                continue
            self._family(Family(units), units.reshape(*sizes, -1, 1), above)
            self.column[mine] = j

    def _product(self, vertex: Labels, factors: Labels) -> None:
        """A determined vertex lies at the combined coordinates of its factors."""
        rows, sources = vertex.reshape(-1), factors.reshape(vertex.size, -1)
        chain = self.chain_of[sources]
        # factors of one colour may have come apart since: each kind of combination is a product of its own
        kinds = np.concatenate([chain, np.where(chain > 0, self.column[sources], 0)], axis=1)
        which = np.unique(kinds, axis=0, return_inverse=True)[1].reshape(-1)
        for kind in range(int(which.max()) + 1 if which.size else 0):
            self._combine(rows[which == kind], sources[which == kind])

    def _combine(self, vertex: Labels, factors: Labels) -> None:
        """Vertices whose j-th factors all have the same layout."""
        layout: list[int] = []
        sources: list[
            tuple[int, int]
        ] = []  # (factor, axis in that factor's chain) of every key of the layout
        for j in range(factors.shape[-1]):
            for axis, key in enumerate(self.chains[int(self.chain_of[factors[0, j]])]):
                if not any(
                    layout[i] == key and self._same(factors, source, (j, axis))
                    for i, source in enumerate(sources)
                ):
                    layout.append(key)
                    sources.append((j, axis))
        found = [self.coordinates[factors[:, j], axis] for j, axis in sources]
        self._products += 1
        self.chain_of[vertex] = self._chain(tuple(layout))
        self.column[vertex] = self._products << 32
        for axis, coordinate in enumerate(found):
            self.coordinates[vertex, axis] = coordinate

    def _same(self, factors: Labels, a: tuple[int, int], b: tuple[int, int]) -> bool:
        """Whether two coordinates of the factors are one (a shared ancestor), and not two units of one group."""
        one, other = (self.coordinates[factors[..., j], axis] for j, axis in (a, b))
        return bool((one == other).all())

    @cached_property
    def _innermost(self) -> tuple[Labels, Labels]:
        """Vertices sorted by the innermost key of their layout, and where each key's run begins."""
        last = np.array([keys[-1] if keys else -1 for keys in self.chains])[self.chain_of[: self.vertices]]
        order = np.argsort(last, kind="stable")
        return order, np.searchsorted(last[order], np.arange(len(self.blocks) + 1))

    def members(self, block: Block) -> Labels:
        """Vertices of the block's units, and what follows them alone."""
        order, starts = self._innermost
        own = block.units.ravel()
        return np.union1d(own[own < self.vertices], order[starts[block.key] : starts[block.key + 1]])

    def layouts(self, vertices: Labels) -> Iterator[tuple[tuple[int, ...], Labels]]:
        """Split an axis (the vertex of every coordinate) by layout.

        Yields (keys, positions of shape (*sizes, m)): the coordinates of the axis that each unit owns.
        """
        chains = self.chain_of[vertices]
        for chain in np.unique(chains).tolist():
            keys = self.chains[chain]
            if not keys:
                continue
            at = np.flatnonzero(chains == chain)
            mine = vertices[at]
            fields = [at, self.column[mine], *(self.coordinates[mine, i] for i in reversed(range(len(keys))))]
            sizes = [self.blocks[k].size for k in keys]
            per_unit, rest = divmod(at.size, int(np.prod(sizes)))
            if rest or not per_unit:
                raise AssertionError(f"{at.size} coordinates do not fill a layout of {sizes}")
            placed = at[np.lexsort(fields)].reshape(*sizes, per_unit)
            yield keys, placed[..., np.argsort(placed.reshape(-1, per_unit)[0])]
