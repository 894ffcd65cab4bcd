"""Arguments: those of a call, by the names of the op's own schema. Tensors apart from all else, defaults filled in."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from permgraph.ir.trace import Ref

Arguments = tuple[dict[str, Any], dict[str, Any]]


def bound(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """(operands, options) of a call: what the schema types as tensors, and every other argument.

    A target without a schema (a higher-order op, a Python function on sizes) has arguments "arg0", "arg1", …; those
    that read other nodes are its operands.
    """
    operands: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if isinstance(target, torch._ops.OpOverload):
        schema = target._schema.arguments
        given = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
        for a in schema:
            value = given.get(a.name, a.default_value)
            (operands if "Tensor" in str(a.type) else options)[a.name] = plain(value)
        return operands, options
    for name, value in ({f"arg{i}": v for i, v in enumerate(args)} | kwargs).items():
        value = plain(value)
        (operands if _reads(value) else options)[name] = value
    return operands, options


def plain(value: Any) -> Any:
    """Arguments as literals, tuples and Refs; dtypes, devices and layouts become text, sub-graphs a mark."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str, Ref)):
        return value
    return "<graph>" if isinstance(value, fx.GraphModule) else str(value)


def _reads(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, tuple) and any(map(_reads, value)))
