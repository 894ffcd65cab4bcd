"""Pairs: several dims addressed at once by constant tables, as the triangle of a matrix is.

Such dims are merged into one, whose coordinates are pairs (or more) of theirs, and the table says which are taken. Of
a matrix that is its own mirror image an element stands for an unordered pair: where no pair is taken twice, it does not
matter on which side of the diagonal it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import permute, reshape, take
from permgraph.axes.points import Labels

_LARGEST = 2**22  # elements of the merged dims that get a label each


def take_jointly(tensor: LabelledTensor, dims: Sequence[int], at: Sequence[Labels]) -> LabelledTensor | None:
    """The elements at (at[0][n], at[1][n], …) of `dims` for every n, on one dim in place of the first of `dims`.

    `at` are tables of one dim. None where the merged dims have no labels that could move, or too many.
    """
    touched = [a for a in tensor.arrays if set(a.dims) & set(dims)]
    union = {d for a in touched for d in a.dims} | set(dims)
    if all(a.pinned for a in touched) or prod(tensor.shape[d] for d in union) > _LARGEST:
        return None
    tensor.space.use(tensor)
    paired = _paired(tensor, dims, at) or tensor
    first, rest = min(dims), [d for d in range(tensor.rank) if d not in dims]
    before = sum(d < first for d in rest)
    turned = permute(paired, [*rest[:before], *dims, *rest[before:]])
    sizes = tuple(tensor.shape[d] for d in dims)
    shape = (*turned.shape[:before], prod(sizes), *turned.shape[before + len(dims) :])
    return take(reshape(turned, shape), before, np.ravel_multi_index(tuple(at), sizes))


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
