"""Convolutions, pooling and resampling: channels are free, taps and positions are ordered."""

from __future__ import annotations

from typing import Any

from permgraph.axes.context import Context
from permgraph.axes.contract import contract
from permgraph.axes.moves import permute, reshape
from permgraph.axes.rules._common import Result, Rule
from permgraph.axes.value import Array, Value

CONV = "... (g i) !s*, (g o) i !k*, (g o)? -> ... (g o) !t*"
TRANSPOSED = "... (g i) !s*, (g i) o !k*, (g o)? -> ... (g o) !t*"
POINT = "... (g i) s*, (g o) i k*, (g o)? -> ... (g o) s*"  # one tap, stride 1: positions are not mixed


def convolve(context: Context, groups: int, transposed: bool, plain: bool) -> Value:
    weight = context.need(1, "weight")
    rank = len(weight.shape) - 2
    one_tap = plain and not transposed and all(k == 1 for k in weight.shape[2:])
    text = TRANSPOSED if transposed else POINT if one_tap else CONV
    values = [context.need(0, "input"), weight, context.operand(2, "bias")]
    counts = {"s*": rank, "t*": rank, "k*": rank}
    return contract(context, text, values, context.node.shape, g=groups, **counts)


def _plain(stride: Any, padding: Any) -> bool:
    """Stride 1 and no padding, in any of the ways they can be written."""
    return _all(stride, 1) and (padding in ("valid", "same") or _all(padding, 0))


def _all(value: Any, want: int) -> bool:
    return value in (None, ()) or all(v == want for v in (value if isinstance(value, tuple) else (value,)))


def _conv(context: Context) -> Value:
    plain = _plain(context.arg(3, "stride", 1), context.arg(4, "padding", 0))
    return convolve(context, context.arg(6, "groups", 1), False, plain)


def _conv_transpose(context: Context) -> Value:
    return convolve(context, context.arg(6, "groups", 1), True, False)


def _convolution(context: Context) -> Value:
    plain = _plain(context.arg(3, "stride", 1), context.arg(4, "padding", 0))
    return convolve(context, context.arg(8, "groups", 1), bool(context.arg(6, "transposed", False)), plain)


def spatial(rank: int) -> Rule:
    """Pooling and resampling over the last `rank` dims: those are ordered, the others pass.

    Pooling down to one position reads them all alike, so nothing is ordered then.
    """

    def rule(context: Context) -> Value:
        shape = context.node.shape
        letters, counts = (
            ("s*", {"s*": rank}) if all(n == 1 for n in shape[-rank:]) else ("!s*", {"s*": rank})
        )
        text = f"... {letters} -> ... !t*"
        return contract(context, text, [context.need(0, "self")], shape, **counts, **{"t*": rank})

    rule.__doc__ = "... !s* -> ... !t*"
    return rule


def indexed(rank: int) -> Rule:
    """Pooling that tells where each maximum was: when that is read, positions are ordered even if one is left."""

    def rule(context: Context) -> Result:
        if not context.reads(1):
            made = spatial(rank)(context)
            return made, made  # type: ignore[return-value]
        shape, counts = context.node.shape, {"s*": rank, "t*": rank}
        made = contract(context, "... !s* -> ... !t*", [context.need(0, "self")], shape, **counts)
        return made, made

    rule.__doc__ = "... !s* -> ... !t*"
    return rule


def _pixel_shuffle(context: Context) -> Value:
    value, factor = context.need(0, "self"), int(context.arg(1, "upscale_factor"))
    *lead, c, h, w = value.shape
    n, out = len(lead), c // factor**2
    wide = reshape(context, value, (*lead, out, factor, factor, h, w))
    turned = permute(context, wide, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(context, turned, (*lead, out, h * factor, w * factor))


def _pixel_unshuffle(context: Context) -> Value:
    value, factor = context.need(0, "self"), int(context.arg(1, "downscale_factor"))
    *lead, c, h, w = value.shape
    n = len(lead)
    wide = reshape(context, value, (*lead, c, h // factor, factor, w // factor, factor))
    turned = permute(context, wide, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(context, turned, (*lead, c * factor**2, h // factor, w // factor))


def _channel_shuffle(context: Context) -> Value:
    value, groups = context.need(0, "self"), int(context.arg(1, "groups"))
    b, c, *rest = value.shape
    wide = permute(
        context,
        reshape(context, value, (b, groups, c // groups, *rest)),
        (0, 2, 1, *range(3, 3 + len(rest))),
    )
    return reshape(context, wide, value.shape)


def _im2col(context: Context) -> Value:
    """(b, c, h, w) → (b, c·taps, positions): taps and positions are ordered, channels pass."""
    value = context.need(0, "self")
    *lead, c, _, _ = value.shape
    *_, rows, places = context.node.shape
    wide = (*lead, c, rows // c, places)
    passed = contract(context, "... !s* -> ...", [value], (*lead, c), **{"s*": 2})
    n = len(lead)
    fixed: tuple[Array, ...] = context.positions(wide, (n + 1, n + 2), "ordered axis")
    return reshape(context, Value(wide, passed.arrays + fixed, value.weight), context.node.shape)


def unpooled(rank: int) -> Rule:
    """What was pooled goes back to where it was: channels go with the channels of the index."""

    def rule(context: Context) -> Value:
        shape = context.node.shape
        values = [context.need(0, "self"), context.need(1, "indices")]
        lead: list[Value | None] = [
            contract(context, "... !s* -> ...", [v], shape[:-rank], **{"s*": rank}) for v in values
        ]
        return contract(context, "..., ... -> ... !t*", lead, shape, **{"t*": rank})

    rule.__doc__ = "... !s*, ... !s* -> ... !t*"
    return rule


RULES: dict[str, Rule] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "convolution": _convolution,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "im2col": _im2col,
    **{
        f"{kind}{n}d": spatial(n) for n in (1, 2, 3) for kind in ("avg_pool", "max_pool", "adaptive_avg_pool")
    },
    **{f"_adaptive_avg_pool{n}d": spatial(n) for n in (2, 3)},
    **{f"max_pool{n}d_with_indices": indexed(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": indexed(n) for n in (1, 2, 3)},
    **{f"max_unpool{n}d": unpooled(n) for n in (2, 3)},
    "upsample_nearest1d": spatial(1),
    "upsample_linear1d": spatial(1),
    "upsample_nearest2d": spatial(2),
    "_upsample_nearest_exact2d": spatial(2),
    "_upsample_nearest_exact1d": spatial(1),
    "upsample_bilinear2d": spatial(2),
    "_upsample_bilinear2d_aa": spatial(2),
    "upsample_bicubic2d": spatial(2),
    "_upsample_bicubic2d_aa": spatial(2),
    "upsample_nearest3d": spatial(3),
    "upsample_trilinear3d": spatial(3),
}

__all__ = ["RULES", "Result"]
