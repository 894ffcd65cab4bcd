"""Tied tensors: one in the plan, several in a file. A plan has one order for it, so that all copies have to hold the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from permgraph.errors import FileError, PlanError
from permgraph.weights.dtypes import Array, Dtype
from permgraph.weights.tensors import float32_of

Read = Callable[[str], tuple[Array, Dtype | None]]


def refuse_untied(names: Mapping[str, str], read: Read, where: str) -> None:
    """Refuse weights that hold different numbers where the network of the plan has one tensor. Raises FileError.

    names   stored key → the plan's name
    read    gives the numbers of a key, and their type
    """
    keys: dict[str, str] = {}
    for key, name in names.items():
        other = keys.setdefault(name, key)
        if other != key and not _same(read(other), read(key)):
            raise FileError(
                f"{where}: {other!r} and {key!r} hold different numbers, and are one tensor in the network that the plan "
                "was made for (tied). Trace a network in which they are two, and make a plan for it."
            )


def refuse_torn(where: str, moved: Mapping[str, Any], storage: Callable[[str], Any]) -> None:
    """Refuse one storage under two keys that a plan moves apart. Raises PlanError.

    moved     key → what its storage becomes: equal for keys that stay tied
    storage   gives the storage of a key
    """
    keys: dict[Any, str] = {}
    for key, becomes in moved.items():
        other = keys.setdefault(storage(key), key)
        if moved[other] != becomes:
            raise PlanError(
                f"{where}: {other!r} and {key!r} are one tensor here (tied) and two in the network that the plan was made "
                "for, which moves them apart. Trace the tied network, and make a plan for it."
            )


def _same(one: tuple[Array, Dtype | None], other: tuple[Array, Dtype | None]) -> bool:
    (a, dtype_a), (b, dtype_b) = one, other
    if dtype_a == dtype_b and a.__array_interface__ == b.__array_interface__:
        return True  # the same memory
    if dtype_a is None or dtype_b is None:
        return np.array_equal(a, b)
    return np.array_equal(float32_of(a, dtype_a), float32_of(b, dtype_b), equal_nan=True)
