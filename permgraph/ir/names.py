"""Names: one spelling for each tensor, whatever library wrote it; one order of the groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

ROLES = (
    "cnn",
    "heads",
    "ffn",
    "residual",
    "embed",
    "qk",
    "v",
    "channels",
)  # of outermost groups, as reports list them
T = TypeVar("T")

_WEIGHT_NORM = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original([01])$")
_WRAPPERS = re.compile(  # modules that compiled, checkpointed and sharded models put around others
    r"(^|\.)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module|_forward_module)(?=\.)"
)
_NUMBER = re.compile(r"([0-9]+)")
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


def in_order(groups: Mapping[str, T]) -> dict[str, T]:
    """By the names of groups, as every report lists them: roles in the order of `ROLES`, numbers as numbers.

    >>> list(in_order({"ffn.10": 0, "ffn.2": 0, "heads.0/v": 0, "heads.0": 0, "cnn.3": 0}))
    ['cnn.3', 'heads.0', 'heads.0/v', 'ffn.2', 'ffn.10']
    """
    return {name: groups[name] for name in sorted(groups, key=_order)}


def _order(name: str) -> tuple[int, list[str | int], str]:
    parts = _NUMBER.split(name)
    role = name.partition(".")[0]
    return (
        ROLES.index(role) if role in ROLES else len(ROLES),
        [int(part) if i % 2 else part for i, part in enumerate(parts)],
        name,
    )


def hidden_states_name(node: str, layer: int, reverse: bool, inner: bool = False) -> str:
    """What a probe calls the hidden states of one layer and direction; `inner`: before an LSTM projects them."""
    return f"{node}:l{layer}{'_reverse' if reverse else ''}{'.hidden' if inner else ''}"


def letter(number: int) -> str:
    """What the models of a merge are called: A, B, …, Z, then by number."""
    return chr(ord("A") + number) if number < 26 else f"model {number + 1}"
