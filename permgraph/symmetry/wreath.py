"""Read: from the coloured graph to nested symmetric groups.

Connected components that look alike may be exchanged (a symmetric group over the components). Inside one
component, edges that join two colours completely say nothing; a colour whose vertices are the full product of
others has no freedom of its own; twins (same colour, same neighbours) may be exchanged among themselves. Without
all these the component falls apart and is read again. Where it does not, sets that are joined completely become
vertices (which stand for no point); and where that does not help, vertices are held in place one by one, and
reported, until it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from permgraph.axes.points import Labels, components
from permgraph.symmetry.coloured_graph import Edges, mix, rank, refine, scatter_sum
from permgraph.symmetry.orbits import Undecided, exchange, hold, isomorphism, split_cells
from permgraph.symmetry.pair_vertices import find_pairs
from permgraph.symmetry.product_vertices import find_matched, find_products
from permgraph.symmetry.reductions import (
    Product,
    Twins,
    falls_apart,
    find_bicliques,
    find_twins,
    informative,
)

_HOLDS = 200  # vertices of one unit held in place before all of it is


@dataclass
class Family:
    """n look-alike units that may be exchanged, each of m vertices; column j of all units corresponds.

    units    (n, m) vertices
    inner    what can be permuted inside one unit, in terms of columns; the same in every unit
    derived  columns that follow others, in the order in which they are to be resolved
    """

    units: Labels
    inner: list[Family] = field(default_factory=list)
    derived: list[Product | Twins] = field(default_factory=list)

    def among(self, row: Labels) -> Family:
        """The same, where vertex i is called row[i]."""
        return Family(row[self.units], self.inner, self.derived)


@dataclass
class Reading:
    """Families and products of one graph, and the vertices whose freedom could not be read.

    sets   vertices added after those of the graph, each for a set of vertices
    """

    families: list[Family] = field(default_factory=list)
    derived: list[Product | Twins] = field(default_factory=list)
    frozen: int = 0
    sets: int = 0


def read(vertices: Labels, colour: Labels, edges: Edges) -> Reading:
    """Nested symmetric groups of a graph.

    Args:
        vertices: the vertices to read, in an order that is meaningful to people (position in the tensors).
        colour: colour of every vertex of the whole graph (indexed by vertex).
        edges: edges among `vertices`.
    """
    reading = Reading()
    for units, local in _families(vertices, colour, edges):
        n, m = units.shape
        if m == 1:
            if n > 1:
                reading.families.append(Family(units))
            continue
        inside = _open(colour[units[0]], local)
        reading.frozen += inside.frozen * n
        added = colour.size + reading.sets + np.arange(n * inside.sets).reshape(n, inside.sets)
        units, reading.sets = np.concatenate([units, added], axis=1), reading.sets + added.size
        if n > 1:
            reading.families.append(Family(units, inside.families, inside.derived))
        else:
            row = units[0]
            reading.families += [f.among(row) for f in inside.families]
            reading.derived += [d.among(row) for d in inside.derived]
    return reading


def _families(vertices: Labels, colour: Labels, edges: Edges) -> Iterator[tuple[Labels, Edges]]:
    """Components grouped by looks: (units (n, m), edges of the first unit in terms of columns)."""
    if not vertices.size:
        return
    index = np.zeros(int(max(vertices.max(), 0)) + 1, dtype=np.int64)
    index[vertices] = np.arange(vertices.size)
    a, b = index[edges.a], index[edges.b]
    count, of = components(vertices.size, a, b)
    looks = scatter_sum(of, mix(colour[vertices].astype(np.uint64)), count)
    size = np.bincount(of, minlength=count)
    kind = rank(mix(looks) + size.astype(np.uint64))
    first = np.full(count, vertices.size)
    np.minimum.at(first, of, np.arange(vertices.size))
    order = np.lexsort([np.arange(vertices.size), colour[vertices], first[of], kind[of]])
    alone = (np.bincount(kind)[kind] == 1) & (size == 1)  # a vertex like no other: nothing to read
    order = order[~alone[of[order]]]
    if not order.size:
        return
    edge_kind = kind[of[a]] if a.size else np.zeros(0, dtype=np.int64)
    edge_order = np.argsort(edge_kind, kind="stable")
    starts = np.searchsorted(edge_kind[edge_order], np.arange(int(kind.max()) + 2))
    bounds = np.flatnonzero(np.diff(kind[of[order]], prepend=-1))
    column = np.zeros(vertices.size, dtype=np.int64)
    chunks = sorted(np.split(order, bounds[1:]), key=lambda c: int(c.min()))
    for chunk in chunks:
        k = int(kind[of[chunk[0]]])
        m = int(size[of[chunk[0]]])
        units = chunk.reshape(-1, m)
        column[chunk] = np.tile(np.arange(m), units.shape[0])
        mine = edge_order[starts[k] : starts[k + 1]]
        local = Edges(column[a[mine]], column[b[mine]], edges.kind[mine])
        yield from _aligned(units, of, local, a[mine], vertices, colour)


def _aligned(
    units: Labels, of: Labels, local: Edges, a: Labels, vertices: Labels, colour: Labels
) -> Iterator[tuple[Labels, Edges]]:
    """Split a family into sub-families whose units are isomorphic column by column."""
    if not len(local):
        yield vertices[units], local
        return
    unit_of = np.zeros(int(of.max()) + 1, dtype=np.int64)
    unit_of[of[units[:, 0]]] = np.arange(units.shape[0])
    rows = np.stack([unit_of[of[a]], local.a, local.b, local.kind])
    rows = rows[:, np.lexsort(rows[::-1])]
    counts = np.bincount(rows[0], minlength=units.shape[0])
    stops = np.cumsum(counts)
    shapes: dict[bytes, list[int]] = {}
    for unit, (start, stop) in enumerate(zip(stops - counts, stops, strict=True)):
        shapes.setdefault(rows[1:, start:stop].tobytes(), []).append(unit)
    alike: list[tuple[Labels, Edges]] = []
    for members in shapes.values():
        start, stop = stops[members[0]] - counts[members[0]], stops[members[0]]
        mine, inside = vertices[units[members]], Edges(*rows[1:, start:stop])
        for i, (known, model) in enumerate(alike):
            image = _in_order_of(model, inside, colour[known[0]], colour[mine[0]])
            if image is not None:
                alike[i] = np.concatenate([known, mine[:, image]]), model
                break
        else:
            alike.append((mine, inside))
    yield from alike


def _in_order_of(model: Edges, edges: Edges, one: Labels, two: Labels) -> Labels | None:
    try:
        return isomorphism(one, two, model, edges)
    except Undecided:
        return None


def _open(colour: Labels, edges: Edges, depth: int = 0) -> Reading:
    """Read the inside of one connected unit, given in terms of its columns."""
    alive = np.ones(colour.size, dtype=bool)
    derived: list[Product | Twins] = []
    cell = rank(colour.astype(np.uint64))
    while True:
        cell, edges = informative(cell, alive, edges)
        left = np.flatnonzero(alive)
        if not len(edges):
            break
        matched, edges = find_matched(cell, alive, edges)
        products = [matched] if matched else []
        if not products:
            products, edges = find_products(cell, alive, edges)
        for product in products:
            alive[product.vertex] = False
        derived += products
        if products:
            continue
        if falls_apart(left, edges):
            break
        if rows := find_twins(cell, left, edges):
            derived += rows
            for r in rows:
                alive[r.vertex[:, 1:]] = False
                cell[r.vertex[:, 0]] = int(cell.max()) + 1  # distinguished by how many it stands for
            edges = edges.select(alive[edges.a] & alive[edges.b])
            cell = refine(cell, edges)
        elif (pairs := find_pairs(cell, alive, edges)) is not None:
            product, edges = pairs
            alive[product.vertex] = False
            derived.append(product)
        elif (bicliques := find_bicliques(cell, edges)) is not None:
            cell, edges = bicliques
            alive = np.concatenate([alive, np.ones(cell.size - alive.size, dtype=bool)])
        elif (split := _split(cell, left, edges)) is not None:
            cell = split
        else:
            return _finish(_stuck(cell, left, edges, depth), colour.size, cell.size, derived)
    return _finish(read(left, cell, edges), colour.size, cell.size, derived)


def _finish(reading: Reading, given: int, grown: int, derived: list[Product | Twins]) -> Reading:
    """What follows others is resolved after them: innermost first, later removals before earlier ones."""
    reading.sets += grown - given
    reading.derived = reading.derived + derived[::-1]
    return reading


def _alone(cell: Labels, vertices: Labels, edges: Edges) -> tuple[Labels, Edges]:
    """The graph of some vertices, numbered anew."""
    index = np.zeros(cell.size, dtype=np.int64)
    index[vertices] = np.arange(vertices.size)
    return rank(cell[vertices].astype(np.uint64)), Edges(index[edges.a], index[edges.b], edges.kind)


def _split(cell: Labels, vertices: Labels, edges: Edges) -> Labels | None:
    split = split_cells(*_alone(cell, vertices, edges))
    if split is None:
        return None
    cell = cell.copy()
    cell[vertices] = split
    return cell


def _stuck(cell: Labels, vertices: Labels, edges: Edges, depth: int) -> Reading:
    """Hold one vertex in place: what moves then is a subgroup, so it is true. A reflection is added to it.

    `frozen` counts the vertices that are held now, unless the reflection is all that was lost.
    """
    if depth > _HOLDS:
        return Reading(frozen=int(vertices.size))
    known, local = _alone(cell, vertices, edges)
    v, held = hold(known, local)
    reading = _open(held, local, depth + 1)
    pairs = exchange(v, known, local)
    if pairs is not None:
        reading.families.append(Family(pairs))
    size = np.bincount(known)[known]
    if pairs is None or size[v] > 2:
        reading.frozen += int(((size > 1) & (np.bincount(held)[held] == 1)).sum())
    row = np.concatenate([vertices, cell.size + np.arange(reading.sets)])
    reading.families = [f.among(row) for f in reading.families]
    reading.derived = [d.among(row) for d in reading.derived]
    return reading
