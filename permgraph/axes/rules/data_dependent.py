"""Sizes that the data tell: which part of a dim, or how many copies, is not known while the graph is read."""

from __future__ import annotations

import numpy as np

from permgraph.axes import movement as moves
from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import INDEX, placed
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Shape


def part_by_data(context: Context, value: Value, dim: int, shape: Shape | None = None) -> Value:
    """A part of a dim that the data decide on: positions are ordered, the other dims pass."""
    shape = context.node.shape if shape is None else shape
    value = placed(context, value, (dim,), INDEX)
    letters = "abcdefgh"[: len(value.shape)]
    kept = len(shape) == len(value.shape)
    right = [x if d != dim else "!Z" for d, x in enumerate(letters) if kept or d != dim]
    return contract(context, f"{' '.join(letters)} -> {' '.join(right)}", [value], shape)


def repeat_by_data(context: Context, value: Value, dim: int | None) -> Value:
    """Repeated by a tensor of counts: positions along dim are ordered, the other dims pass."""
    for counts in context.refs()[1:] or [value]:
        context.pin(counts.arrays, INDEX)
    if len(context.refs()) < 2:  # the counts alone: the result is an index
        return context.pinned_value(context.node.shape, INDEX)
    if dim is None:
        value, dim = moves.reshape(context, value, (int(np.prod(value.shape)),)), 0
    return part_by_data(context, value, dim % len(value.shape))
