"""Schema: a call's arguments by the names of the op's own schema, tensors apart from all else, defaults filled in."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from permgraph.ir.trace import Node, Ref

Arguments = tuple[dict[str, Any], dict[str, Any]]

_OWN = {  # argument names of the operations that torch does not define
    "state": ("tensor",),
    "getitem": ("source", "index"),
    "output": ("outputs",),
    "permgraph.carry.default": ("state",),
    "permgraph.step.default": ("rows",),
    "permgraph.loop.default": ("before", "after", "also"),
    "permgraph.collect.default": ("row", "loop"),
    "permgraph.flex_attention.default": ("query", "key", "value", "tables", "asked"),
}


def node_of(
    name: str, op: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **rest: Any
) -> Node:
    """A node of a Trace, from arguments by position as a graph or a run has them."""
    operands, options = bound(op, args, kwargs or {})
    return Node(name, op, operands, options, **rest)


def bound(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """(operands, options): what the schema types as tensors, and every other argument.

    An op without a schema (a higher-order op, a Python function on sizes) has arguments "arg0", "arg1", …; those that
    read other nodes are its operands.
    """
    operands: dict[str, Any] = {}
    options: dict[str, Any] = {}
    slots = _slots(op)
    if slots is None:
        names = _OWN.get(op, ())
        given = {names[i] if i < len(names) else f"arg{i}": value for i, value in enumerate(args)} | kwargs
        for name, value in given.items():
            (operands if _reads(value) else options)[name] = value
        return operands, options
    given = dict(zip((name for name, _, _ in slots), args, strict=False)) | kwargs
    for name, default, tensor in slots:
        (operands if tensor else options)[name] = given.get(name, default)
    return operands, options


@cache
def _slots(op: str) -> tuple[tuple[str, Any, bool], ...] | None:
    """(name, default, whether it is a tensor) of every argument of an op; a large network calls few ops often."""
    schema = schema_of(op)
    if schema is None:
        return None
    return tuple((a.name, plain(a.default_value), is_tensor(a)) for a in schema.arguments)


def schema_of(op: str) -> torch.FunctionSchema | None:
    """The schema of "aten.linear.default"; None for what is no op of torch."""
    schema: torch.FunctionSchema | None = getattr(op_of(op), "_schema", None)
    return schema


def op_of(op: str) -> Any:
    """torch's op of the name "aten.linear.default"; None for what is no op of torch."""
    namespace, _, rest = op.partition(".")
    name, _, overload = rest.partition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError):
        return None


def is_tensor(argument: Any) -> bool:
    """Whether a schema types an argument as a tensor, an optional one, or a list of them."""
    return "Tensor" in str(argument.type)


def plain(value: Any) -> Any:
    """Arguments as literals, tuples and Refs; dtypes, devices and layouts become text, sub-graphs stay."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str, Ref, torch.fx.GraphModule)):
        return value
    return str(value)


def _reads(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, (tuple, list)) and any(map(_reads, value)))
