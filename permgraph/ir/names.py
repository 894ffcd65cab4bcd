"""Names of tensors: one spelling for each, whatever library wrote it."""

from __future__ import annotations

import re

_WEIGHT_NORM = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original([01])$")
_LAYER_NORM = {"gamma": "weight", "beta": "bias"}


def canonical(key: str) -> str:
    """The key with weight norm in the older spelling, and layer norm in the newer one.

    >>> canonical("conv.parametrizations.weight.original0")
    'conv.weight_g'
    >>> canonical("embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    head, _, last = key.rpartition("LayerNorm.")
    if head and last in _LAYER_NORM:
        return f"{head}LayerNorm.{_LAYER_NORM[last]}"
    return _WEIGHT_NORM.sub(lambda m: f"{m[1]}{m[2]}_{'gv'[int(m[3])]}", key)


def hidden_states_name(node: str, layer: int, reverse: bool, inner: bool = False) -> str:
    """What a probe calls the hidden states of one layer and direction; `inner`: before an LSTM projects them."""
    return f"{node}:l{layer}{'_reverse' if reverse else ''}{'.hidden' if inner else ''}"
