"""Normalisation: the normalised axes are mixed, scales and running statistics are tied to their channels."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, dims_of, several
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def mixed(context: Context, value: Value, dims: tuple[int, ...]) -> Value:
    """`value` with some dims mixed."""
    letters = "abcdefghijklmnop"[: len(value.shape)]
    left = " ".join(f"[{x}]" if d in dims else x for d, x in enumerate(letters))
    return contract(context, f"{left} -> {' '.join(letters)}", [value], value.shape)


def _softmax(context: Context) -> Value:
    value = context.need(0, "self")
    return mixed(context, value, dims_of(context.arg(1, "dim"), len(value.shape)))


def _layer_norm(context: Context) -> Value:
    count = len(context.arg(1, "normalized_shape"))
    values = [context.need(0, "input"), context.operand(2, "weight"), context.operand(3, "bias")]
    return contract(context, "... [c*], c*?, c*? -> ... c*", values, context.node.shape, **{"c*": count})


def _rms_norm(context: Context) -> Value:
    count = len(context.arg(1, "normalized_shape"))
    values = [context.need(0, "input"), context.operand(2, "weight")]
    return contract(context, "... [c*], c*? -> ... c*", values, context.node.shape, **{"c*": count})


def _group_norm(context: Context) -> Value:
    value = context.need(0, "input")
    values = [value, context.operand(2, "weight"), context.operand(3, "bias")]
    text = "b (g [c]) [s*], (g c)?, (g c)? -> b (g c) s*"
    groups, spatial = int(context.arg(1, "num_groups")), len(value.shape) - 2
    return contract(context, text, values, value.shape, g=groups, **{"s*": spatial})


def _native_group_norm(context: Context) -> Value:
    value = context.need(0, "input")
    values = [value, context.operand(1, "weight"), context.operand(2, "bias")]
    text = "b (g [c]) [s*], (g c)?, (g c)? -> b (g c) s*"
    return contract(
        context, text, values, value.shape, g=int(context.arg(6, "group")), **{"s*": len(value.shape) - 2}
    )


BATCH_NORM = "b c s*, c?, c?, c?, c? -> b c s*"
INSTANCE_NORM = "b c [s*], c?, c?, c?, c? -> b c s*"


def _per_channel(text: str) -> Rule:
    def rule(context: Context) -> Value:
        value = context.need(0, "input")
        names = ("weight", "bias", "running_mean", "running_var")
        values = [value, *(context.operand(i + 1, n) for i, n in enumerate(names))]
        return contract(context, text, values, value.shape, **{"s*": len(value.shape) - 2})

    rule.__doc__ = text
    return rule


def _legit(context: Context) -> Result:
    """Batch statistics; the form without running ones is how an instance norm is written."""
    if not context.node.op.endswith("no_stats"):
        return several(_per_channel(BATCH_NORM))(context)  # type: ignore[arg-type]
    value, values = (
        context.need(0, "input"),
        [context.operand(i + 1, n) for i, n in enumerate(("weight", "bias"))],
    )
    text = "[b] c [s*], c?, c? -> b c s*"
    made = contract(context, text, [value, *values], value.shape, **{"s*": len(value.shape) - 2})
    rest = context.node.results[1:]
    return (made, *(context.pinned_value(m.shape, "statistics") if m else None for m in rest))


def _weight_norm(context: Context) -> Value:
    """w = g · v / ‖v‖, the norm over every dim but `dim`."""
    v, g = context.need(0, "v"), context.need(1, "g")
    dim = int(context.arg(2, "dim", 0)) % len(v.shape)
    normed = mixed(context, v, tuple(d for d in range(len(v.shape)) if d != dim))
    return contract(context, "..., ... -> ...", [normed, g], v.shape)


RULES: dict[str, Rule] = {
    "softmax": _softmax,
    "_softmax": _softmax,
    "log_softmax": _softmax,
    "_log_softmax": _softmax,
    "_safe_softmax": _softmax,
    "layer_norm": _layer_norm,
    "native_layer_norm": several(_layer_norm),
    "rms_norm": _rms_norm,
    "_fused_rms_norm": several(_rms_norm),
    "group_norm": _group_norm,
    "native_group_norm": several(_native_group_norm),
    "batch_norm": _per_channel(BATCH_NORM),
    "_native_batch_norm_legit_no_training": several(_per_channel(BATCH_NORM)),  # type: ignore[arg-type]
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm"), several(_per_channel(BATCH_NORM))),  # type: ignore[arg-type]
    "_native_batch_norm_legit": _legit,
    "instance_norm": _per_channel(INSTANCE_NORM),
    "_weight_norm": _weight_norm,
    "_weight_norm_interface": several(_weight_norm),
}
