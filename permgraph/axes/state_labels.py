"""State labels: the first labels of parameters and buffers. Some axes have an order in each slice or block.

Integers and booleans that only meet activations element by element (keep-masks, counts, quantised weights before they
are scaled) move with their channels, as floating-point state does. Any other integers say where something is: orders,
tables, indices. Their values are part of the network, and they are constants.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Node, StateTensor, Trace

_INTEGERS = ("int", "uint", "bool")
_COPIES = ("aten.clone", "aten._to_copy", "aten.to.", "aten.alias", "aten.detach")


class Rows(NamedTuple):
    """The axis along which lie slices that have an order each; or so many blocks of neighbours that have one in common."""

    axis: int
    blocks: int = 0


def label_state(space: Workspace, tensor: StateTensor, rows: dict[int, Rows]) -> LabelledTensor:
    """Fresh points for every axis. `rows` says which axes are ordered separately in each slice or block along another."""
    shape = tensor.shape
    arrays = [
        LabelArray((axis,), space.points.fresh((size,), tensor.name, axis))
        for axis, size in enumerate(shape)
        if size > 1 and axis not in rows
    ]
    for axis, (along, blocks) in rows.items():
        outer = next((a for a in arrays if a.dims == (along,)), None)
        if not blocks:
            assert outer is not None
            arrays.append(_in_slices(space, tensor, axis, along, outer))
        elif shape[axis] > 1:
            arrays.append(_in_blocks(space, tensor, axis, blocks, outer))
    return LabelledTensor(space, shape, tuple(arrays), weight=True)


def constant_arrays(space: Workspace, table: NDArray[np.generic]) -> tuple[LabelArray, ...]:
    """The labels of a constant: along every axis, coordinates whose slices are equal may change places.

    Rows and columns of a matrix that knows only its diagonal are re-ordered together.
    """
    axes = [axis for axis, n in enumerate(table.shape) if n > 1]
    square = table.squeeze()
    if len(axes) == 2 and square.shape[0] == square.shape[1] and _of_diagonal(square):
        points = space.points.fresh(square.shape[:1])
        return tuple(LabelArray((axis,), points) for axis in axes)
    return tuple(_equal_slices(space, table, axis) for axis in axes)


def _of_diagonal(square: NDArray[np.generic]) -> bool:
    inside = np.eye(len(square), dtype=bool)
    on, off = square[inside], square[~inside]
    return bool((on == on[0]).all() and (off == off[0]).all())


def _equal_slices(space: Workspace, table: NDArray[np.generic], axis: int) -> LabelArray:
    """The labels of one axis."""
    slices = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    _, which, count = np.unique(slices, axis=0, return_inverse=True, return_counts=True)
    if count.max() == 1:
        return LabelArray((axis,), space.fresh_pinned((table.shape[axis],), "constant"), pinned=True)
    labels = space.points.fresh((table.shape[axis],))
    space.points.pin(labels[count[which.reshape(-1)] == 1], "constant")
    for value in np.flatnonzero(count > 1):
        space.distinguish(labels[which.reshape(-1) == value])
    return LabelArray((axis,), labels)


def _in_slices(space: Workspace, tensor: StateTensor, axis: int, rows: int, outer: LabelArray) -> LabelArray:
    """An order of this axis in each slice along `rows`. What is in a slice stays together."""
    labels = space.points.fresh((tensor.shape[rows], tensor.shape[axis]), tensor.name, axis, rows)
    space.points.tie(space.block(labels, (0,), False, False), outer.labels)
    return LabelArray((rows, axis), labels).on((rows, axis))


def _in_blocks(
    space: Workspace, tensor: StateTensor, axis: int, groups: int, outer: LabelArray | None
) -> LabelArray:
    """The weight of a grouped convolution orders this axis separately in each block of axis 0.

    Labels (groups, size), repeated over the rows of a block. Rows and columns of a block stay together.
    """
    labels = space.points.fresh((groups, tensor.shape[axis]), tensor.name, axis)
    if outer is not None:
        columns = space.block(labels, (0,), False, False)
        rows = space.block(outer.labels.reshape(groups, -1), (0,), False, False)
        space.points.tie(columns, rows)
    return LabelArray((0, axis), np.repeat(labels, tensor.shape[0] // groups, axis=0), repeats=True)


def is_integer(node: Node) -> bool:
    """Whether the first result of a node holds integers or booleans."""
    return bool(node.results) and node.results[0] is not None and node.results[0].dtype.startswith(_INTEGERS)


def elementwise_integers(trace: Trace) -> frozenset[str]:
    """The nodes of integer and boolean state whose values end in activations, one element at a time."""
    found: set[str] = set()
    for node in filter(is_integer, reversed(trace.nodes)):  # users stand after what they read
        readers = trace.readers.get(node.name, ())
        if readers and all(elementwise(u) and (not is_integer(u) or u.name in found) for u in readers):
            found.add(node.name)
    return frozenset(found.intersection(n.name for n in trace.nodes if n.op == "state"))


def elementwise(node: Node) -> bool:
    """Whether what an op gives lies where its operand does."""
    return node.pointwise or node.op.startswith(_COPIES)
