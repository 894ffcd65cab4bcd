"""Rewrites: ops that torch makes of others, one at a time, into what `run_decompositions` makes of them.

A row says when it holds; where it does not, the whole program is left to torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


@dataclass(frozen=True)
class Rewrite:
    """node → what torch makes of it, in place.

    holds  whether it would
    again  torch does so in a second round, after dead nodes of the first one are gone
    """

    write: Callable[[fx.Node], None]
    holds: Callable[[fx.Node], bool] = lambda node: True
    again: bool = False


def value(node: Any) -> Tensor:
    found = node.meta["val"]
    assert isinstance(found, Tensor)
    return found


def put(node: fx.Node, target: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
    """The node calls another op from here on, of the same result."""
    node.target, node.args, node.kwargs = target, tuple(args), kwargs or {}


def run(node: fx.Node) -> Any:
    """What the op of a node gives for its operands: their shapes and strides, without values."""
    operands = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    return node.target(*operands[0], **operands[1])  # type: ignore[operator]


def away(node: fx.Node) -> None:
    """What the node gives is its operand."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def after(node: fx.Node, target: Any, args: Sequence[Any], found: Any) -> fx.Node:
    """A new node behind `node`, of the same place in the module."""
    with node.graph.inserting_after(node):
        new = node.graph.call_function(target, tuple(args))
    new.meta = {**node.meta, "val": found}
    return new


def before(
    node: fx.Node,
    target: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    found: Tensor | None = None,
) -> fx.Node:
    """A new node in front of `node`, of the same place in the module. `found` is its result, where no operand tells
    its shape."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, tuple(args))
    new.kwargs = kwargs or {}
    new.meta = {**node.meta, "val": run(new) if found is None else found}
    return new


def _contiguous(node: fx.Node) -> None:
    if value(node.args[0]).is_contiguous():
        away(node)
    else:
        put(node, aten.clone.default, node.args[:1], {"memory_format": torch.contiguous_format})


def _reshape(node: fx.Node) -> None:
    """A view, or a copy; torch leaves a size of -1 as it was written only where the operand is contiguous."""
    source, sizes = node.args
    _reshaped(node, source, sizes if value(source).is_contiguous() else list(value(node).shape))


def _reshaped(node: fx.Node, source: Any, sizes: Any) -> None:
    if _can_view(value(source), sizes):
        put(node, aten.view.default, (source, sizes))
        return
    found = value(node)
    put(node, aten.clone.default, (source,), {"memory_format": torch.contiguous_format})
    node.meta["val"] = run(node)
    view = after(node, aten._unsafe_view.default, (), found)
    node.replace_all_uses_with(view)
    view.args = (node, list(found.shape))


def _can_view(source: Tensor, sizes: Any) -> bool:
    try:
        source.view(sizes)
    except (RuntimeError, ValueError):  # ValueError: of a tensor without values
        return False
    return True


def _flatten(node: fx.Node) -> None:
    source = node.args[0]
    rank = value(source).ndim
    start, end = (_argument(node, i, name, default) % max(rank, 1) for i, name, default in _ENDS)
    if start == end and rank:
        away(node)
    else:
        _reshaped(node, source, list(value(node).shape))


_ENDS = ((1, "start_dim", 0), (2, "end_dim", -1))


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _expand_as(node: fx.Node) -> None:
    put(node, aten.expand.default, (node.args[0], list(value(node.args[1]).shape)))


def _chunk(node: fx.Node) -> None:
    source, chunks = node.args[:2]
    dim = _argument(node, 2, "dim", 0)
    size = value(source).shape[dim]
    put(node, aten.split.Tensor, (source, -(-size // chunks), *([dim] if dim else [])))


def _has_units(node: fx.Node) -> bool:
    return bool(value(node.args[0]).shape[_argument(node, 2, "dim", 0)])


def _to_dtype(node: fx.Node) -> None:
    if value(node.args[0]).dtype == node.args[1]:
        away(node)
    else:
        put(node, aten._to_copy.default, node.args[:1], {"dtype": node.args[1]})


def _to_device(node: fx.Node) -> None:
    source, device, dtype = node.args
    if value(source).dtype == dtype and value(source).device == device:
        away(node)
    else:
        put(node, aten._to_copy.default, (source,), {"dtype": dtype, "device": device})


def _type_as(node: fx.Node) -> None:
    source, like = node.args
    dtype, layout, device = value(like).dtype, value(like).layout, value(like).device
    if value(source).dtype == dtype and value(source).device == device:
        away(node)
    else:
        put(node, aten._to_copy.default, (source,), {"dtype": dtype, "layout": layout, "device": device})


def _where(node: fx.Node) -> None:
    """Of a tensor and a number: the number as a tensor."""
    found = value(node)
    condition, *parts = node.args
    form = {"dtype": found.dtype, "layout": torch.strided, "device": found.device}
    tensors = [
        part
        if isinstance(part, fx.Node)
        else before(node, aten.scalar_tensor.default, (part,), form, found.new_empty(()))
        for part in parts
    ]
    put(node, aten.where.self, (condition, *tensors))


def _keeps_type(node: fx.Node) -> bool:
    return all(value(part).dtype == value(node).dtype for part in node.args[1:] if isinstance(part, fx.Node))


def _diff(node: fx.Node) -> None:
    source, dim = node.args[0], _argument(node, 2, "dim", -1)
    parts = [_argument(node, 3, "prepend", None), source, _argument(node, 4, "append", None)]
    if parts.count(None) < 2:
        source = before(node, aten.cat.default, ([part for part in parts if part is not None], dim))
    size = value(source).shape[dim]
    low = before(node, aten.slice.Tensor, (source, dim, 0, size - 1))
    put(node, aten.sub.Tensor, (before(node, aten.slice.Tensor, (source, dim, 1, size)), low))


def _once(node: fx.Node) -> bool:
    """Of neighbours, once, and of numbers."""
    return _argument(node, 1, "n", 1) == 1 and value(node.args[0]).dtype is not torch.bool


def _repeat_interleave(node: fx.Node) -> None:
    source, count = node.args[:2]
    dim = _argument(node, 2, "dim", None) % value(source).ndim
    found = list(value(node).shape)
    sizes: list[Any] = list(value(source).shape)
    sizes.insert(dim + 1, count)
    wide = before(node, aten.unsqueeze.default, (source, dim + 1))
    wide = before(node, aten.expand.default, (wide, sizes))
    wide = before(node, aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})
    put(node, aten.view.default, (wide, found))


def _along_a_dim(node: fx.Node) -> bool:
    return _argument(node, 2, "dim", None) is not None and not node.kwargs.get("output_size")


def _renamed(op: Any) -> Rewrite:
    return Rewrite(lambda node: put(node, op, node.args, dict(node.kwargs)), again=True)


def _changes_nothing(node: fx.Node) -> bool:
    before, found = value(node.args[0]), value(node)
    return (
        before.dtype == found.dtype
        and before.device == found.device
        and before.layout == found.layout
        and before.stride() == found.stride()
        and not node.kwargs.get("copy")
    )


def _batch_norm(node: fx.Node) -> None:
    """In eval mode: by the running statistics, which stay as they are."""
    x, weight, bias, mean, var, _, momentum, eps, *_ = node.args
    uses = list(node.users)
    put(node, aten._native_batch_norm_legit_no_training.default, (x, weight, bias, mean, var, momentum, eps))
    results = node.meta["val"] = run(node)
    for i in reversed(range(len(results))):
        result = after(node, operator.getitem, (node, i), results[i])
        if i == 0:
            for user in uses:
                user.replace_input_with(node, result)


def _in_eval_mode(node: fx.Node) -> bool:
    x, _, _, mean, var, training, *_ = node.args
    return not training and mean is not None and var is not None and value(x).is_floating_point()


REWRITES: dict[Any, Rewrite] = {
    aten.__and__.Tensor: _renamed(aten.bitwise_and.Tensor),
    aten.__or__.Tensor: _renamed(aten.bitwise_or.Tensor),
    aten.batch_norm.default: Rewrite(_batch_norm, _in_eval_mode),
    aten.chunk.default: Rewrite(_chunk, _has_units),
    aten.contiguous.default: Rewrite(_contiguous, lambda node: len(node.args) == 1 and not node.kwargs),
    aten.diff.default: Rewrite(_diff, _once, again=True),
    aten.dropout.default: Rewrite(
        lambda node: put(node, aten.clone.default, node.args[:1]), lambda node: node.args[2:] == (False,)
    ),
    aten.dropout_.default: Rewrite(away, lambda node: node.args[2:] == (False,)),
    aten.expand_as.default: Rewrite(_expand_as),
    aten.flatten.using_ints: Rewrite(_flatten),
    aten.repeat_interleave.self_int: Rewrite(_repeat_interleave, _along_a_dim, again=True),
    aten.reshape.default: Rewrite(_reshape),
    aten.reshape_as.default: Rewrite(lambda node: _reshaped(node, node.args[0], list(value(node).shape))),
    aten.to.device: Rewrite(_to_device, lambda node: len(node.args) == 3 and not node.kwargs),
    aten.to.dtype: Rewrite(_to_dtype, lambda node: len(node.args) == 2 and not node.kwargs),
    aten.to.dtype_layout: Rewrite(away, _changes_nothing),
    aten.type_as.default: Rewrite(_type_as, again=True),
    aten.unflatten.int: Rewrite(lambda node: _reshaped(node, node.args[0], list(value(node).shape))),
    aten.view_as.default: Rewrite(lambda node: _reshaped(node, node.args[0], list(value(node).shape))),
    aten.where.ScalarOther: Rewrite(_where, _keeps_type, again=True),
    aten.where.ScalarSelf: Rewrite(_where, _keeps_type, again=True),
}
