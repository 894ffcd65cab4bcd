"""Against itself: values that are equal by structure, although those of which they are made differ.

A norm over one element is its bias, a softmax over one element is 1, and what is compared with its own largest value,
or added to its mirror image, gives the same number in several places.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from permgraph.axes.op_kinds import MOVEMENTS
from permgraph.ir.trace import Node, Ref, Trace

_SOFTMAX = ("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
_PICKS = MOVEMENTS | frozenset(  # a coordinate of the result is one of the operand, or follows from one
    [
        "abs",
        "amax",
        "amin",
        "broadcast_to",
        "clamp",
        "clamp_min",
        "cummax",
        "cummin",
        "gather",
        "index",
        "index_select",
        "kthvalue",
        "max",
        "median",
        "min",
        "mode",
        "nanmedian",
        "neg",
        "sort",
        "take_along_dim",
        "topk",
    ]
)
_REDUCE = ("sum", "mean", "norm", "linalg_vector_norm", "logsumexp", "prod")
_BINARY = ("add", "sub", "rsub", "mul", "div", "true_divide")


def meets_itself(node: Node, trace: Trace) -> bool:
    """Whether several values of this node may be equal whatever the values are of which it is made."""
    name = node.short_op
    if name in _SOFTMAX:
        shape = _shape(node.operands.get("self") or node.operands.get("input"), trace)
        return bool(shape) and _length(shape, node.options.get("dim")) == 1
    if name in _OVER:
        shape = _shape(node.operands.get("input"), trace)
        return bool(shape) and _OVER[name](node, shape) == 1
    if name not in _BINARY:
        return False
    refs = [value.node for value in node.operands.values() if isinstance(value, Ref)]
    if len(refs) != 2:
        return False
    if refs[0] == refs[1]:
        return name not in ("add", "mul")
    return _root(refs[0], trace) == _root(refs[1], trace)


def _length(shape: tuple[int, ...], dim: Any) -> int:
    """Of a dim; 1, the careful answer, where the node does not say which."""
    return shape[dim] if isinstance(dim, int) and -len(shape) <= dim < len(shape) else 1


def _layer(node: Node, shape: tuple[int, ...]) -> int:
    normed = node.options.get("normalized_shape")
    return prod(normed) if isinstance(normed, tuple) and all(isinstance(n, int) for n in normed) else 1


def _group(node: Node, shape: tuple[int, ...]) -> int:
    groups = node.options.get("num_groups") or node.options.get("group")
    return prod(shape[1:]) // groups if isinstance(groups, int) and groups else 1


def _instance(node: Node, shape: tuple[int, ...]) -> int:
    return prod(shape[2:])


# Over how many elements a norm is taken.
_OVER: dict[str, Callable[[Node, tuple[int, ...]], int]] = {
    "layer_norm": _layer,
    "native_layer_norm": _layer,
    "rms_norm": _layer,
    "_fused_rms_norm": _layer,
    "group_norm": _group,
    "native_group_norm": _group,
    "instance_norm": _instance,
}


def _shape(value: Any, trace: Trace) -> tuple[int, ...]:
    return trace.by_name[value.node].shape if isinstance(value, Ref) else ()


def _root(name: str, trace: Trace) -> str:
    """The node whose values these are, in other places or some of them."""
    while True:
        node = trace.by_name[name]
        source = next(iter(node.refs()), None)
        if source is None or not (
            node.short_op in _PICKS or node.op == "getitem" or _of_one(node, source, trace)
        ):
            return name
        name = source


def _of_one(node: Node, source: str, trace: Trace) -> bool:
    """A sum, a mean or a norm of single values."""
    return node.short_op in _REDUCE and prod(node.shape) == prod(trace.by_name[source].shape)


def softmax_of(node: Node, trace: Trace) -> str | None:
    """x, where a node is e / sum(e) with e = exp(x - max(x)): the division tells the largest ones apart again."""
    refs = list(node.refs())
    if node.short_op not in ("div", "true_divide") or len(refs) != 2:
        return None
    one, total = (trace.by_name[ref] for ref in refs)
    if (one.short_op, total.short_op) != ("exp", "sum") or next(iter(total.refs()), "") != one.name:
        return None
    shifted = trace.by_name[next(iter(one.refs()))]
    return next(iter(shifted.refs()), None) if shifted.short_op == "sub" else shifted.name
