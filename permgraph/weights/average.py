"""`w_A · a + w_B · b + …` of tensors that go together, block by block: taken in float32 or wider, refused where it means
nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from permgraph.errors import FileError, UsageError, nearest
from permgraph.ir.names import letter
from permgraph.weights.computed import Averaged, Layer, average
from permgraph.weights.dtypes import Array, Dtype, are_bounds, count_nonfinite, is_inexact, narrow, widen
from permgraph.weights.methods import Mixture
from permgraph.weights.rows import Rows, blocks_of

Weights = tuple[float, ...]  # of A, of B, and so on


class Side(NamedTuple):
    """One tensor of one model: its shape and type, and how its rows are read."""

    shape: tuple[int, ...]
    dtype: Dtype
    rows: Callable[[Rows], Array]

    def wide(self, rows: Rows) -> Array:
        return widen(self.rows(rows), self.dtype)


@dataclass
class Average:
    """The average of models, tensor by tensor, of a computed weight together with its other parts.

    sides    key → the tensor of A, and of each other model that has one; None where it has none
    block    bytes of a block; None for those of `rows.BLOCK`
    mixture  another method than the average, for the tensors that it takes: these are read whole
    """

    weights: Mapping[str, Weights]
    layers: Mapping[str, Layer]
    way: str
    sides: Callable[[str], Sequence[Side | None]]
    dtype: Dtype | None = None
    allow_nonfinite: bool = False
    integers_of_a: bool = False
    block: float | None = math.inf
    mixture: Mixture | None = None
    waiting: dict[str, tuple[Averaged, str]] = field(default_factory=dict)

    def blocks(self, key: str) -> Iterator[Array]:
        """The result under `key`, in blocks. Raises FileError for NaN, inf, or integers that differ."""
        a, *others = self.sides(key)
        assert a is not None
        known = [side for side in others if side is not None]
        if len(known) < len(others) or not is_inexact(a.dtype):
            if len(known) == len(others) and not self.integers_of_a:
                for number, side in enumerate(known, 1):
                    _refuse_other_integers(key, a, side, letter(number))
            yield from (a.rows(rows) for rows in self._split(a))
            return
        for number, side in enumerate(known, 1):
            check_types(key, a.dtype, side.dtype, letter(number))
        target = result_dtype(a.dtype, self.dtype)
        for rows in self._split(a, key):
            held = narrow(self._rows(key, (a, *known), rows), target)
            if not self.allow_nonfinite and count_nonfinite(held, target):
                if not _share_bounds((a, *known), rows):
                    self._refuse(key, target)
                held = narrow(a.wide(rows), target)  # 0 times infinity is none
            yield held
        self.waiting.pop(key, None)

    def _split(self, side: Side, key: str = "") -> Iterator[Rows]:
        """The blocks of a tensor; with its key, those that the result is made in."""
        block = self.block if self._mixed(key) is None else math.inf
        return blocks_of(side.shape, side.dtype.itemsize, block)

    def _mixed(self, key: str) -> Mixture | None:
        return self.mixture if self.mixture is not None and self.mixture.takes(key) else None

    def _rows(self, key: str, sides: Sequence[Side], rows: Rows) -> Array:
        """Rows of the result, before they are rounded to its type."""
        if mixture := self._mixed(key):
            return mixture.tensor(key, [side.wide(rows) for side in sides])
        layer = self.layers.get(key)
        if layer is None:
            return weighted((side.wide(rows) for side in sides), self.weights[key])
        if key not in self.waiting:
            self._prepare(layer)
        averaged, part = self.waiting[key]
        return averaged.rows(part, rows)

    def _prepare(self, layer: Layer) -> None:
        sides = {}
        for part, key in layer.keys.items():
            sides[part] = known = self._known(key)
            for number, side in enumerate(known[1:], 1):
                check_types(key, known[0].dtype, side.dtype, letter(number))
        main = layer.keys[layer.main]
        each = [
            {part: partial(_promoted, known, i) for part, known in sides.items()}
            for i in range(len(self.weights[main]))
        ]
        blocks = {part: tuple(self._split(known[0])) for part, known in sides.items()}
        made = average(layer, each, self.weights[main], self.way, blocks, sides[layer.main][0].shape)
        self.waiting |= {key: (made, part) for part, key in layer.keys.items()}

    def _refuse(self, key: str, target: Dtype) -> None:
        """Name what is not finite: in A, in B, …, or in the result alone."""
        layer = self.layers.get(key)
        for part in layer.keys.values() if layer else [key]:
            for number, side in enumerate(self.sides(part)):
                if side is not None:
                    refuse_nonfinite(part, side.dtype, map(side.rows, self._split(side)), letter(number))
        known = self._known(key)
        split = [*self._split(known[0])]
        if any(count_nonfinite(side.rows(rows), side.dtype) for side in known for rows in split):
            others = enumerate(known[1:], 1)
            unlike = (i for i, side in others if not all(_share_bounds((known[0], side), r) for r in split))
            raise FileError(
                f"{key}: infinite bounds, and other ones in A than in {letter(next(unlike, 1))}, cannot be averaged."
            )
        result = (narrow(self._rows(key, known, rows), target) for rows in self._split(known[0], key))
        refuse_nonfinite(key, target, result, f"the result ({target} is too narrow)", bounds=False)

    def _known(self, key: str) -> list[Side]:
        """The tensors of a key that all models have."""
        found = [side for side in self.sides(key) if side is not None]
        assert len(found) == len(self.weights[key])
        return found


def _share_bounds(sides: Sequence[Side], rows: Rows) -> bool:
    """Whether all hold the same bounds, or mask."""
    a, *others = sides
    return are_bounds(a.rows(rows), a.dtype) and all(
        np.array_equal(a.wide(rows), one.wide(rows)) for one in others
    )


def _promoted(sides: Sequence[Side], which: int, rows: Rows) -> Array:
    """Rows of one of several sides, in the widest of their types."""
    found = sides[which].wide(rows)
    wide = np.result_type(*(np.dtype("<f8") if s.dtype.name == "float64" else "<f4" for s in sides))
    return found if found.dtype.kind == "c" else found.astype(wide, copy=False)


def weighted(arrays: Iterable[Array], weights: Weights) -> Array:
    """The weighted sum of arrays of float32 or wider, one after another, in the widest of their types."""
    held = list(arrays)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.result_type(*held)
        merged = np.multiply(held[0], wide.type(weights[0]), dtype=wide)
        for array, weight in zip(held[1:], weights[1:], strict=True):
            merged += np.multiply(array, wide.type(weight), dtype=wide)
    return np.asarray(merged)


def check_types(key: str, a: Dtype, b: Dtype, whose: str = "B") -> None:
    """Refuse types whose average means nothing. Raises FileError."""
    if a.itemsize == 1 or b.itemsize == 1:
        raise FileError(f"{key}: {a} and {b}: float8 cannot be averaged. Dequantise first.")
    if not is_inexact(b) or (b.is_complex and not a.is_complex):
        raise FileError(f"{key}: {a} in A and {b} in {whose} cannot be averaged.")


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


def _refuse_other_integers(key: str, a: Side, b: Side, whose: str) -> None:
    """A single number is a counter; several are an order, a mask or a table, which the other weights rely on."""
    size = math.prod(a.shape)
    if size <= 1:
        return
    split = [*blocks_of(a.shape, a.dtype.itemsize)]
    count = sum(int((a.rows(r) != b.rows(r).astype(a.dtype.held)).sum()) for r in split)
    if count:
        raise FileError(
            f"{key}: {count:,} of {size:,} {a.dtype} values differ in A and {whose}. Orders, masks and tables say what the "
            "other weights mean, so these cannot be averaged. If A's are right for both, pass integers_of_a=True "
            "(--integers-of-a)."
        )


def weights_of(
    keys: Mapping[str, Any], weights: Weights, tensor_weights: Mapping[str, Weights] | None, count: int
) -> dict[str, Weights]:
    """Weights of every key, those of single tensors included. Raises UsageError."""
    tensor_weights = tensor_weights or {}
    needed = "two finite numbers are needed, of A and of B"
    if count > 2:
        needed = f"{count} finite numbers are needed, one for each model"
    for own in (weights, *tensor_weights.values()):
        if len(own) != count or not all(math.isfinite(w) for w in own):
            raise UsageError(f"weights {own!r}: {needed}.")
    for glob in tensor_weights:
        if not any(fnmatchcase(key, glob) for key in keys):
            raise UsageError(f"weights for {glob!r}: no tensor matches.{nearest(glob, keys)}")
    of_key = {}
    for key in keys:
        matching = [own for glob, own in tensor_weights.items() if fnmatchcase(key, glob)]
        of_key[key] = matching[-1] if matching else weights
    return {key: tuple(map(float, own)) for key, own in of_key.items()}
