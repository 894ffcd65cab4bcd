"""Places on joined tensors: units of equal modules, which may change places from one module to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from permgraph.axes.exchange import Exchange
from permgraph.axes.points import Labels, Origin
from permgraph.axes.propagation import Propagation
from permgraph.axes.side_by_side import Sides
from permgraph.axes.usage import Use
from permgraph.ir.joined import Joined, joined_name
from permgraph.ir.spec import Place, Positions
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Unplaced
from permgraph.symmetry.coloured_graph import Classes
from permgraph.symmetry.layout import Addresses

Layout = tuple[int, ...]


class NotPlaced(Unplaced):
    """Units move in a way that no place on a joined tensor says. `nodes`: the tensors, where they are known."""

    def __init__(self, nodes: Sequence[str] = ()) -> None:
        super().__init__()
        self.nodes = tuple(nodes)


@dataclass
class JoinedPlaces:
    """What was placed on joined tensors.

    joined  name → its members, by name
    found   (state node, axis, layout, place without names)
    nodes   state nodes whose units are all placed here
    """

    joined: dict[str, Joined] = field(default_factory=dict)
    found: list[tuple[str, int, Layout, Place]] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)


def joined_places(
    context: Propagation, points: Exchange, sides: Sides, classes: Classes, addresses: Addresses
) -> JoinedPlaces:
    """Places of all tensors of equal branches that change places. Raises NotPlaced."""
    runs: dict[str, list[Origin]] = {}
    for run in points.points.origins:
        if run.tensor:
            runs.setdefault(run.node, []).append(run)
    wide = {n: axis for s in sides.sets for n, axis in (s.wide or {}).items()}
    done = JoinedPlaces()
    for root, members in points.members.items():
        own = [runs.get(m, []) for m in members]
        try:
            mine = _Members(sides.trace, members, own, classes, addresses, context.usage.uses)
            if root in points.which:
                which = classes.of[points.which[root]]
                if addresses.chain_of[which].any() and mine.blocks:
                    _place(done, mine, 0, [*mine.in_blocks()])
                elif addresses.chain_of[which].any():
                    _place(done, mine, None, [*mine.stacked(which)])
            elif root in wide and mine.cross(wide[root]):
                _place(done, mine, wide[root], [*mine.in_a_row(wide[root])])
        except NotPlaced:
            raise NotPlaced(members) from None
    return done


def _place(done: JoinedPlaces, mine: _Members, axis: int | None, found: list[tuple[Layout, Place]]) -> None:
    members = tuple(mine.trace.by_name[n].options["tensor"] for n in mine.nodes)
    name = joined_name(members)
    done.joined[name] = Joined(members, axis)
    done.nodes.update(mine.nodes)
    for layout, place in found:
        named = Place(name, place.axis, place.side, (), place.positions, place.rows, place.rows_axis)
        done.found.append((mine.nodes[0], place.axis, layout, named))


class _Members:
    """Corresponding tensors, with the vertices of their axes."""

    def __init__(
        self,
        trace: Trace,
        nodes: list[str],
        runs: list[list[Origin]],
        classes: Classes,
        addresses: Addresses,
        uses: Mapping[tuple[str, int], Use],
    ) -> None:
        self.uses = uses
        self.trace, self.nodes, self.addresses = trace, nodes, addresses
        self.shape = trace.by_name[nodes[0]].shape
        self.axes: dict[int, Labels] = {}  # axis → vertices, (members, coordinates)
        self.blocks: dict[
            int, Labels
        ] = {}  # axis that is ordered in blocks of axis 0 → vertices, (members, all)
        for run in zip(*runs, strict=True):
            first = run[0]
            vertices = np.stack([classes.of[r.start : r.stop] for r in run])
            if first.view is not None or (vertices.shape[1] != self.shape[first.axis] and first.rows):
                if addresses.chain_of[vertices].any():
                    raise NotPlaced
            elif vertices.shape[1] != self.shape[first.axis]:
                self.blocks[first.axis] = vertices
                continue
            self.axes[first.axis] = vertices

    def stacked(self, which: Labels) -> Iterator[tuple[Layout, Place]]:
        """Places on the stack: which member it is, then what lies on the axes of each."""
        for layout, at in self._layouts(which):
            yield layout, Place("", 0, "permute", (), Positions.of(at))
        for axis, vertices in self.axes.items():
            same = (vertices == vertices[0]).all(axis=0)
            yield from self._shared(axis, axis + 1, vertices, np.flatnonzero(same))
            yield from self._own(axis, vertices, np.flatnonzero(~same))

    def in_blocks(self) -> Iterator[tuple[Layout, Place]]:
        """Places of grouped convolutions, whose rows lie one after another, each with an order of its columns."""
        rows = self.axes.pop(0)
        for layout, at in self._layouts(rows.ravel()):
            yield layout, Place("", 0, self._side(0), (), Positions.of(at))
        if not self.addresses.chain_of[rows].all():
            raise NotPlaced  # rows that stay, or are one unit in all members, do not say which member it is
        for axis, vertices in self.axes.items():
            yield from self._beside(axis, vertices)
        for axis, vertices in self.blocks.items():
            yield from self._by_block(axis, vertices)

    def _by_block(self, axis: int, vertices: Labels) -> Iterator[tuple[Layout, Place]]:
        """An axis with an order in each block of rows; some members may have the same order."""
        size, alike = self.shape[axis], _alike(vertices)
        groups = vertices.shape[1] // size
        height = self.shape[0] // groups
        for layout, found in self._layouts(vertices[alike[:, 0]].ravel()):
            block, column = found // size, found % size
            if (block != block[..., :1]).any():
                raise NotPlaced
            members, group = alike[block[..., 0] // groups], block[..., :1] % groups
            first = members * self.shape[0] + group * height
            rows = (first[..., None] + np.arange(height)).reshape(*first.shape[:-1], -1)
            yield (
                layout,
                Place("", axis, self._side(axis), (), Positions.of(column), Positions.of(rows), 0),
            )

    def in_a_row(self, long: int) -> Iterator[tuple[Layout, Place]]:
        """Places on the members, one after another along an axis."""
        for axis, vertices in self.axes.items():
            if axis == long:
                for layout, at in self._layouts(vertices.ravel()):
                    yield layout, Place("", axis, self._side(axis), (), Positions.of(at))
            else:
                yield from self._beside(axis, vertices)

    def _beside(self, axis: int, vertices: Labels) -> Iterator[tuple[Layout, Place]]:
        """Another axis of members that follow one another: it has one order in all of them."""
        same = (vertices == vertices[0]).all(axis=0)
        yield from self._shared(axis, axis, vertices, np.flatnonzero(same))
        if any(True for _ in self._own(axis, vertices, np.flatnonzero(~same))):
            raise NotPlaced

    def cross(self, long: int) -> bool:
        """Whether units of one member may take places of another."""
        vertices = self.axes.get(long)
        if vertices is None:
            return False
        height = vertices.shape[1]
        found = self._layouts(vertices.ravel())
        return any(np.unique(at // height).size > 1 for _, at in found)

    def _shared(self, axis: int, to: int, vertices: Labels, at: Labels) -> Iterator[tuple[Layout, Place]]:
        """Coordinates that are the same unit in every member."""
        for layout, found in self._layouts(vertices[0, at], pairs=True):
            yield (
                layout,
                Place("", to, self._side(axis), (), Positions.of(np.where(found < 0, -1, at[found]))),
            )

    def _own(self, axis: int, vertices: Labels, at: Labels) -> Iterator[tuple[Layout, Place]]:
        """Coordinates that are other units in other members: they hold in some slices of the stack."""
        alike = _alike(vertices[:, at])
        for layout, found in self._layouts(vertices[alike[:, 0]][:, at].ravel()):
            member, column = found // at.size, at[found % at.size]
            for first in np.unique(member.reshape(-1, found.shape[-1])[0]):
                mine = member.reshape(-1, found.shape[-1])[0] == first
                one, where = member[..., mine][..., 0], column[..., mine]
                if (member[..., mine] != one[..., None]).any():
                    raise NotPlaced
                if (where == where.reshape(-1, where.shape[-1])[0]).all():
                    continue  # the same coordinates of every member: they move with it
                rows = Positions.of(alike[one])
                yield layout, Place("", axis + 1, self._side(axis), (), Positions.of(where), rows, 0)

    def _side(self, axis: int) -> str:
        use = self.uses.get((self.trace.by_name[self.nodes[0]].options["tensor"], axis))
        return "un-permute" if use and use.consumed else "permute"

    def _layouts(self, vertices: Labels, pairs: bool = False) -> list[tuple[Layout, Labels]]:
        """Layouts of all that moves. Raises NotPlaced where a vertex stands twice, or some of it was left out; and for
        pairs of units, which stand at both coordinates, where they are not asked for."""
        found = list(self.addresses.layouts(vertices))
        moving = np.flatnonzero(self.addresses.chain_of[vertices])
        in_pairs = [len(set(layout)) < len(layout) for layout, _ in found]
        placed = sum(
            np.unique(at[at >= 0]).size if two else at.size
            for (_, at), two in zip(found, in_pairs, strict=True)
        )
        if any(in_pairs) and not pairs:
            raise NotPlaced
        if placed != moving.size or np.unique(vertices[moving]).size != moving.size:
            raise NotPlaced
        return found


def _alike(rows: Labels) -> Labels:
    """Members whose coordinates are the same units, as many in each set: shape (sets, members in one)."""
    _, which = np.unique(rows, axis=0, return_inverse=True)
    count = np.bincount(which.reshape(-1))
    if (count != count[0]).any():
        raise NotPlaced
    sets = np.argsort(which.reshape(-1), kind="stable").reshape(-1, int(count[0]))
    return sets[np.argsort(sets[:, 0])]
