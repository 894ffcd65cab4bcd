"""Movement: ops that re-arrange coordinates do to the label arrays what they do to the tensor.

No equation is needed. Where a part is cut out or several parts are joined, the parts are told apart by a
pinned point; where axes that are labelled separately are flattened, product points stand for the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.contraction import Lettered, Pool
from permgraph.axes.points import Labels
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Shape


def result(
    context: Context, value: Value, shape: Shape, arrays: Sequence[Array], table: object = None
) -> Value:
    """`value` after a move: the same kind of tensor, new shape and arrays."""
    return Value(shape, tuple(arrays), value.weight, table, context.node.name)


def permute(context: Context, value: Value, order: Sequence[int]) -> Value:
    """New dim i is old dim order[i]."""
    rank = len(value.shape)
    order = [o % rank for o in order]
    arrays = [a.moved(tuple(order.index(d) for d in a.dims)) for a in value.arrays]
    table = None if value.table is None else np.transpose(value.table, order)
    return result(context, value, tuple(value.shape[o] for o in order), arrays, table)


def swap(context: Context, value: Value, a: int, b: int) -> Value:
    order = list(range(len(value.shape)))
    order[a], order[b] = order[b], order[a]
    return permute(context, value, order)


def reshape(context: Context, value: Value, shape: Shape) -> Value:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: same elements in the same order."""
    segments = _segments(value.shape, shape)
    arrays = list(value.arrays)
    for old, _ in segments:
        if len(old) > 1:
            arrays = _flatten(context, value.shape, arrays, old)
    moved = []
    for array in arrays:
        dims: tuple[int, ...] = ()
        for old, new in segments:
            dims += new if set(old) & set(array.dims) else ()
        moved.append(replace(array, dims=dims, labels=array.labels.reshape([shape[d] for d in dims])))
    table = None if value.table is None else np.reshape(value.table, shape)
    return result(context, value, shape, moved, table)


def _segments(old: Shape, new: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
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


def _flatten(context: Context, shape: Shape, arrays: list[Array], dims: tuple[int, ...]) -> list[Array]:
    """Replace the arrays that touch any of `dims` by one that covers them all."""
    arrays = [part for a in arrays for part in _apart(context, a, dims)]
    touched = [a for a in arrays if set(a.dims) & set(dims)]
    if not touched:
        return arrays
    rest = [a for a in arrays if not set(a.dims) & set(dims)]
    union = {d for a in touched for d in a.dims} | set(dims)
    whole = [a for a in touched if set(a.dims) == union and not a.repeats]
    joined = whole[0] if whole else context.product(shape, tuple(sorted(union)), touched)
    return [*rest, joined]


def _apart(context: Context, array: Array, dims: tuple[int, ...]) -> list[Array]:
    """What is pinned jointly on some of `dims` and on others is pinned on either: no product need hold them together."""
    if not array.pinned or not set(array.dims) & set(dims) or set(array.dims) <= set(dims):
        return [array]
    parts = []
    for wanted in (set(array.dims) & set(dims), set(array.dims) - set(dims)):
        axes = tuple(i for i, d in enumerate(array.dims) if d in wanted)
        labels = context.block(array.labels, axes, True, array.repeats)
        parts.append(Array(tuple(array.dims[i] for i in axes), labels, pinned=True))
    return parts


def expand(context: Context, value: Value, shape: Shape) -> Value:
    """Broadcast from the right; the new or widened dims carry no array, any order of them is right."""
    lead = len(shape) - len(value.shape)
    arrays = [replace(a, dims=tuple(d + lead for d in a.dims)) for a in value.arrays]
    table = None if value.table is None else np.broadcast_to(value.table, shape)
    return result(context, value, shape, arrays, table)


def tile(context: Context, value: Value, dim: int, count: int, inner: bool) -> Value:
    """A dim repeated `count` times: each element in place (inner), or the whole run again and again."""
    shape, n = value.shape, value.shape[dim]
    wide = (*shape[:dim], *((n, 1) if inner else (1, n)), *shape[dim + 1 :])
    grown = (*shape[:dim], *((n, count) if inner else (count, n)), *shape[dim + 1 :])
    value = expand(context, reshape(context, value, wide), grown)
    return reshape(context, value, (*shape[:dim], n * count, *shape[dim + 1 :]))


def take(context: Context, value: Value, dim: int, chosen: Labels) -> Value:
    """The coordinates `chosen` (one-dimensional) of a dim, in that order: slice, flip, roll, index by a table."""
    dim %= len(value.shape)
    size = value.shape[dim]
    shape = (*value.shape[:dim], int(chosen.size), *value.shape[dim + 1 :])
    table = None if value.table is None else np.take(value.table, chosen, axis=dim)
    distinct = np.unique(chosen).size
    arrays = []
    for array in value.arrays:
        if dim not in array.dims:
            arrays.append(array)
            continue
        axis = array.dims.index(dim)
        labels = array.labels.take(chosen, axis=axis)
        if value.weight and not array.pinned:
            context.read(labels, np.delete(array.labels, chosen, axis=axis))
        if distinct < chosen.size:  # copies of one coordinate: new points under the old, any order of copies
            fresh = context.points.fresh(labels.shape)
            context.points.link(fresh, labels)
            array, labels = replace(array, pinned=False), fresh
        elif distinct < size and not array.pinned:
            tell_apart(context, labels)
        arrays.append(_narrow(replace(array, labels=labels), dim))
    return result(context, value, shape, [a for a in arrays if a.dims], table)


def _narrow(array: Array, dim: int) -> Array:
    """Drop a dim whose size became 1."""
    axis = array.dims.index(dim)
    if array.labels.shape[axis] != 1:
        return array
    dims = tuple(d for d in array.dims if d != dim)
    return replace(array, dims=dims, labels=array.labels.squeeze(axis))


def tell_apart(context: Context, labels: Labels) -> None:
    """These points form a part of their own: linked to a pinned point."""
    if labels.size:
        context.points.link(labels, context.fresh_pinned((1,), "part of an axis").reshape((1,) * labels.ndim))


def drop(context: Context, value: Value, dim: int) -> Value:
    """Remove a dim of size 1."""
    dim %= len(value.shape)
    return reshape(context, value, (*value.shape[:dim], *value.shape[dim + 1 :]))


def insert(context: Context, value: Value, dim: int) -> Value:
    """Add a dim of size 1."""
    dim %= len(value.shape) + 1
    return reshape(context, value, (*value.shape[:dim], 1, *value.shape[dim:]))


def select(context: Context, value: Value, dim: int, index: int) -> Value:
    index %= value.shape[dim]
    return drop(context, take(context, value, dim, np.array([index])), dim)


def span(context: Context, value: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
    """value[..., start:stop:step, ...] along dim, bounds already inside the tensor."""
    return take(context, value, dim, np.arange(start, stop, step))


def concat(context: Context, values: Sequence[Value], dim: int) -> Value:
    """Parts one after another along a dim; each part is told apart, other dims are tied."""
    values = [v for v in values if v.shape != (0,)]
    dim %= len(values[0].shape)
    total = sum(v.shape[dim] for v in values)
    shape = (*values[0].shape[:dim], total, *values[0].shape[dim + 1 :])
    if len(values) == 1:
        return result(context, values[0], shape, values[0].arrays)
    joint = tuple(sorted({dim} | {d for v in values for a in v.on(dim) for d in a.dims}))
    pool = Pool(context)
    for owner, value in enumerate(values):
        for array in value.arrays:
            if dim not in array.dims:
                letters = tuple(f"{d:03d}" for d in array.dims)
                pool.add(Lettered(letters, array.labels, array.pinned, array.repeats, {owner}))
    pool.agree()
    rest = [
        Array(tuple(int(x) for x in key), a.labels, a.pinned, a.repeats)
        for key, a in pool.arrays.items()
        if not {int(x) for x in key} < set(joint)
    ]
    parts = _copies(context, [_part(context, v, joint) for v in values])
    pinned = all(p.pinned for p in parts)
    for part in parts:
        if not part.pinned:
            tell_apart(context, part.labels)
    labels = np.concatenate([p.labels for p in parts], axis=joint.index(dim))
    repeats = any(p.repeats for p in parts) or (not pinned and np.unique(labels).size < labels.size)
    made = result(context, values[0], shape, [*rest, Array(joint, labels, pinned, repeats)])
    return replace(made, weight=all(v.weight for v in values))


def _copies(context: Context, parts: list[Array]) -> list[Array]:
    """Each part gets points of its own under those it has.

    Two parts may hold one point, now or once everything is tied, and no two coordinates of an axis may be one:
    what is made of them further on would look exchangeable.
    """
    alone = sum(not p.pinned for p in parts) < 2
    copies = []
    for part in parts:
        if part.pinned:
            copies.append(replace(part, labels=context.fresh_pinned(part.labels.shape, "ordered axis")))
            continue
        if alone:
            copies.append(part)
            continue
        unique, which = np.unique(part.labels, return_inverse=True)
        fresh = context.points.fresh(unique.shape)
        context.points.link(fresh, unique)
        copies.append(replace(part, labels=fresh[which.reshape(part.labels.shape)]))
    return copies


def _part(context: Context, value: Value, joint: tuple[int, ...]) -> Array:
    """One array of a part over all the joint dims."""
    inside = [a for a in value.arrays if set(a.dims) <= set(joint)]
    for array in inside:
        if array.dims == joint:
            return array
    if not inside:
        return Array(joint, context.points.fresh(tuple(value.shape[d] for d in joint)))
    return context.product(value.shape, joint, inside)


def pad(context: Context, value: Value, dim: int, before: int, after: int, ordered: bool = False) -> Value:
    """Constant padding of one dim (negative: cropping). The padded slots look alike and are told apart.

    `ordered` is for reflect, replicate and circular padding, whose slots depend on positions.
    """
    size = value.shape[dim]
    if before < 0 or after < 0:
        start, stop = max(0, -before), size - max(0, -after)
        value, before, after = span(context, value, dim, start, stop), max(0, before), max(0, after)
        size = value.shape[dim]
    if before == after == 0:
        return value
    shape = (*value.shape[:dim], before + size + after, *value.shape[dim + 1 :])
    touching = value.on(dim)
    rest = [a for a in value.arrays if dim not in a.dims]
    if ordered or (all(a.pinned and a.dims == (dim,) for a in touching) and touching):
        context.pin(touching, "ordered axis")
        return result(context, value, shape, [*rest, *context.positions(shape, (dim,), "ordered axis")])
    touching = touching or [Array((dim,), context.points.fresh((size,)))]
    arrays = []
    for array in touching:
        axis = array.dims.index(dim)
        tell_apart(context, array.labels)
        sizes = [*array.labels.shape]
        sizes[axis] = before + after
        fresh = context.points.fresh(tuple(sizes))
        left, right = np.split(fresh, [before], axis=axis)
        labels = np.concatenate([left, array.labels, right], axis=axis)
        arrays.append(_narrow(replace(array, labels=labels, pinned=False), dim))
    return result(context, value, shape, [*rest, *(a for a in arrays if a.dims)])
