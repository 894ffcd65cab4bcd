"""Options that make another function of an op: a quotient that is rounded, a power of 0, an ELU that is a ReLU."""

from __future__ import annotations

from math import prod

from permgraph.axes.op_kinds import RECTIFIED, SUMS
from permgraph.ir.trace import Node, Ref, Trace

_SLOPES = {"leaky_relu": ("negative_slope",), "elu": ("alpha", "scale", "input_scale")}


def is_constant(node: Node, trace: Trace) -> bool:
    """Whether different numbers become equal ones, by the op's options or by the dtype of its result."""
    name, options = node.short_op, node.options
    if any(meta is not None and meta.dtype.startswith("float8") for meta in node.results):
        return True
    if name in ("var", "std") and isinstance(source := node.operands.get("self"), Ref):
        return prod(node.shape) == prod(trace.by_name[source.node].shape)  # of one number each
    return bool(
        options.get("rounding_mode")
        or (name == "mul" and _is_nothing(options.get("other", node.operands.get("other"))))
        or (name == "pow" and (_is_nothing(options.get("exponent")) or options.get("self") in (0, 1)))
        or (name in ("norm", "linalg_vector_norm") and _is_nothing(options.get("ord", options.get("p"))))
        or (name in SUMS and any(_is_nothing(options.get(factor)) for factor in ("alpha", "value")))
        or (name == "lerp" and options.get("weight") in (0, 1))
    )


def is_rectified(node: Node) -> bool:
    """Whether all numbers on one side of zero become zero."""
    name = node.short_op
    slopes = [node.options.get(option) for option in _SLOPES.get(name, ())]
    return name in RECTIFIED or any(map(_is_nothing, slopes))


def _is_nothing(value: object) -> bool:
    return isinstance(value, (int, float)) and value == 0
