"""Constants made inside the graph: filled tensors are the same everywhere, ramps know their position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.rules.rule import Call
from permgraph.axes.rules.table import op


@op("""full zeros ones empty full_like zeros_like ones_like empty_like new_full new_zeros new_ones new_empty fill
    scalar_tensor empty_strided new_empty_strided _efficientzerotensor zero empty_permuted""")
def filled(call: Call) -> LabelledTensor:
    """Every element is equal: no array, any order is right."""
    call.only_shapes()
    return LabelledTensor(call.space, call.shape, weight=True)


@op("""linspace logspace eye tril_indices triu_indices hann_window hamming_window""")
def by_position(call: Call) -> LabelledTensor:
    """Every element knows its place."""
    call.only_shapes()
    return pinned_tensor(call.space, call.shape, "position", weight=True)


@op("rand randn randint randperm rand_like randn_like randint_like")
def random_values(call: Call) -> LabelledTensor:
    """Every element has a value of its own, which does not move along with a unit."""
    call.only_shapes()
    return pinned_tensor(call.space, call.shape, "random values", weight=True)


@op("arange")
def ramp(call: Call, end: Any, start: Any = 0, step: Any = 1) -> LabelledTensor:
    """A ramp, whose contents are known."""
    known = all(isinstance(n, int) for n in (start, end, step))
    return replace(by_position(call), table=np.arange(start, end, step) if known else None)
