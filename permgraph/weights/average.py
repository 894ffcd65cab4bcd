"""`w_A · a + w_B · b` of pairs of tensors, block by block: taken in float32 or wider, refused where it means nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from permgraph.errors import FileError
from permgraph.weights.computed import Averaged, Layer, average
from permgraph.weights.dtypes import Array, Dtype, are_bounds, count_nonfinite, is_inexact, narrow, widen
from permgraph.weights.rows import Rows, blocks_of

Weights = tuple[float, float]


class Side(NamedTuple):
    """One tensor of one model: its shape and type, and how its rows are read."""

    shape: tuple[int, ...]
    dtype: Dtype
    rows: Callable[[Rows], Array]

    def wide(self, rows: Rows) -> Array:
        return widen(self.rows(rows), self.dtype)


@dataclass
class Average:
    """The average of two models, tensor by tensor, of a computed weight together with its other parts.

    both     key → the tensor of A, and of B where it has one
    block    bytes of a block; None for those of `rows.BLOCK`
    """

    weights: Mapping[str, Weights]
    layers: Mapping[str, Layer]
    way: str
    both: Callable[[str], tuple[Side, Side | None]]
    dtype: Dtype | None = None
    allow_nonfinite: bool = False
    integers_of_a: bool = False
    block: float | None = math.inf
    waiting: dict[str, tuple[Averaged, str]] = field(default_factory=dict)

    def blocks(self, key: str) -> Iterator[Array]:
        """The result under `key`, in blocks. Raises FileError for NaN, inf, or integers that differ."""
        a, b = self.both(key)
        if b is None or not is_inexact(a.dtype):
            if b is not None and not self.integers_of_a:
                _refuse_other_integers(key, a, b)
            yield from (a.rows(rows) for rows in self._split(a))
            return
        check_types(key, a.dtype, b.dtype)
        target = result_dtype(a.dtype, self.dtype)
        for rows in self._split(a):
            held = narrow(self._rows(key, a, b, rows), target)
            if not self.allow_nonfinite and count_nonfinite(held, target):
                if not _share_bounds(a, b, rows):
                    self._refuse(key, target)
                held = narrow(a.wide(rows), target)  # 0 times infinity is none
            yield held
        self.waiting.pop(key, None)

    def _split(self, side: Side) -> Iterator[Rows]:
        return blocks_of(side.shape, side.dtype.itemsize, self.block)

    def _rows(self, key: str, a: Side, b: Side, rows: Rows) -> Array:
        """Rows of the result, before they are rounded to its type."""
        layer = self.layers.get(key)
        if layer is None:
            return weighted(a.wide(rows), b.wide(rows), self.weights[key])
        if key not in self.waiting:
            self._prepare(layer)
        averaged, part = self.waiting[key]
        return averaged.rows(part, rows)

    def _prepare(self, layer: Layer) -> None:
        sides = {}
        for part, key in layer.keys.items():
            a, b = self.both(key)
            assert b is not None
            check_types(key, a.dtype, b.dtype)
            sides[part] = (a, b)
        of_a, of_b = ({part: partial(_promoted, pair, i) for part, pair in sides.items()} for i in range(2))
        blocks = {part: tuple(self._split(a)) for part, (a, _) in sides.items()}
        main = layer.keys[layer.main]
        made = average(layer, of_a, of_b, self.weights[main], self.way, blocks, sides[layer.main][0].shape)
        self.waiting |= {key: (made, part) for part, key in layer.keys.items()}

    def _refuse(self, key: str, target: Dtype) -> None:
        """Name what is not finite: in A, in B, or in the result alone."""
        layer = self.layers.get(key)
        for part in layer.keys.values() if layer else [key]:
            for whose, side in zip("AB", self.both(part), strict=True):
                if side is not None:
                    refuse_nonfinite(part, side.dtype, map(side.rows, self._split(side)), whose)
        a, b = self.both(key)
        assert b is not None
        if any(count_nonfinite(side.rows(rows), side.dtype) for side in (a, b) for rows in self._split(side)):
            raise FileError(f"{key}: infinite bounds, and other ones in A than in B, cannot be averaged.")
        result = (narrow(self._rows(key, a, b, rows), target) for rows in self._split(a))
        refuse_nonfinite(key, target, result, f"the result ({target} is too narrow)", bounds=False)


def _share_bounds(a: Side, b: Side, rows: Rows) -> bool:
    """Whether A and B hold the same bounds, or mask."""
    return are_bounds(a.rows(rows), a.dtype) and np.array_equal(a.wide(rows), b.wide(rows))


def _promoted(pair: tuple[Side, Side], which: int, rows: Rows) -> Array:
    """Rows of one of two sides, in the wider of their types."""
    found = pair[which].wide(rows)
    wide = np.result_type(*(np.dtype("<f8") if s.dtype.name == "float64" else "<f4" for s in pair))
    return found if found.dtype.kind == "c" else found.astype(wide, copy=False)


def weighted(a: Array, b: Array, weights: Weights) -> Array:
    """The weighted sum of two arrays of float32 or wider, in the wider of their types."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.result_type(a, b)
        merged = np.multiply(a, wide.type(weights[0]), dtype=wide)
        merged += np.multiply(b, wide.type(weights[1]), dtype=wide)
    return np.asarray(merged)


def check_types(key: str, a: Dtype, b: Dtype) -> None:
    """Refuse types whose average means nothing. Raises FileError."""
    if a.itemsize == 1 or b.itemsize == 1:
        raise FileError(f"{key}: {a} and {b}: float8 cannot be averaged. Dequantise first.")
    if not is_inexact(b):
        raise FileError(f"{key}: {a} in A and {b} in B cannot be averaged.")
    if b.is_complex and not a.is_complex:
        raise FileError(f"{key}: {a} in A and {b} in B cannot be averaged.")


def refuse_nonfinite(
    key: str, dtype: Dtype | None, blocks: Iterator[Array], whose: str, bounds: bool = True
) -> None:
    """Refuse NaN and infinity; with `bounds`, where it is no bound (`are_bounds`). Raises FileError."""
    if dtype is None:
        return
    total = size = 0
    for block in blocks:
        size += block.size
        total += 0 if bounds and are_bounds(block, dtype) else count_nonfinite(block, dtype)
    if total:
        raise FileError(f"{key}: {total:,} of {size:,} values are NaN or inf in {whose}.")


def result_dtype(of_a: Dtype, wanted: Dtype | None) -> Dtype:
    return wanted if wanted is not None and of_a.is_floating_point else of_a


def _refuse_other_integers(key: str, a: Side, b: Side) -> None:
    """A single number is a counter; several are an order, a mask or a table, which the other weights rely on."""
    size = math.prod(a.shape)
    if size <= 1:
        return
    split = [*blocks_of(a.shape, a.dtype.itemsize)]
    count = sum(int((a.rows(r) != b.rows(r).astype(a.dtype.held)).sum()) for r in split)
    if count:
        raise FileError(
            f"{key}: {count:,} of {size:,} {a.dtype} values differ in A and B. Orders, masks and tables say what the "
            "other weights mean, so these cannot be averaged. If A's are right for both, pass integers_of_a=True "
            "(--integers-of-a)."
        )
