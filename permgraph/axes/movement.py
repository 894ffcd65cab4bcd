"""Movement: ops that re-arrange coordinates do to the label arrays what they do to the tensor.

No equation is needed. Where a part is cut out and used, or several parts are joined, the parts are distinguished by
a pinned point; where axes that are labelled separately are flattened, product points stand for the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.choice import moved_choice, places_after, places_merged
from permgraph.axes.contraction import settled
from permgraph.axes.label_array import LabelArray, Part
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.points import Labels
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Shape

Segment = tuple[tuple[int, ...], tuple[int, ...]]  # a run of dims before, and after


def moved(
    tensor: LabelledTensor, shape: Shape, arrays: Sequence[LabelArray], table: object = None
) -> LabelledTensor:
    """`tensor` after a move: the same kind of tensor, new shape and arrays."""
    tensor.space.use(tensor)
    return LabelledTensor(tensor.space, shape, tuple(arrays), tensor.weight, table)


def permute(tensor: LabelledTensor, order: Sequence[int]) -> LabelledTensor:
    """New dim i is old dim order[i]."""
    order = [o % tensor.rank for o in order]
    if tensor.chosen is not None:
        at, values = (
            [order.index(d) for d in tensor.chosen.at],
            permute(tensor.chosen.values, [*order, tensor.rank]),
        )
        return moved_choice(tensor, tuple(tensor.shape[o] for o in order), values, at)
    arrays = [
        a if a.part is None else replace(a, part=a.part.after("permute", tuple(order))) for a in tensor.arrays
    ]
    arrays = [a.on(tuple(order.index(d) for d in a.dims)) for a in arrays]
    table = None if tensor.table is None else np.transpose(tensor.table, order)
    return moved(tensor, tuple(tensor.shape[o] for o in order), arrays, table)


def swap(tensor: LabelledTensor, a: int, b: int) -> LabelledTensor:
    order = list(range(tensor.rank))
    if order:
        order[a], order[b] = order[b], order[a]
    return permute(tensor, order)


def reshape(tensor: LabelledTensor, shape: Shape) -> LabelledTensor:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: same elements in the same order."""
    if prod(tensor.shape) != prod(shape) or 0 in shape:
        raise UnsupportedForm(
            f"a tensor {tensor.shape} seen as {shape}, whose size the data decide or which is empty"
        )
    segments = _segments(tensor.shape, shape)
    if tensor.chosen is not None:
        return _reshaped_choice(tensor, shape, segments)
    arrays = list(tensor.arrays)
    for old, _ in segments:
        if len(old) > 1:
            arrays = _flatten(tensor.space, tensor.shape, arrays, old)
    placed = []
    for array in arrays:
        if any(len(o) + len(n) > 2 for o, n in segments if not set(o) & set(array.dims)):
            array = tensor.space.used_part(array)
        dims: tuple[int, ...] = ()
        for old, new in segments:
            dims += new if set(old) & set(array.dims) else ()
        placed.append(replace(array, dims=dims, labels=array.labels.reshape([shape[d] for d in dims])))
    table = None if tensor.table is None else np.reshape(tensor.table, shape)
    merges = any(len(old) > 1 for old, _ in segments)
    source = (tensor if merges else None) if tensor.source is None else tensor.source
    return replace(moved(tensor, shape, placed, table), source=source)


def _reshaped_choice(tensor: LabelledTensor, shape: Shape, segments: list[Segment]) -> LabelledTensor:
    assert tensor.chosen is not None
    at: tuple[int, ...] | None = places_after(tensor.chosen.at, segments)
    marks: list[object] = []
    if at is None and (merged := places_merged(tensor.chosen.at, segments)) is not None:
        at, *marks = merged
    if at is None:
        return reshape(settled(tensor), shape)
    values = tensor.chosen.values
    return moved_choice(tensor, shape, reshape(values, (*shape, values.shape[-1])), at, *marks)


def _segments(old: Shape, new: Shape) -> list[Segment]:
    """Smallest runs of old dims and new dims that hold the same elements; dims of size 1 are left out."""
    left = [d for d, n in enumerate(old) if n != 1]
    right = [d for d, n in enumerate(new) if n != 1]
    segments = []
    while left or right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (x := prod(old[d] for d in a)) != (y := prod(new[d] for d in b)):
            if x < y:
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        segments.append((tuple(a), tuple(b)))
    return segments


def merged(old: Shape, new: Shape, dim: int) -> tuple[int, ...] | None:
    """The dims that a reshape merged into `dim`, where it did nothing else (but for dims of size 1)."""
    runs = {after: before for before, after in _segments(old, new)}
    return runs[(dim,)] if len(runs.get((dim,), ())) > 1 and all(len(after) == 1 for after in runs) else None


def _flatten(
    space: Workspace, shape: Shape, arrays: list[LabelArray], dims: tuple[int, ...]
) -> list[LabelArray]:
    """Replace the arrays that touch any of `dims` by one that covers them all."""
    arrays = [part for a in arrays for part in _apart(space, a, dims)]
    touched = [a for a in arrays if set(a.dims) & set(dims)]
    if not touched:
        return arrays
    rest = [a for a in arrays if not set(a.dims) & set(dims)]
    union = {d for a in touched for d in a.dims} | set(dims)
    whole = [a for a in touched if set(a.dims) == union and not a.repeats]
    if whole:
        return [*rest, whole[0]]
    return [*rest, space.product(shape, tuple(sorted(union)), [space.used_part(a) for a in touched], dims)]


def _apart(space: Workspace, array: LabelArray, dims: tuple[int, ...]) -> list[LabelArray]:
    """What is pinned jointly on some of `dims` and on others is pinned on either: no product need hold them together."""
    if not array.pinned or not set(array.dims) & set(dims) or set(array.dims) <= set(dims):
        return [array]
    parts = []
    for wanted in (set(array.dims) & set(dims), set(array.dims) - set(dims)):
        axes = tuple(i for i, d in enumerate(array.dims) if d in wanted)
        labels = space.block(array.labels, axes, True, array.repeats)
        parts.append(LabelArray(tuple(array.dims[i] for i in axes), labels, pinned=True))
    return parts


def expand(tensor: LabelledTensor, shape: Shape) -> LabelledTensor:
    """Broadcast from the right; the new or widened dims carry no array, any order of them is right."""
    lead = len(shape) - tensor.rank
    if tensor.chosen is not None:
        values = tensor.chosen.values
        wide = reshape(values, (*(1,) * lead, *values.shape))
        at = [d + lead for d in tensor.chosen.at]
        return moved_choice(tensor, shape, expand(wide, (*shape, values.shape[-1])), at)
    arrays = [replace(a, dims=tuple(d + lead for d in a.dims)) for a in tensor.arrays]
    table = None if tensor.table is None else np.broadcast_to(tensor.table, shape)
    return moved(tensor, shape, arrays, table)


def tile(tensor: LabelledTensor, dim: int, count: int, inner: bool) -> LabelledTensor:
    """A dim repeated `count` times: each element in place (inner), or the whole run again and again."""
    before, n, after = tensor.shape[:dim], tensor.shape[dim], tensor.shape[dim + 1 :]
    wide = reshape(tensor, (*before, *((n, 1) if inner else (1, n)), *after))
    grown = expand(wide, (*before, *((n, count) if inner else (count, n)), *after))
    return reshape(grown, (*before, n * count, *after))


def take(tensor: LabelledTensor, dim: int, chosen: Labels) -> LabelledTensor:
    """The coordinates `chosen` (one-dimensional) of a dim, in that order: slice, flip, roll, index by a table."""
    dim %= tensor.rank
    shape = resized(tensor.shape, dim, int(chosen.size))
    if (choice := tensor.chosen) is not None:
        mark = (("take", choice.at.index(dim), chosen.tobytes()),) if dim in choice.at else ()
        return moved_choice(tensor, shape, take(choice.values, dim, chosen), choice.at, *mark)
    table = None if tensor.table is None else np.take(tensor.table, chosen, axis=dim)
    arrays = [
        _taken(tensor, a, dim, chosen) if dim in a.dims else _aside(a, dim, chosen) for a in tensor.arrays
    ]
    return moved(tensor, shape, [a for a in arrays if a.dims or a.part], table)


def _taken(tensor: LabelledTensor, array: LabelArray, dim: int, chosen: Labels) -> LabelArray:
    space, axis, distinct = tensor.space, array.dims.index(dim), np.unique(chosen).size
    labels = array.labels.take(chosen, axis=axis)
    space.points.cuts.append((labels.ravel(), space.points.at))
    if tensor.weight and not array.pinned:
        space.read(labels, np.delete(array.labels, chosen, axis=axis))
    if distinct < chosen.size:  # copies of one coordinate: new points under the old, any order of copies
        fresh = space.points.fresh(labels.shape)
        space.points.link(fresh, labels)
        array, labels = replace(space.used_part(array), pinned=False), fresh
    elif distinct < tensor.shape[dim] and not array.pinned:
        array = replace(array, part=array.part or Part(array.labels, tensor.arrays))
    return narrow(replace(array, labels=labels), dim)


def _aside(array: LabelArray, dim: int, chosen: Labels) -> LabelArray:
    """An array that does not touch the dim along which coordinates were chosen."""
    return array if array.part is None else replace(array, part=array.part.after(dim, chosen.tobytes()))


def narrow(array: LabelArray, dim: int) -> LabelArray:
    """Drop a dim whose size became 1."""
    axis = array.dims.index(dim)
    if array.labels.shape[axis] != 1:
        return array
    dims = tuple(d for d in array.dims if d != dim)
    return replace(array, dims=dims, labels=array.labels.squeeze(axis))


def resized(shape: Shape, dim: int, *sizes: int) -> Shape:
    """A shape with other dims (none, one, several) in place of one."""
    return (*shape[:dim], *sizes, *shape[dim + 1 :])


def insert(tensor: LabelledTensor, dim: int) -> LabelledTensor:
    """Add a dim of size 1."""
    dim %= tensor.rank + 1
    return reshape(tensor, (*tensor.shape[:dim], 1, *tensor.shape[dim:]))


def select(tensor: LabelledTensor, dim: int, index: int) -> LabelledTensor:
    dim %= tensor.rank
    one = take(tensor, dim, np.array([index % tensor.shape[dim]]))
    return reshape(one, resized(one.shape, dim))


def span(tensor: LabelledTensor, dim: int, start: int, stop: int, step: int = 1) -> LabelledTensor:
    """tensor[..., start:stop:step, ...] along dim, bounds already inside the tensor."""
    return take(tensor, dim, np.arange(start, stop, step))
