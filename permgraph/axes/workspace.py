"""Workspace: what the rules share while the graph is walked. Points, the blocks and products made of them, a record."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.label_array import LabelArray
from permgraph.axes.points import Labels, Points, Step
from permgraph.ir.trace import Node, Shape

if TYPE_CHECKING:
    from permgraph.axes.contraction import Contraction
    from permgraph.axes.labelled_tensor import LabelledTensor
    from permgraph.axes.side_by_side import Sides

ORDERED = "ordered axis"
READ = "read by Python code"
UNREAD = "not reached by the example input"


class Workspace:
    """State of one propagation.

    points   all points and relations so far
    node     the node whose rule runs now
    record   every contraction so far, in order: what roles and probes are read off
    mirrored   whether two dims of a node's result may change places (`axes/mirrored.py`)
    inside   node → what its op computes on its way and does not return, by the names under which it is observed
    slicing  indices that take matrices out of weights
    settles  whether what was chosen is forgotten as soon as that costs no order
    chose    whether anything was chosen
    """

    def __init__(self, sides: Sides | None = None) -> None:
        self.points = Points()
        self.sides = sides
        self.node = Node("", "")
        self.record: list[Contraction] = []
        self.mirrored: Callable[[str, int, int], bool] = lambda node, a, b: False
        self.inside: dict[str, list[LabelledTensor]] = {}
        self.slicing = frozenset[str]()
        self.settles = False
        self.chose = False
        self._used: set[int] = set()
        self._taken: list[Labels] = []
        self._left: list[Labels] = []
        self._blocks: dict[tuple[Any, ...], Labels] = {}
        self._products: dict[tuple[Any, ...], LabelArray] = {}
        self._apart: set[tuple[Any, ...]] = set()
        self._combined: list[tuple[Labels, Labels]] = []  # points of products, and one source of each

    def enter(self, node: Node, rule: str) -> None:
        """Everything related from here on is recorded as the work of `rule` at `node`."""
        self.node = node
        self.points.at = Step(node.name, rule)
        self._used.clear()

    def about(self, part: int = -1) -> None:
        """What is recorded next is about one operand or result of the node; -1: about all of them again."""
        self.points.at = self.points.at._replace(part=part)

    def _own(self, key: tuple[Any, ...], known: Container[tuple[Any, ...]]) -> tuple[Any, ...]:
        """The key under which something new is kept: each of several equal branches makes its own."""
        at = self.points.at
        where = self.sides.owner(at.node, at.part) if self.sides else None
        return (*key, where) if where and key not in known else key

    # -- which operands a rule used ----------------------------------------------------------------------

    def use(self, tensor: object) -> None:
        """A tensor entered a contraction or a movement, or a rule said what becomes of it."""
        self._used.add(id(tensor))

    def is_used(self, tensor: object) -> bool:
        return id(tensor) in self._used

    def show(self, name: str, tensor: LabelledTensor) -> None:
        """The op computes this tensor on its way: it can be observed under `name`, at the node that runs now."""
        self.inside.setdefault(self.node.name, []).append(replace(tensor, name=name))

    # -- new points --------------------------------------------------------------------------------------

    def fresh_pinned(self, shape: Shape, reason: str) -> Labels:
        labels = self.points.fresh(shape)
        self.points.pin(labels, reason)
        return labels

    def positions(self, shape: Shape, dims: tuple[int, ...], reason: str) -> tuple[LabelArray, ...]:
        """One fresh pinned array per dim: coordinates that are distinguished by where they are."""
        return tuple(
            LabelArray((d,), self.fresh_pinned((shape[d],), reason), pinned=True)
            for d in dims
            if shape[d] > 1
        )

    def pin(self, arrays: tuple[LabelArray, ...] | list[LabelArray], reason: str) -> None:
        for array in arrays:
            if not array.pinned:
                self.points.pin(array.labels, reason)

    def distinguish(self, labels: Labels) -> None:
        """These points form a part of their own: linked to a pinned point."""
        key = self._own((labels.tobytes(),), self._apart)
        if labels.size and key not in self._apart:
            self._apart.add(key)
            pinned = self.fresh_pinned((1,), "part of an axis")
            self.points.link(labels, pinned.reshape((1,) * labels.ndim))

    def used_part(self, array: LabelArray) -> LabelArray:
        """A part of an axis is used: from here on it is distinguished from the rest."""
        if array.part is None:
            return array
        self.distinguish(array.labels)
        return replace(array, part=None)

    def read(self, taken: Labels, left: Labels) -> None:
        """Part of a weight was read here, and part was left (perhaps for another op to read)."""
        self._taken.append(taken.ravel())
        self._left.append(left.ravel())

    def pin_unread(self) -> None:
        """Parts of a weight that no op reads, as positions beyond the example's length, have to stay.

        What meets an activation as a whole is read, whatever was cut out of it elsewhere.
        """
        if not self._left:
            return
        read, left = np.zeros((2, self.points.count), dtype=bool)
        for labels in self._left:
            left[labels] = True
        for labels in self._taken:
            read[labels] = True
        for step in self.record:
            weights = [tensor for tensor, _ in step.operands if tensor.weight]
            for array in (
                a for tensor in weights if len(weights) < len(step.operands) for a in tensor.arrays
            ):
                read[array.labels] = True
        for points, source in reversed(self._combined):  # what a product is made of was there before it
            read[np.broadcast_to(source, points.shape)[read[points]]] = True
        self.points.pin(np.flatnonzero(left & ~read), UNREAD)

    # -- blocks and products -----------------------------------------------------------------------------

    def block(self, labels: Labels, keep: tuple[int, ...], pinned: bool, repeats: bool) -> Labels:
        """A point per coordinate on the `keep` axes of `labels`, linked to all that share the coordinate.

        Whole blocks may move, and only as blocks. Asked twice for the same labels, gives the same points.
        """
        rest = tuple(a for a in range(labels.ndim) if a not in keep)
        turned = np.ascontiguousarray(labels.transpose(*keep, *rest))
        key: tuple[Any, ...] = (turned.tobytes(), turned.shape, len(keep))
        key = self._own(key, self._blocks)
        if key not in self._blocks:
            shape = turned.shape[: len(keep)]
            if pinned:
                self._blocks[key] = self.fresh_pinned(shape, ORDERED)
            else:
                heads = self.points.fresh(shape)
                self._link_members(heads, turned, repeats)
                self._blocks[key] = heads
        return self._blocks[key]

    def _link_members(self, heads: Labels, members: Labels, repeats: bool) -> None:
        """Heads of the same members (rows of one block of a grouped kernel) are linked to one point that is linked to these."""
        if not repeats:
            a = np.broadcast_to(
                heads.reshape(heads.shape + (1,) * (members.ndim - heads.ndim)), members.shape
            )
            self.points.link(a, members)
            return
        rows, which = _distinct([members.reshape(heads.size, -1)])
        middle = heads.ravel()
        if rows.size < heads.size:
            middle = self.points.fresh(rows.shape)
            self.points.link(heads.ravel(), middle[which])
        sets = [np.unique(row) for row in members.reshape(heads.size, -1)[rows]]
        self.points.link(np.repeat(middle, [one.size for one in sets]), np.concatenate(sets))

    def product(
        self,
        shape: Shape,
        dims: tuple[int, ...],
        sources: list[LabelArray],
        axis: tuple[int, ...] | None = None,
    ) -> LabelArray:
        """One array over `dims`: a new point per coordinate, linked to the source points it combines.

        Along dims that no source labels, the new points look alike: any order is right.

        axis  those of `dims` that become one. Slices of it that combine the same points (rows of one block of a grouped
              kernel) have the same new ones; without `axis`, none have.
        """
        sizes, axis = tuple(shape[d] for d in dims), dims if axis is None else axis
        inner = tuple(dims.index(d) for d in dims if d in axis)
        key = (sizes, inner, *((tuple(dims.index(d) for d in s.dims), s.labels.tobytes()) for s in sources))
        key = self._own(key, self._products)
        if key not in self._products:
            self._products[key] = self._product(shape, dims, sources, inner)
        return replace(self._products[key], dims=dims)

    def _product(
        self, shape: Shape, dims: tuple[int, ...], sources: list[LabelArray], inner: tuple[int, ...]
    ) -> LabelArray:
        sizes = tuple(shape[d] for d in dims)
        covered = {d for s in sources for d in s.dims}
        if sources and all(s.pinned for s in sources) and covered == set(dims):
            return LabelArray(dims, self.fresh_pinned(sizes, ORDERED), pinned=True)
        views = [s.labels.reshape([shape[d] if d in s.dims else 1 for d in dims]) for s in sources]
        chosen = _distinct_slices(sizes, views, inner) if any(s.repeats for s in sources) else None
        if chosen is None:
            labels = self.points.fresh(sizes)
            for view in views:
                self._combine(labels, view)
            return LabelArray(dims, labels)
        rows, which = chosen
        outer = tuple(i for i in range(len(sizes)) if i not in inner)
        points = self.points.fresh((len(rows), *(sizes[i] for i in inner)))
        for view in views:
            turned = np.broadcast_to(view, sizes).transpose(*outer, *inner)
            self._combine(points, turned.reshape(which.size, *points.shape[1:])[rows])
        labels = points[which].reshape([sizes[i] for i in (*outer, *inner)])
        return LabelArray(dims, labels.transpose(np.argsort([*outer, *inner])), repeats=True)

    def _combine(self, points: Labels, source: Labels) -> None:
        self.points.link(points, source)
        self._combined.append((points, source))

    def pairs(
        self, sizes: Shape, ends: tuple[int, int], taken: NDArray[np.bool_], sources: list[Labels]
    ) -> Labels:
        """As a product, where coordinates i and j of the axes `ends` are one pair with j and i.

        Args:
            taken: which elements are read, shape `sizes`; labels of the others stand for nothing.
            sources: labels that can be broadcast to `sizes`; of those on `ends`, which mirror each other, the first.
        """
        key = ("pairs", sizes, ends, taken.tobytes(), *((s.shape, s.tobytes()) for s in sources))
        if key not in self._blocks:
            at = np.arange(taken.size).reshape(sizes)
            one = np.minimum(at, at.swapaxes(*ends))  # of both orders of a pair
            known, which = np.unique(one[taken], return_inverse=True)
            points = self.points.fresh(known.shape)
            for source in sources:
                values = np.broadcast_to(source, sizes)
                either = [values[taken], values.swapaxes(*ends)[taken]]
                self.points.link(np.tile(points[which.reshape(-1)], 2), np.concatenate(either))
            self._blocks[key] = points[np.minimum(np.searchsorted(known, one), known.size - 1)]
        return self._blocks[key]


def _distinct_slices(
    sizes: Shape, views: list[Labels], inner: tuple[int, ...]
) -> tuple[Labels, Labels] | None:
    """Slices of the axes `inner`, of which no two combine the same points, and for every slice the one of them that is
    like it. None where all differ, or where two coordinates of one slice combine the same."""
    outer = tuple(i for i in range(len(sizes)) if i not in inner)
    slices = [
        np.broadcast_to(view, [n if i in outer else view.shape[i] for i, n in enumerate(sizes)])
        .transpose(*outer, *inner)
        .reshape(int(np.prod([sizes[i] for i in outer])), -1)
        for view in views
    ]
    rows, which = _distinct(slices)
    if rows.size == which.size:
        return None
    whole = [np.broadcast_to(view, sizes).transpose(*outer, *inner).reshape(which.size, -1) for view in views]
    for row in rows:
        if np.unique(np.stack([slices[row] for slices in whole]), axis=1).shape[1] < whole[0].shape[1]:
            return None
    return rows, which


def _distinct(tables: list[Labels]) -> tuple[Labels, Labels]:
    """Of tables with as many rows each: where every different row stands first, and for every row which of those it is."""
    known: dict[bytes, int] = {}
    rows = list[int]()
    which = np.empty(len(tables[0]), dtype=np.int64)
    for i in range(which.size):
        which[i] = known.setdefault(b"".join(table[i].tobytes() for table in tables), len(rows))
        if which[i] == len(rows):
            rows.append(i)
    return np.array(rows, dtype=np.int64), which
