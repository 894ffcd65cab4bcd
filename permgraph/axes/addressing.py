"""Addressing: several dims read or written at once at places that constant tables name, as the triangle of a matrix is.

Such dims are merged into one, whose coordinates are pairs (or more) of theirs, and the tables say which are meant. Of
a matrix that is its own mirror image an element stands for an unordered pair: where no pair is read twice, it does not
matter on which side of the diagonal it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.joining import write
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import moved, permute, reshape, resized, take
from permgraph.axes.points import Labels
from permgraph.axes.workspace import ORDERED

_LARGEST = 2**22  # elements of the merged dims that get a label each


def take_jointly(tensor: LabelledTensor, dims: Sequence[int], at: Sequence[Labels]) -> LabelledTensor | None:
    """The elements at (at[0][n], at[1][n], …) of `dims` for every n, on one dim in place of the first of `dims`.

    `at` are tables of one dim. None where the merged dims have no labels that could move, or too many.
    """
    if not _moves(tensor, dims):
        return None
    tensor.space.use(tensor)
    flat, dim = _merged(_paired(tensor, dims, at) or tensor, dims)
    return take(flat, dim, np.ravel_multi_index(tuple(at), [tensor.shape[d] for d in dims]))


def put_jointly(
    base: LabelledTensor, values: LabelledTensor, dims: Sequence[int], at: Sequence[Labels], added: bool
) -> LabelledTensor | None:
    """`base` with `values` in those places, or, if `added`, zeros with their sum in each.

    `values` has one dim for the places, where `take_jointly` has it. None where nothing there could move, or where one
    of several values for a place wins.
    """
    sizes = [base.shape[d] for d in dims]
    chosen = np.ravel_multi_index(tuple(at), sizes)
    rest = [d for d in range(base.rank) if d not in dims]
    dim = sum(d < min(dims) for d in rest)
    free = any(not a.pinned for a in values.on(dim)) or (not added and _moves(base, dims))
    if not free or _size(base, dims) > _LARGEST or (not added and np.unique(chosen).size < chosen.size):
        return None
    done = (
        _summed(values, dim, chosen, prod(sizes))
        if added
        else write(_merged(base, dims)[0], values, dim, chosen)
    )
    order = [*rest[:dim], *dims, *rest[dim:]]
    return permute(
        reshape(done, tuple(base.shape[d] for d in order)), [order.index(d) for d in range(base.rank)]
    )


def _summed(values: LabelledTensor, dim: int, at: Labels, size: int) -> LabelledTensor:
    """The sums of the values at each of `size` places: blocks, each of the coordinates that are summed there."""
    space = values.space
    arrays = []
    for array in map(space.used_part, values.arrays):
        if dim in array.dims:
            axis = array.dims.index(dim)
            shape = resized(array.labels.shape, axis, size)
            labels = space.fresh_pinned(shape, ORDERED) if array.pinned else space.points.fresh(shape)
            if not array.pinned:
                space.points.link(labels.take(at, axis=axis), array.labels)
            array = LabelArray(array.dims, labels, array.pinned)
        arrays.append(array)
    return moved(values, resized(values.shape, dim, size), arrays)


def _moves(tensor: LabelledTensor, dims: Sequence[int]) -> bool:
    """Whether anything on these dims is free to move, and not too large to be labelled one by one."""
    touched = [a for a in tensor.arrays if set(a.dims) & set(dims)]
    return any(not a.pinned for a in touched) and _size(tensor, dims) <= _LARGEST


def _size(tensor: LabelledTensor, dims: Sequence[int]) -> int:
    """How many labels the merged dims have."""
    union = {d for a in tensor.arrays if set(a.dims) & set(dims) for d in a.dims} | set(dims)
    return prod(tensor.shape[d] for d in union)


def _merged(tensor: LabelledTensor, dims: Sequence[int]) -> tuple[LabelledTensor, int]:
    """The dims merged into one in place of the first, and which one that is."""
    rest = [d for d in range(tensor.rank) if d not in dims]
    at = sum(d < min(dims) for d in rest)
    turned = permute(tensor, [*rest[:at], *dims, *rest[at:]])
    size = prod(tensor.shape[d] for d in dims)
    return reshape(turned, (*turned.shape[:at], size, *turned.shape[at + len(dims) :])), at


def _paired(tensor: LabelledTensor, dims: Sequence[int], at: Sequence[Labels]) -> LabelledTensor | None:
    """The tensor with labels of unordered pairs, where two of the dims mirror each other and no pair is taken twice."""
    for x in tensor.arrays:
        for y in tensor.arrays:
            a, b = set(x.dims) - set(y.dims), set(y.dims) - set(x.dims)
            if len(a) == len(b) == 1 and a | b <= set(dims) and not x.pinned:
                found = _mirrored(tensor, x, y, (a.pop(), b.pop()), dims, at)
                if found is not None:
                    return found
    return None


def _mirrored(
    tensor: LabelledTensor,
    x: LabelArray,
    y: LabelArray,
    ends: tuple[int, int],
    dims: Sequence[int],
    at: Sequence[Labels],
) -> LabelledTensor | None:
    a, b = ends
    image = x.on(tuple(b if d == a else d for d in x.dims))
    others = [z for z in tensor.arrays if z is not x and z is not y]
    if (
        image.dims != y.dims
        or image.labels.shape != y.labels.shape
        or any(set(z.dims) & set(ends) for z in others)
    ):
        return None
    i, j = at[dims.index(a)], at[dims.index(b)]
    rest = [t for d, t in zip(dims, at, strict=True) if d not in ends]
    rows = np.stack([np.minimum(i, j), np.maximum(i, j), *rest])
    if np.unique(rows, axis=1).shape[1] < i.size or not tensor.space.mirrored(tensor.name, a, b):
        return None
    if not tensor.space.points.are_tied(image.labels, y.labels):
        return None
    touched = [z for z in others if set(z.dims) & set(dims)]
    joint = tuple(sorted({d for z in (x, y, *touched) for d in z.dims} | set(dims)))
    sizes = tuple(tensor.shape[d] for d in joint)
    sources = [
        tensor.space.used_part(z).labels.reshape([tensor.shape[d] if d in z.dims else 1 for d in joint])
        for z in (x, *touched)
    ]
    taken = np.zeros(sizes, dtype=bool)
    taken[tuple(at[dims.index(d)] if d in dims else slice(None) for d in joint)] = True
    pairs = tensor.space.pairs(sizes, (joint.index(a), joint.index(b)), taken, sources)
    return replace(tensor, arrays=(*(z for z in others if z not in touched), LabelArray(joint, pairs)))
