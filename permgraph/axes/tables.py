"""Tables: contents of constant integer and boolean tensors, carried through the arithmetic that indices are made by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.state_labels import constant_arrays
from permgraph.ir.trace import Node

_LARGEST, _SMALL = 2**22, 2**16  # elements
_ARITHMETIC: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_not": np.invert,
    "abs": np.abs,
    "neg": np.negative,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def computed(node: Node, operands: Mapping[str, Any]) -> NDArray[Any] | None:
    """The table that an elementwise op makes of tables and numbers; None where any of it is not known."""
    function = _ARITHMETIC.get(node.short_op)
    given = {k: v for k, v in (node.operands | node.options).items() if k in ("self", "other", "input")}
    values = [
        operands[k].table if isinstance(operands.get(k), LabelledTensor) else v for k, v in given.items()
    ]
    if function is None or len(values) != function.nin or node.options.get("alpha", 1) != 1:
        return None
    arrays = [np.asarray(v) for v in values]
    if any(a.dtype.kind not in "iub" for a in arrays) or prod(node.shape) > _LARGEST:
        return None
    return np.asarray(function(*arrays))


def known(tensor: LabelledTensor, table: NDArray[Any] | None) -> LabelledTensor:
    """A constant with its contents; of a small one of booleans, as a mask is, the labels are those of its contents."""
    if table is None or table.dtype != bool or not 1 < table.size <= _SMALL:
        return replace(tensor, table=table)
    arrays = () if (table == table.flat[0]).all() else constant_arrays(tensor.space, table)
    return replace(tensor, table=table, arrays=arrays)


def filled(node: Node) -> NDArray[Any] | None:
    """The table of a tensor of whole numbers that are all equal."""
    value = node.options.get("fill_value", {"ones": 1, "zeros": 0}.get(node.short_op.removesuffix("_like")))
    if node.is_float or not isinstance(value, (bool, int)):
        return None
    boolean = node.results[0] is not None and node.results[0].dtype == "bool"
    return np.broadcast_to(np.asarray(value, dtype=bool if boolean else np.int64), node.shape)
