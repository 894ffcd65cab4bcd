"""What a state dict of torch holds beside its tensors: versions of modules (`_metadata`), and extra states of any class.

`load_state_dict` hands versions to the modules: one without is read as that of an old network, whose tensors are renamed,
rescaled or refused (torchvision's MNASNet). An extra state is what a module's `get_extra_state` gave: no weight, kept as it is.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def tensors_of(given: Mapping[str, T]) -> Mapping[str, T]:
    """What has a shape and a dtype."""
    found = {
        key: value for key, value in given.items() if hasattr(value, "shape") and hasattr(value, "dtype")
    }
    return given if len(found) == len(given) else found


def with_rest_of(given: Mapping[str, Any], state: dict[str, T]) -> dict[str, T]:
    """`state` with the versions and the extra states that `given` has; `state` itself where it has none."""
    tensors = tensors_of(given)
    extra: dict[str, Any] = {key: value for key, value in given.items() if key not in tensors}
    if extra:
        both = extra | state
        state = {key: both[key] for key in (*given, *state) if key in both}
    versions = getattr(given, "_metadata", None)
    if versions is None:
        return state
    versioned = OrderedDict(state)
    versioned._metadata = copy.deepcopy(versions)  # type: ignore[attr-defined]
    return versioned
