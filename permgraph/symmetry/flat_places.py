"""Places on a flat axis that is seen as a tensor: all combinations of the units of the tensor's axes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from permgraph.axes.points import Labels, Origin
from permgraph.symmetry.coloured_graph import Classes
from permgraph.symmetry.layout import Addresses

_SINGLY = 64  # coordinates that stay, each of which gets places of its own

Found = tuple[tuple[int, ...], Labels]  # keys of groups, and coordinates of shape (*sizes, m)


def flat_layouts(runs: list[Origin], classes: Classes, addresses: Addresses) -> Iterator[Found]:
    """(keys, positions on the flat axis of shape (*sizes, m)) of what moves in one region.

    `runs` are the labels of its axes, or the one run that labels all its elements.
    """
    view = runs[0].view
    assert view is not None
    strides = [prod(view.shape[d + 1 :]) for d in range(len(view.shape))]
    by_axis = []
    for run in runs:
        assert run.view is not None
        vertices = classes.of[np.arange(run.start, run.stop)]
        stride = strides[run.view.dims[-1]]
        moved = [(keys, at * stride) for keys, at in addresses.layouts(vertices)]
        covered = (
            np.concatenate([at.ravel() // stride for _, at in moved]) if moved else np.zeros(0, dtype=int)
        )
        rest = np.setdiff1d(np.arange(vertices.size), covered) * stride
        by_axis.append([*moved, *([((), rest)] if rest.size else [])])
    for parts in product(*_split(by_axis)):
        keys = tuple(key for layout, _ in parts for key in layout)
        if keys:
            yield keys, _combined(view.offset, [at for _, at in parts])


def _split(by_axis: list[list[Found]]) -> list[list[Found]]:
    """Coordinates that stay, before an axis that moves, one by one: positions are then in steps, and short to write."""
    last = max((i for i, found in enumerate(by_axis) if any(keys for keys, _ in found)), default=-1)
    return [
        [
            (keys, part)
            for keys, at in found
            for part in (at[:, None] if not keys and i < last and at.size <= _SINGLY else [at])
        ]
        for i, found in enumerate(by_axis)
    ]


def _combined(offset: int, parts: list[Labels]) -> Labels:
    """Sums of one coordinate of every axis: shape (*sizes of all, product of all m); -1 where one of them is missing."""
    sizes = [n for at in parts for n in at.shape[:-1]]
    total, before = np.full((1,) * (len(sizes) + len(parts)), offset, dtype=np.int64), 0
    missing = total < 0
    for i, at in enumerate(parts):
        shape = [1] * (len(sizes) + len(parts))
        shape[before : before + at.ndim - 1] = at.shape[:-1]
        shape[len(sizes) + i] = at.shape[-1]
        total, missing = total + at.reshape(shape), missing | (at.reshape(shape) < 0)
        before += at.ndim - 1
    return np.where(missing, -1, total).reshape(*sizes, -1)
