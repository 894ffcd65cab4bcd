"""LabelArray: the labels of one axis of a tensor, or of several axes jointly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from permgraph.axes.points import Labels


@dataclass(frozen=True, eq=False)
class LabelArray:
    """Labels of the coordinates along `dims` (ascending), shape = the tensor's sizes there.

    After `view(b, t, 12, 64)` the 768 points of a projection are one (12, 64) array over two dims. Dims of
    size 1, and dims along which all entries are equal (after expand), carry no array.

    pinned   every point was created pinned (time, positions): ties among such arrays say nothing
    repeats  labels may occur more than once (the weight of a grouped convolution)
    """

    dims: tuple[int, ...]
    labels: Labels
    pinned: bool = False
    repeats: bool = False

    def on(self, dims: tuple[int, ...]) -> LabelArray:
        """The same points on other dims, which are brought into ascending order."""
        order = np.argsort(dims, kind="stable")
        return replace(self, dims=tuple(dims[i] for i in order), labels=self.labels.transpose(order))
