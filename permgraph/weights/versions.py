"""Versions of modules, which torch keeps beside the tensors of a state dict (`_metadata`).

`load_state_dict` hands them to the modules: one without a version is read as that of an old network, whose tensors are
renamed, rescaled or refused (torchvision's MNASNet).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def with_versions_of(given: Mapping[str, Any], state: dict[str, T]) -> dict[str, T]:
    """`state` with the versions that `given` has; `state` itself where it has none."""
    versions = getattr(given, "_metadata", None)
    if versions is None:
        return state
    versioned = OrderedDict(state)
    versioned._metadata = copy.deepcopy(versions)  # type: ignore[attr-defined]
    return versioned
