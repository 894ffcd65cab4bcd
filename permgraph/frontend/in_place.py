"""In place: ops that write into their operand, as ops that give a new tensor.

Only where nothing else sees the memory that is written: the operand is a result of its own, and neither it nor anything
else that is written into it is seen through a view. Then every later use of the operand is one of the new tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from permgraph.frontend.decomposition import composed
from permgraph.frontend.rewrites import put, value

aten = torch.ops.aten


def functional(op: Any) -> Any:
    """The op of one element each that gives what an in-place op writes; None where there is none."""
    if not isinstance(op, torch._ops.OpOverload) or op.namespace != "aten":
        return None
    name, overload = op._schema.name.partition("::")[2], op._overloadname
    found = (
        getattr(getattr(aten, name.removesuffix("_"), None), overload, None) if name.endswith("_") else None
    )
    if found is None or composed(found):
        return None
    return (
        found if torch.Tag.pointwise in found.tags or found is aten.hardswish.default else None
    )  # torch has no tag there


def alone(node: fx.Node) -> bool:
    """Whether what an in-place op writes into is seen through no view, also not afterwards: torch makes such views anew."""
    root = node
    while functional(root.target):
        source = root.args[0]
        if not isinstance(source, fx.Node):
            return False
        root = source
    if root.op != "call_function" or not isinstance(root.target, torch._ops.OpOverload) or may_alias(root):
        return False
    return _same_form(node) and not any(
        may_alias(user) and not functional(user.target) for one in _same_memory(root) for user in one.users
    )


def _same_memory(root: fx.Node) -> Iterator[fx.Node]:
    yield root
    for user in root.users:
        if functional(user.target) and user.args[0] is root:
            yield from _same_memory(user)


def may_alias(node: fx.Node) -> bool:
    """Whether the result of an op may share memory with an operand."""
    op = node.target
    if not isinstance(op, torch._ops.OpOverload):
        return node.op != "output"
    if op is aten.batch_norm.default:  # it returns new memory, though it may write its running statistics
        return False
    if any(a.alias_info for a in op._schema.arguments) or op is aten.dropout.default:
        return True
    return composed(op) and torch.Tag.maybe_aliasing_or_mutating in op.tags


def _same_form(node: fx.Node) -> bool:
    """Whether the new tensor would be of the type, shape and strides of the one that is written."""
    old = value(node.args[0])
    others = [value(n) for n in node.all_input_nodes if n is not node.args[0]]
    if all(x.dtype == old.dtype and x.shape == old.shape and x.stride() == old.stride() for x in others):
        return True
    operands = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    new = functional(node.target)(*operands[0], **operands[1])
    return bool(new.dtype == old.dtype and new.shape == old.shape and new.stride() == old.stride())


def put_out_of_place(node: fx.Node, order: Mapping[fx.Node, int]) -> None:
    """Rewrite an in-place op that is `alone`."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    put(node, functional(node.target), node.args, dict(node.kwargs))
    for user in list(source.users):
        if order[user] > order[node]:
            user.replace_input_with(source, node)
