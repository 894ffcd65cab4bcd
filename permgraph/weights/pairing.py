"""Which tensor of B goes with which of A."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, UsageError
from permgraph.ir.names import canonical
from permgraph.weights.checkpoint import Checkpoint
from permgraph.weights.names import first, refuse_twice_spelt

if TYPE_CHECKING:
    import torch


def same_names(
    tensors_a: Mapping[str, Any], tensors_b: Mapping[str, Any], other: str = "B"
) -> dict[str, str]:
    """A's key → B's key, the spelling of weight norm aside. Raises FileError when a tensor has no partner."""
    for whose, tensors in (("A", tensors_a), (other, tensors_b)):
        refuse_twice_spelt(tensors, whose)
    of_b = {canonical(key): key for key in tensors_b}
    only_a = [key for key in tensors_a if canonical(key) not in of_b]
    of_a = {canonical(key) for key in tensors_a}
    only_b = [key for plain, key in of_b.items() if plain not in of_a]
    if only_a or only_b:
        parts = [f"only in {w}: {first(keys)}" for w, keys in (("A", only_a), (other, only_b)) if keys]
        raise FileError(
            f"the models do not have the same tensors; {len(only_a) + len(only_b)} without a partner; "
            f"{'; '.join(parts)}. Two models of one architecture are needed; a tensor that one of them ties to another is "
            "often stored once: store it under both names (torch.save of its state_dict), or untie it."
        )
    return {key: of_b[canonical(key)] for key in tensors_a}


def planned_pairs(
    a: Checkpoint, b: Checkpoint, names_a: Mapping[str, str], names_b: Mapping[str, str]
) -> dict[str, str]:
    """A's key → B's key through the plan's names; further keys that both have in one shape go together."""
    for checkpoint in (a, b):
        refuse_twice_spelt(checkpoint.infos, str(checkpoint.path))
    of_b = {name: key for key, name in names_b.items()}
    pairs = {key: of_b[name] for key, name in names_a.items() if name in of_b}
    rest = {canonical(key): key for key in b.shapes if key not in names_b}
    for key in a.shapes:
        other = rest.get(canonical(key))
        if key not in names_a and other is not None and a.shapes[key] == b.shapes[other]:
            pairs[key] = other
    return pairs


def check_shapes(
    tensors_a: Mapping[str, Any], tensors_b: Mapping[str, Any], pairs: Mapping[str, str], whose: str = "B"
) -> None:
    wrong = [
        f"{key}: {tuple(tensors_a[key].shape)} in A, {tuple(tensors_b[other].shape)} in {whose}"
        for key, other in pairs.items()
        if tuple(tensors_a[key].shape) != tuple(tensors_b[other].shape)
    ]
    if wrong:
        raise FileError(f"{len(wrong)} tensors differ in shape: {first(wrong)}.")


def tied_as_in_a(
    tied: Mapping[str, Hashable],
    of_b: Mapping[str, torch.Tensor],
    weights: Mapping[str, tuple[float, ...]],
    whose: str = "B",
) -> dict[str, torch.Tensor]:
    """B's tensors by A's keys, one and the same where A has one under several keys.

    Where B holds several tensors there, A's network has room for one: their mean is the nearest. A warning says so.

    tied   A's key → what is equal for keys of one tensor

    Raises UsageError when the keys of one tensor are given different weights.
    """
    import torch

    keys: dict[Hashable, list[str]] = {}
    for key, identity in tied.items():
        keys.setdefault(identity, []).append(key)
    found = dict(of_b)
    for same in (names for names in keys.values() if len(names) > 1):
        if len({weights[key] for key in same}) > 1:
            raise UsageError(f"{', '.join(same)} are one tensor in A: give them the same weights.")
        one = of_b[same[0]]
        if not all(torch.equal(of_b[key], one) for key in same):
            warnings.warn(
                f"{', '.join(same)} are one tensor in A and several in {whose}: {whose}'s are averaged first, so {whose}'s "
                f"part of the result is not {whose}'s function. Untie A's to keep both.",
                stacklevel=4,
            )
            one = (
                torch.stack([of_b[key] for key in same])
                .to(torch.promote_types(one.dtype, torch.float32))
                .mean(0)
            )
        found |= dict.fromkeys(same, one)
    return found
