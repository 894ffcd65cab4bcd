"""Values of integer and boolean state: what a plan follows, and a checkpoint must hold too.

An order of channels, a mask or a table kept in an integer buffer decides which units belong together. A plan made for
one order is wrong for a network with another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.spec import PermSpec


def values_digest(values: Any) -> str:
    """32 hex digits for integers or booleans, whatever their width: a torch tensor, an array or nested lists."""
    array = np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
    numbers = np.ascontiguousarray(array, dtype="<i8")
    return hashlib.sha256(str(numbers.shape).encode() + numbers.tobytes()).hexdigest()[:32]


def refuse_other_values(spec: PermSpec, tensors: Mapping[str, Any], where: str) -> None:
    """Refuse a network whose integer state is not the one that the spec was inferred from.

    tensors   any spelling of a tensor's name → a tensor or an array; those on the meta device pass

    Raises PlanError that names the first tensor that differs.
    """
    for name, tensor in tensors.items():
        known = spec.values.get(spec.first_name(name))
        if known is None or getattr(tensor, "is_meta", False) or values_digest(tensor) == known:
            continue
        raise PlanError(
            f"{where}: {name!r} holds other values than in the network that the plan was made for ({spec.model}). The "
            "plan follows these values, so it is wrong here. Trace this network and make a plan for it; two networks "
            "can only be matched and merged when they hold the same values there."
        )
