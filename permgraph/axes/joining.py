"""Joining: concatenation and padding. The parts of the new dim are distinguished, each by a pinned point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.contraction import settled, without_singles
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import expand, moved, narrow, resized, span, take
from permgraph.axes.points import Labels
from permgraph.axes.pool import NamedArray, Pool
from permgraph.axes.workspace import ORDERED, Workspace


def concat(tensors: Sequence[LabelledTensor], dim: int) -> LabelledTensor:
    """Parts one after another along a dim; each part is distinguished.

    Other dims are tied, except where every part is one coordinate (a stack): their orders may differ from part to
    part, so they are labelled jointly with the new dim.
    """
    for tensor in tensors:
        tensor.space.use(tensor)
    numbers = [i for i, t in enumerate(tensors) if t.shape != (0,)]
    tensors = [settled(tensors[i]) for i in numbers]
    first = tensors[0]
    dim %= first.rank
    shape = resized(first.shape, dim, sum(t.shape[dim] for t in tensors))
    if len(tensors) == 1:
        return moved(first, shape, first.arrays)
    joints = _differing(tensors, dim) if all(t.shape[dim] == 1 for t in tensors) else []
    joints = joints or [tuple(sorted({dim} | {d for t in tensors for a in t.on(dim) for d in a.dims}))]
    arrays = [_joined(tensors, dim, joint, numbers) for joint in joints]
    result = moved(first, shape, [*_beside(tensors, dim, joints), *arrays])
    tables = [t.table for t in tensors]
    table = None if any(t is None for t in tables) else np.concatenate(tables, dim)
    return replace(result, weight=all(t.weight for t in tensors), table=table)


def _differing(tensors: Sequence[LabelledTensor], dim: int) -> list[tuple[int, ...]]:
    """Sets of dims, each with `dim`, that not all parts label with the same points."""
    sets: list[set[int]] = []
    for dims in {a.dims for t in tensors for a in t.arrays}:
        mine = [next((a for a in t.arrays if a.dims == dims), None) for t in tensors]
        pinned = all(a is None or a.pinned for a in mine)
        if not pinned and not all(a and mine[0] and np.array_equal(a.labels, mine[0].labels) for a in mine):
            met = [x for x in sets if x & set(dims)]
            sets = [x for x in sets if not x & set(dims)] + [set(dims).union(*met)]
    return sorted(tuple(sorted({dim} | x)) for x in sets)


def _joined(
    tensors: Sequence[LabelledTensor], dim: int, joint: tuple[int, ...], numbers: Sequence[int]
) -> LabelArray:
    """One array of all parts over the joint dims; `numbers` are those of the operands."""
    space, parts = tensors[0].space, []
    for number, tensor in zip(numbers, tensors, strict=True):
        space.about(number)
        parts.append(_part(tensor, joint))
    together = _put_together(parts, joint.index(dim))
    if together is not None:
        space.about()
        return together
    parts = [replace(p, part=None) for p in _copies(parts, tensors[0], numbers)]
    for number, part in zip(numbers, parts, strict=True):
        space.about(number)
        if not part.pinned:
            space.distinguish(part.labels)
    space.about()
    labels = np.concatenate([p.labels for p in parts], axis=joint.index(dim))
    pinned = all(p.pinned for p in parts)
    repeats = any(p.repeats for p in parts) or (not pinned and np.unique(labels).size < labels.size)
    return LabelArray(joint, labels, pinned, repeats)


def _put_together(parts: Sequence[LabelArray], axis: int) -> LabelArray | None:
    """Parts of one array that nothing used in between, none of them twice: a part again, or the whole in a new order."""
    whole = parts[0].part
    if whole is None or not all(whole.alike(p.part) for p in parts):
        return None
    labels = np.concatenate([p.labels for p in parts], axis=axis)
    if np.unique(labels).size < labels.size:
        return None
    return replace(parts[0], labels=labels, part=whole if labels.size < whole.labels.size else None)


def _beside(
    tensors: Sequence[LabelledTensor], dim: int, joints: Sequence[tuple[int, ...]]
) -> list[LabelArray]:
    """The arrays that do not touch the dim and are in no joint set, tied between the parts."""
    pool = Pool(tensors[0].space)
    for owner, tensor in enumerate(tensors):
        for array in tensor.arrays:
            if dim not in array.dims and not any(set(array.dims) < set(joint) for joint in joints):
                array = tensor.space.used_part(array)
                names = tuple(f"{d:03d}" for d in array.dims)
                pool.add(NamedArray(names, array.labels, array.pinned, array.repeats, {owner}))
    pool.agree()
    return [
        LabelArray(tuple(int(x) for x in names), a.labels, a.pinned, a.repeats)
        for names, a in pool.arrays.items()
    ]


def _copies(parts: list[LabelArray], of: LabelledTensor, numbers: Sequence[int]) -> list[LabelArray]:
    """Each part gets points of its own under those it has.

    Two parts may hold one point, now or once everything is tied, and no two coordinates of an axis may be one:
    what is made of them further on would look exchangeable.
    """
    space, alone = of.space, sum(not p.pinned for p in parts) < 2
    copies = []
    for number, part in zip(numbers, parts, strict=True):
        space.about(number)
        if part.pinned:
            copies.append(replace(part, labels=space.fresh_pinned(part.labels.shape, ORDERED)))
            continue
        if alone:
            copies.append(part)
            continue
        unique, which = np.unique(part.labels, return_inverse=True)
        fresh = space.points.fresh(unique.shape)
        space.points.link(fresh, unique)
        copies.append(replace(part, labels=fresh[which.reshape(part.labels.shape)]))
    return copies


def _part(tensor: LabelledTensor, joint: tuple[int, ...]) -> LabelArray:
    """One array of a part over all the joint dims."""
    inside = [a for a in tensor.arrays if set(a.dims) <= set(joint)]
    sizes = tuple(tensor.shape[d] for d in joint)
    if len(inside) > 1 or prod(sizes) > 1:
        inside = [a for a in without_singles(tensor).arrays if set(a.dims) <= set(joint)]
    for array in inside:
        if array.labels.size == np.prod(sizes):
            return replace(array, dims=joint, labels=array.labels.reshape(sizes))
    if not inside:
        return LabelArray(joint, tensor.space.points.fresh(sizes))
    return tensor.space.product(tensor.shape, joint, inside)


def write(base: LabelledTensor, part: LabelledTensor, dim: int, chosen: Labels) -> LabelledTensor:
    """`base` with the coordinates `chosen` of a dim replaced by `part`."""
    part = expand(part, resized(base.shape, dim, chosen.size))
    rest = np.setdiff1d(np.arange(base.shape[dim]), chosen)
    base.space.use(base)  # overwritten as a whole, it has no say
    joined = concat([take(base, dim, rest), part] if rest.size else [part], dim)
    return take(joined, dim, np.argsort(np.concatenate([rest, chosen])))


def pad(tensor: LabelledTensor, dim: int, before: int, after: int, ordered: bool = False) -> LabelledTensor:
    """Constant padding of one dim (negative: cropping). The padded slots look alike and are distinguished.

    `ordered` is for reflect, replicate and circular padding, whose slots depend on positions.
    """
    if before < 0 or after < 0:
        kept = span(tensor, dim, max(0, -before), tensor.shape[dim] - max(0, -after))
        return pad(kept, dim, max(0, before), max(0, after), ordered)
    if before == after == 0:
        return tensor
    shape = resized(tensor.shape, dim, before + tensor.shape[dim] + after)
    space = tensor.space
    tensor = settled(tensor)
    tensor = replace(tensor, arrays=tuple(map(space.used_part, tensor.arrays)))
    touching, rest = tensor.on(dim), [a for a in tensor.arrays if dim not in a.dims]
    # what is padded to a single position is a matter of the example's size
    fixed = all(a.pinned and a.dims == (dim,) for a in touching) if touching else tensor.shape[dim] == 1
    if ordered or fixed:
        space.pin(touching, ORDERED)
        return moved(tensor, shape, [*rest, *space.positions(shape, (dim,), ORDERED)])
    touching = touching or [LabelArray((dim,), space.points.fresh((tensor.shape[dim],)))]
    padded = [narrow(_padded(space, a, dim, before, after), dim) for a in touching]
    return moved(tensor, shape, [*rest, *(a for a in padded if a.dims)])


def _padded(space: Workspace, array: LabelArray, dim: int, before: int, after: int) -> LabelArray:
    axis = array.dims.index(dim)
    space.distinguish(array.labels)
    fresh = space.points.fresh(resized(array.labels.shape, axis, before + after))
    left, right = np.split(fresh, [before], axis=axis)
    labels = np.concatenate([left, array.labels, right], axis=axis)
    return replace(array, labels=labels, pinned=False)
