"""Random ops: which calls of a graph draw random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from permgraph.frontend.schema import op_of
from permgraph.ir.trace import Node

# arguments without which an op is not random
SWITCHES = {"dropout_p": 0.0, "train": False, "training": False}
_UNTAGGED = frozenset({"random_", "random", "binomial", "_sample_dirichlet"})


def is_random(op: Any) -> bool:
    """Whether an op draws random numbers, by torch's own tag; also when it does so at some arguments only."""
    return torch.Tag.nondeterministic_seeded in getattr(op, "tags", ()) or short_name(op) in _UNTAGGED


def short_name(op: Any) -> str:
    """`bernoulli_` of `aten::bernoulli_.float`; "" for what has no schema."""
    schema = getattr(op, "_schema", None)
    return str(schema.name).split("::")[-1] if schema is not None else ""


def is_on(bound: Mapping[str, Any]) -> bool:
    """Whether an op with a switch is random at these arguments, given by name, defaults included."""
    if not any(bound.get(name) for name in SWITCHES):
        return False
    return bool(bound.get("dropout", bound.get("p", 1)))


def draws_values(node: Node) -> bool:
    """Whether a node of a trace draws random numbers."""
    if not _is_random_name(node.op):
        return False
    return not SWITCHES.keys() & node.options.keys() or is_on(node.options)


@cache
def _is_random_name(op: str) -> bool:
    found = op_of(op)
    return found is not None and is_random(found)
