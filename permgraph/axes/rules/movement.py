"""Movement ops: each is one call into `axes.movement` or `axes.joining`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from permgraph.axes import joining, movement
from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import resized
from permgraph.axes.rules.builders import dims_of, one_dim, part_by_data, placed, written
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op
from permgraph.ir.trace import Ref

PARTS = "real and imaginary part"


@op("view _unsafe_view squeeze unsqueeze view_copy _reshape_alias squeeze_copy unsqueeze_copy")
def reshape(self: LabelledTensor, call: Call) -> LabelledTensor:
    return movement.reshape(self, call.shape)


@op("transpose transpose_copy")
def transpose(self: LabelledTensor, dim0: int, dim1: int) -> LabelledTensor:
    return movement.swap(self, dim0, dim1)


@op("t")
def reverse(self: LabelledTensor) -> LabelledTensor:
    return movement.permute(self, range(self.rank)[::-1])


@op("permute permute_copy")
def permute(self: LabelledTensor, dims: tuple[int, ...]) -> LabelledTensor:
    return movement.permute(self, dims)


@op("expand expand_copy")
def expand(self: LabelledTensor, call: Call) -> LabelledTensor:
    return movement.expand(self, call.shape)


@op("slice slice_copy")
def cut(self: LabelledTensor, dim: int, start: Any, end: Any, step: int, call: Call) -> LabelledTensor:
    dim = one_dim(dim, self.rank)
    if isinstance(start, Ref) or isinstance(end, Ref):
        return part_by_data(self, dim, call.shape)
    return movement.span(self, dim, *slice(start, end, step).indices(self.shape[dim]))


@op("select select_copy")
def select(self: LabelledTensor, dim: int, index: Any, call: Call) -> LabelledTensor:
    if isinstance(index, Ref):
        return part_by_data(self, one_dim(dim, self.rank), call.shape)
    return movement.select(self, dim, index)


@op("split split_with_sizes split_with_sizes_copy split_copy unsafe_split")
def split(
    self: LabelledTensor, dim: int, call: Call, split_size: Any = None, split_sizes: Any = None
) -> Results:
    """Sizes are read off the results, if they do not depend on the data."""
    dim = one_dim(dim, self.rank)
    if any(isinstance(size, Ref) for size in (*_many(split_size), *_many(split_sizes))):
        return tuple(part_by_data(self, dim, shape) for shape in call.shapes)
    ends = np.cumsum([shape[dim] for shape in call.shapes])
    starts = [0, *ends[:-1]]
    return _one_by_one(
        self, [partial(movement.span, self, dim, a, b) for a, b in zip(starts, ends, strict=True)]
    )


@op("unbind unbind_copy")
def unbind(self: LabelledTensor, dim: int) -> Results:
    return _one_by_one(self, [partial(movement.select, self, dim, i) for i in range(self.shape[dim])])


def _one_by_one(whole: LabelledTensor, cuts: Iterable[Callable[[], LabelledTensor]]) -> Results:
    """Results that are parts: what is recorded of each is about that result."""
    parts = []
    for number, cut in enumerate(cuts):
        whole.space.about(number)
        parts.append(cut())
    whole.space.about()
    return tuple(parts)


@op("cat")
def cat(tensors: tuple[LabelledTensor, ...], dim: int) -> LabelledTensor:
    return joining.concat(tensors, dim)


@op("stack")
def stack(tensors: tuple[LabelledTensor, ...], dim: int, call: Call) -> LabelledTensor:
    dim %= len(call.shape)
    return joining.concat([movement.insert(t, dim) for t in tensors], dim)


def _reordered(tensor: LabelledTensor, dim: int, order: Iterable[int]) -> LabelledTensor:
    return movement.take(tensor, dim, np.asarray(order))


@op("flip")
def flip(self: LabelledTensor, dims: tuple[int, ...]) -> LabelledTensor:
    for dim in dims_of(dims, self.rank):
        self = _reordered(self, dim, range(self.shape[dim])[::-1])
    return self


@op("roll")
def roll(self: LabelledTensor, shifts: Any, dims: Any) -> LabelledTensor:
    if dims == ():
        rolled = roll(movement.reshape(self, (prod(self.shape),)), shifts, 0)
        return movement.reshape(rolled, self.shape)
    for dim, shift in zip(_many(dims), _many(shifts), strict=True):
        self = _reordered(self, dim, np.roll(np.arange(self.shape[dim]), shift))
    return self


def _many(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@op("repeat")
def repeat(self: LabelledTensor, repeats: tuple[Any, ...], call: Call) -> LabelledTensor:
    self = movement.reshape(self, (1,) * (len(repeats) - self.rank) + self.shape)
    for dim, count in enumerate(repeats):
        if isinstance(count, Ref):
            self = part_by_data(self, dim, resized(self.shape, dim, call.shape[dim]))
        elif count != 1:
            self = movement.tile(self, dim, count, inner=False)
    return self


@op("constant_pad_nd pad")
def pad(self: LabelledTensor, pad: tuple[Any, ...], call: Call, mode: str = "constant") -> LabelledTensor:
    return _padded(self, pad, call, mode != "constant")


@op(" ".join(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def pad_by_position(self: LabelledTensor, padding: tuple[Any, ...], call: Call) -> LabelledTensor:
    return _padded(self, padding, call, True)


def _padded(tensor: LabelledTensor, widths: tuple[Any, ...], call: Call, ordered: bool) -> LabelledTensor:
    rank = tensor.rank
    tensor.space.use(tensor)
    for i in range(len(widths) // 2):
        dim, (before, after) = rank - 1 - i, widths[2 * i : 2 * i + 2]
        if isinstance(before, Ref) or isinstance(after, Ref):
            tensor = part_by_data(tensor, dim, resized(tensor.shape, dim, call.shape[dim]))
        else:
            tensor = joining.pad(tensor, dim, before, after, ordered)
    return tensor


@op("slice_scatter")
def slice_scatter(
    self: LabelledTensor, src: LabelledTensor, dim: int, start: Any, end: Any, step: int
) -> LabelledTensor:
    dim = one_dim(dim, self.rank)
    if isinstance(start, Ref) or isinstance(end, Ref):
        return written(self, dim, [src])
    chosen = range(self.shape[dim])[slice(start, end, step)]
    return joining.write(self, src, dim, np.asarray(chosen))


@op("select_scatter")
def select_scatter(self: LabelledTensor, src: LabelledTensor, dim: int, index: Any) -> LabelledTensor:
    dim = one_dim(dim, self.rank)
    part = movement.insert(src, dim)
    if isinstance(index, Ref):
        return written(self, dim, [part])
    return joining.write(self, part, dim, np.array([index % self.shape[dim]]))


@op("view_as_complex view_as_complex_copy")
def as_complex(self: LabelledTensor, call: Call) -> LabelledTensor:
    """(…, 2) → complex (…): the real and the imaginary part are distinguished."""
    return contract("... p -> ...", [placed(self, (self.rank - 1,), PARTS)], call.shape)


@op("view_as_real view_as_real_copy")
def as_real(self: LabelledTensor, call: Call) -> LabelledTensor:
    """Complex (…) → (…, 2): the real and the imaginary part are distinguished."""
    wide = movement.expand(movement.insert(self, self.rank), call.shape)
    return wide.with_positions((self.rank,), PARTS)
