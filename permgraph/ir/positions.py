"""Positions: the coordinates of every unit on an axis, kept in the shortest form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Positions:
    """An integer array, kept as `offset + Σ strides·index` when it is affine, as a flat list otherwise.

    -1 where nothing lies: of units that are pairs, that of a unit with itself.
    """

    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None
    flat: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        if self.flat is None:
            return f"Positions({self.shape}, {self.offset}, {self.strides})"
        return f"Positions({self.shape}, {len(self.flat):,} numbers)"

    @classmethod
    def of(cls, array: NDArray[Any]) -> Positions:
        """The shortest form of `array`."""
        shape = tuple(int(n) for n in array.shape)
        offset = int(array.flat[0])
        steps = []
        for axis, n in enumerate(shape):
            second = tuple(int(axis == other) for other in range(len(shape)))
            steps.append(int(array[second]) - offset if n > 1 else 0)
        affine = cls(shape, offset, tuple(steps))
        if np.array_equal(affine.array(), array):
            return affine
        return cls(shape, flat=tuple(array.ravel().tolist()))

    def array(self) -> IntArray:
        """The positions, shape `shape`."""
        if self.flat is not None:
            return np.asarray(self.flat, dtype=np.int64).reshape(self.shape)
        assert self.strides is not None
        total = np.full(self.shape, self.offset, dtype=np.int64)
        for axis, (n, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            total += (np.arange(n) * stride).reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total

    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest position. The array must not be empty."""
        if self.flat is not None:
            return min(self.flat), max(self.flat)
        spans = [(n - 1) * step for n, step in zip(self.shape, self.strides or (), strict=True)]
        return self.offset + sum(min(s, 0) for s in spans), self.offset + sum(max(s, 0) for s in spans)

    @cached_property
    def distinct(self) -> bool:
        """Whether no position appears twice."""
        if self.flat is not None:
            return len(set(self.flat)) == len(self.flat)
        span = 0
        for step, n in sorted((abs(step), n) for n, step in zip(self.shape, self.strides or (), strict=True)):
            if n > 1 and step <= span:  # it may fall between the positions of the smaller strides
                return np.unique(self.array()).size == math.prod(self.shape)
            span += (n - 1) * step
        return True
