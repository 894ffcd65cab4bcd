"""Names of tensors: one spelling for each, whatever library wrote it."""

from __future__ import annotations

import re

_WEIGHT_NORM = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original([01])$")
_WRAPPERS = re.compile(  # modules that compiled, checkpointed and sharded models put around others
    r"(^|\.)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module|_forward_module)(?=\.)"
)
_LAYER_NORM = {"gamma": "weight", "beta": "bias"}


def canonical(key: str) -> str:
    """The key with weight norm in the older spelling, layer norm in the newer one, and without the names of wrappers.

    >>> canonical("conv.parametrizations.weight.original0")
    'conv.weight_g'
    >>> canonical("embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    >>> canonical("net._orig_mod.fc.weight")
    'net.fc.weight'
    """
    key = _WRAPPERS.sub("", key).removeprefix(".") if "._" in f".{key}" else key
    head, _, last = key.rpartition("LayerNorm.")
    if head and last in _LAYER_NORM:
        return f"{head}LayerNorm.{_LAYER_NORM[last]}"
    return _WEIGHT_NORM.sub(lambda m: f"{m[1]}{m[2]}_{'gv'[int(m[3])]}", key)


def hidden_states_name(node: str, layer: int, reverse: bool, inner: bool = False) -> str:
    """What a probe calls the hidden states of one layer and direction; `inner`: before an LSTM projects them."""
    return f"{node}:l{layer}{'_reverse' if reverse else ''}{'.hidden' if inner else ''}"
