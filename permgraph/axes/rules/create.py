"""Constants made inside the graph: filled tensors are the same everywhere, ramps know their position."""

from __future__ import annotations

import numpy as np

from permgraph.axes.rules.builders import Rule
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def _filled(context: Context) -> Value:
    """Every element is equal: no array, any order is right."""
    return Value(context.node.shape, (), True, name=context.node.name)


def _ramp(context: Context) -> Value:
    made = context.pinned_value(context.node.shape, "position", weight=True)
    bounds = context.node.args[:3]
    if context.node.op.startswith("aten.arange") and all(isinstance(n, int) for n in bounds):
        table = np.arange(*bounds)
        return Value(made.shape, made.arrays, True, table, made.name)
    return made


_FILLED = """full zeros ones empty full_like zeros_like ones_like empty_like new_full new_zeros new_ones new_empty fill
scalar_tensor empty_strided new_empty_strided _efficientzerotensor zero empty_permuted"""

_PLACED = """arange linspace logspace eye tril_indices triu_indices hann_window hamming_window randperm rand randn
randint rand_like randn_like"""

RULES: dict[str, Rule] = {
    **{name: _filled for name in _FILLED.split()},
    **{name: _ramp for name in _PLACED.split()},
}
