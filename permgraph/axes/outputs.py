"""Outputs that may move: a caller puts every axis back in order as a whole, so every axis has one order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.label_array import LabelArray
from permgraph.axes.points import Points
from permgraph.axes.workspace import ORDERED, Workspace


def axis_by_axis(space: Workspace, arrays: Sequence[LabelArray]) -> tuple[LabelArray, ...]:
    """Arrays over one dim each, of an output that is labelled over several dims jointly.

    Coordinates that also know their position (frames that one step of the network makes several of) stay.
    """
    whole: dict[int, LabelArray] = {}
    joint = any(len(a.dims) > 1 for a in arrays)
    key = _positions(space.points) if joint else np.zeros(0, dtype=np.uint64)
    for array in sorted(arrays, key=lambda a: len(a.dims)):
        for axis, dim in enumerate(array.dims):
            one = array
            if len(array.dims) > 1:
                labels = space.block(array.labels, (axis,), array.pinned, array.repeats)
                one = LabelArray((dim,), labels, array.pinned)
                where = key[array.labels]
                if not array.pinned and (where != where.take([0], axis=axis)).any():
                    space.pin([one], ORDERED)
            known = whole.setdefault(dim, one)
            if known is not one and not (known.pinned and one.pinned):
                space.points.tie(known.labels, one.labels)
    return tuple(whole.values())


def _positions(points: Points) -> NDArray[np.uint64]:
    """For every point a number of the pinned ones that it is a product of, directly or by way of others; 0 for none."""
    key = np.zeros(points.count, dtype=np.uint64)
    pinned = points.pins()[0]
    key[pinned] = pinned.astype(np.uint64) + np.uint64(1)
    for a, b, _ in points.linked:  # a product is linked when it is created, after what it is made of
        if key[b].any() and np.unique(a).size == a.size:  # else a block, with its members
            free = key[b] > 0
            key[a[free]] = key[a[free]] * np.uint64(0x9E3779B97F4A7C15) + key[b[free]]
    return key
