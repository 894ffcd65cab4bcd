"""LabelArray: the labels of one axis of a tensor, or of several axes jointly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from permgraph.axes.points import Labels


@dataclass(frozen=True, eq=False)
class Part:
    """Where a part was cut out.

    labels   of the whole
    source   the arrays of the tensor that was cut: they stand for that tensor
    moves    what was done to its other dims since
    """

    labels: Labels
    source: Any
    moves: tuple[object, ...] = ()

    def after(self, *move: object) -> Part:
        return replace(self, moves=(*self.moves, move))

    def alike(self, other: Part | None) -> bool:
        """Whether the two differ in nothing but which coordinates were taken."""
        if other is None:
            return False
        return self.labels is other.labels and self.source is other.source and self.moves == other.moves


@dataclass(frozen=True, eq=False)
class LabelArray:
    """Labels of the coordinates along `dims` (ascending), shape = the tensor's sizes there.

    After `view(b, t, 12, 64)` the 768 points of a projection are one (12, 64) array over two dims. Dims of
    size 1, and dims along which all entries are equal (after expand), carry no array.

    pinned   every point was created pinned (time, positions): ties among such arrays say nothing
    repeats  labels may occur more than once (the weight of a grouped convolution)
    part     what these are a part of, as long as nothing has used it: put together again, it was never cut. A single
             coordinate has no dims left, and is there for that alone
    """

    dims: tuple[int, ...]
    labels: Labels
    pinned: bool = False
    repeats: bool = False
    part: Part | None = None

    def on(self, dims: tuple[int, ...]) -> LabelArray:
        """The same points on other dims, which are brought into ascending order."""
        order = np.argsort(dims, kind="stable")
        return replace(self, dims=tuple(dims[i] for i in order), labels=self.labels.transpose(order))
