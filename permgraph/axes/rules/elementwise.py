"""Elementwise ops that torch does not tag as pointwise, and ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.movement import span
from permgraph.axes.rules.builders import Result, Rule, dims_of, pin_everything, pointwise
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def every_tensor(context: Context) -> Value:
    """The rule of every op tagged pointwise: all tensor arguments broadcast together."""
    values = context.refs()
    if context.node.op.startswith("aten.add") and len(values) > 1 and not any(v.weight for v in values):
        # two streams meet; x + x³, as in an approximation of GELU, is only one
        same = {array.dims: array.labels for array in values[1].arrays}
        for array in values[0].arrays:
            if array.dims not in same or not np.array_equal(array.labels, same[array.dims]):
                context.mark("residual", array)
    return pointwise(context, *values)


def _where(context: Context) -> Result:
    """A choice between two; with the condition alone, where it holds."""
    if context.node.multiple:
        return pin_everything(context, "selected by its values")
    return every_tensor(context)


def _first(context: Context) -> Value:
    return pointwise(context, context.need(0, "self"))


def _same(context: Context) -> Value:
    """The input itself; a table of indices keeps its contents."""
    value = context.need(0, "self")
    made = pointwise(context, value)
    integers = all(dtype.startswith(("int", "uint8")) for dtype in (_dtype_in(context), _dtype_out(context)))
    return replace(made, table=value.table) if integers else made


def _dtype_in(context: Context) -> str:
    return context.dtype(context.node.args[0])


def _dtype_out(context: Context) -> str:
    meta = context.node.results[0]
    return meta.dtype if meta else ""


def _dropout(context: Context) -> Value | tuple[Value, ...]:
    made = pointwise(context, context.need(0, "input"))
    return (made,) * len(context.node.results) if context.node.multiple else made


def _glu(context: Context) -> Value:
    """a · σ(b) for the two halves of a dim."""
    value = context.need(0, "self")
    (dim,) = dims_of(context.arg(1, "dim", -1), len(value.shape))
    half = value.shape[dim] // 2
    parts = span(context, value, dim, 0, half), span(context, value, dim, half, 2 * half)
    return pointwise(context, *parts)


def _prelu(context: Context) -> Value:
    from permgraph.axes.contraction import contract

    value, weight = context.need(0, "self"), context.need(1, "weight")
    if len(value.shape) < 2 or weight.shape == (1,):
        return pointwise(context, value, weight)
    return contract(
        context, "b c s*, c -> b c s*", [value, weight], value.shape, **{"s*": len(value.shape) - 2}
    )


_IDENTITY = """alias clone contiguous detach lift lift_fresh lift_fresh_copy to _to_copy type_as alias_copy
detach_copy bernoulli feature_dropout conj _conj resolve_conj"""
_FIRST = """hardtanh relu6 rrelu rrelu_with_noise celu selu threshold softplus logit nan_to_num
hardswish log_sigmoid hardshrink softshrink hardsigmoid leaky_relu mish elu real imag special_expm1 special_erf"""
_ALL = """masked_fill clamp addcmul addcdiv lerp copy add_ mul_ gelu silu fmod remainder heaviside copy_ floor_divide
complex polar"""

RULES: dict[str, Rule] = {
    **{name: _same for name in _IDENTITY.split()},
    **{name: _first for name in _FIRST.split()},
    **{name: every_tensor for name in _ALL.split()},
    "where": _where,
    "dropout": _dropout,
    "native_dropout": _dropout,
    "alpha_dropout": _dropout,
    "feature_alpha_dropout": _dropout,
    "glu": _glu,
    "isin": _first,
    **{
        name: every_tensor
        for name in ("__and__", "__or__", "__xor__", "multiply", "subtract", "divide", "true_divide")
    },
    "prelu": _prelu,
    "_prelu_kernel": every_tensor,
}
