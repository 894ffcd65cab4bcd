"""Value: what is known of one tensor's axes. A list of label arrays, each over one or more dims."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from permgraph.axes.points import Labels


@dataclass(frozen=True, eq=False)
class Array:
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

    def moved(self, dims: tuple[int, ...], labels: Labels | None = None) -> Array:
        """The same points on other dims, which are brought into ascending order."""
        labels = self.labels if labels is None else labels
        order = np.argsort(dims, kind="stable")
        return replace(self, dims=tuple(dims[i] for i in order), labels=labels.transpose(order))


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor.

    weight   computed from the state alone, so a weight and not an activation
    table    contents of a constant integer tensor, when known
    name     graph node that made it
    """

    shape: tuple[int, ...]
    arrays: tuple[Array, ...] = ()
    weight: bool = False
    table: Any = None
    name: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def on(self, dim: int) -> list[Array]:
        """The arrays that involve this dim."""
        return [a for a in self.arrays if dim in a.dims]
