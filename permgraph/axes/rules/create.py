"""Constants made inside the graph: filled tensors are the same everywhere, ramps know their position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from permgraph.axes import tables
from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.rules.rule import Call
from permgraph.axes.rules.table import op
from permgraph.axes.state_labels import constant_arrays


@op("""full zeros ones empty full_like zeros_like ones_like empty_like new_full new_zeros new_ones new_empty fill
    scalar_tensor empty_strided new_empty_strided _efficientzerotensor zero empty_permuted""")
def filled(call: Call) -> LabelledTensor:
    """Every element is equal: no array, any order is right."""
    call.only_shapes()
    return LabelledTensor(call.space, call.shape, weight=True, table=tables.filled(call.node))


@op("tril_indices triu_indices")
def triangle(call: Call, row: Any, col: Any, offset: Any) -> LabelledTensor:
    """Where the elements of a triangle stand, which is known."""
    known = all(isinstance(n, int) for n in (row, col, offset))
    indices = np.tril_indices if call.node.short_op == "tril_indices" else np.triu_indices
    return replace(by_position(call), table=np.stack(indices(row, offset, col)) if known else None)


@op("eye")
def identity(call: Call) -> LabelledTensor:
    """The same, when rows and columns are re-ordered together."""
    call.only_shapes()
    arrays = constant_arrays(call.space, np.eye(call.shape[0], call.shape[1]))
    return LabelledTensor(call.space, call.shape, arrays, weight=True)


@op("""linspace logspace hann_window hamming_window""")
def by_position(call: Call) -> LabelledTensor:
    """Every element knows its place."""
    call.only_shapes()
    return pinned_tensor(call.space, call.shape, "position", weight=True)


@op("""rand randn randint randperm rand_like randn_like randint_like normal_functional uniform exponential log_normal
    cauchy geometric random""")
def random_values(call: Call) -> LabelledTensor:
    """Every element has a value of its own, which does not move along with a unit."""
    call.only_shapes()
    return pinned_tensor(call.space, call.shape, "random values", weight=True)


@op("arange")
def ramp(call: Call, end: Any, start: Any = 0, step: Any = 1) -> LabelledTensor:
    """A ramp, whose contents are known."""
    known = all(isinstance(n, int) for n in (start, end, step))
    return replace(by_position(call), table=np.arange(start, end, step) if known else None)
