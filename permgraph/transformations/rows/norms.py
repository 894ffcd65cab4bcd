"""Normalisation and attention."""

from __future__ import annotations

from permgraph.ir.trace import Shape
from permgraph.transformations.call import ROTATIONS, SCALES, Blocked, Call, Results, row
from permgraph.transformations.patterns import (
    Pattern,
    added,
    alike_along,
    blocked,
    contracted,
    full,
    multiplied,
    summed,
    to_power,
)


@row("layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm")
def norm(call: Call) -> Results:
    """What enters is divided by its size, but for a small number: what a norm without mean does not see passes."""
    x = call.of("input")
    if call.node.short_op != "rms_norm" or call.kind == SCALES:
        call.block("input", "running_mean", "running_var")
        x = None
    elif call.kind == ROTATIONS and x is not None:
        dims = range(-len(call.option("normalized_shape")), 0)
        summed(call.forms, full(to_power(call.forms, x, 2), call.shape), dims)  # the norm of all of them
    shape, rank = call.shape, len(call.shape)
    by_channel = call.node.short_op in ("group_norm", "native_group_norm", "instance_norm")

    def wide(name: str) -> Pattern:
        pattern = call.of(name)
        return pattern.reshape(-1, *(1,) * (rank - 2)) if pattern is not None and by_channel else pattern

    result = x
    if call.shapes.get("weight") is not None:
        result = multiplied(call.forms, x, wide("weight"), shape)
    if call.shapes.get("bias") is not None:
        result = added(call.forms, [result, wide("bias")], shape)
    return [result, None, None] if call.node.multiple else result


@row(
    "batch_norm native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training _batch_norm_no_update"
)
def batch_norm(call: Call) -> Results:
    """(x - mean) · weight / sqrt(variance + eps) + bias."""
    if call.option("training", False) or call.shapes.get("running_mean") is None:
        raise Blocked("statistics of the batch")
    call.block("running_var")
    wide = {
        name: None if (p := call.of(name)) is None else p.reshape(-1, *(1,) * (len(call.shape) - 2))
        for name in ("weight", "bias", "running_mean")
    }
    centred = added(call.forms, [call.of("input"), wide["running_mean"]], call.shape)
    result = multiplied(call.forms, centred, wide["weight"], call.shape)
    if call.shapes.get("bias") is not None:
        result = added(call.forms, [result, wide["bias"]], call.shape)
    return [result, *[None] * (len(call.node.results) - 1)] if call.node.multiple else result


@row("_weight_norm _weight_norm_interface")
def weight_norm(call: Call) -> Results:
    """v · g / ‖v‖, the norm over every dim but one."""
    if call.kind == ROTATIONS:
        raise Blocked("a norm of each row")
    v, dim = call.of("v"), call.option("dim", 0)
    if v is not None and call.kind == SCALES:
        alike_along(call.forms, v, [d for d in range(v.dim()) if d != dim])  # -1: over all dims
        v = None  # a factor of the whole norm cancels
    result = multiplied(call.forms, v, call.of("g"), call.shape)
    return [result, None] if call.node.multiple else result


@row("scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu")
def attention(call: Call) -> Results:
    call.block("attn_mask")
    q, k, v = (call.of(n) for n in ("query", "key", "value"))
    of_q, of_k, of_v = (call.shapes[n] for n in ("query", "key", "value"))
    if len(of_q) > 3 and of_k[-3] != of_q[-3]:  # each key head serves a run of query heads
        times = of_q[-3] // of_k[-3]
        k, v = (None if p is None else p.repeat_interleave(times, -3) for p in (k, v))
        of_k, of_v = ((*s[:-3], of_q[-3], *s[-2:]) for s in (of_k, of_v))
    lead = call.shape[:-2]
    letters = "abcdefgh"[: len(lead)]

    def wide(p: Pattern, shape: Shape) -> tuple[Pattern, Shape]:
        return (None if p is None else p.expand(*lead, *shape[-2:])), (*lead, *shape[-2:])

    (q, of_q), (k, of_k), (v, of_v) = wide(q, of_q), wide(k, of_k), wide(v, of_v)
    scores = (*lead, of_q[-2], of_k[-2])
    blocked(
        call.forms,
        contracted(call.forms, f"{letters}md,{letters}nd->{letters}mn", q, k, (of_q, of_k), scores),
    )
    out = (*scores[:-1], of_v[-1])
    result = contracted(call.forms, f"{letters}mn,{letters}nd->{letters}md", None, v, (scores, of_v), out)
    return [result, *[None] * (len(call.node.results) - 1)] if call.node.multiple else result
