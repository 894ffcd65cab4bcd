"""Convolutions: channels are free, taps are ordered, and so are positions that more than one tap sees."""

from __future__ import annotations

from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.movement import permute, reshape
from permgraph.axes.rules.builders import Rule, per_dim, positions_of
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context

CONV = "... (g i) {s}, (g o) i !k*, (g o)? -> ... (g o) {t}"
TRANSPOSED = "... (g i) {s}, (g i) o !k*, (g o)? -> ... (g o) {t}"


def convolve(
    context: Context, groups: int, transposed: bool, stride: Any, padding: Any, spare: Any = 0
) -> Value:
    weight, shape = context.need(1, "weight"), context.node.shape
    rank = len(weight.shape) - 2
    around = per_dim(stride, rank, 1), per_dim(padding, rank, 0), per_dim(spare, rank, 0)
    s, t = positions_of([step == (1, 1, 0, 0) for step in zip(weight.shape[2:], *around, strict=True)])
    text = (TRANSPOSED if transposed else CONV).format(s=s, t=t)
    values = [context.need(0, "input"), weight, context.operand(2, "bias")]
    return contract(context, text, values, shape, g=groups, **{"k*": rank})


def _conv(context: Context) -> Value:
    stride, padding = context.arg(3, "stride", 1), context.arg(4, "padding", 0)
    return convolve(context, context.arg(6, "groups", 1), False, stride, padding)


def _conv_transpose(context: Context) -> Value:
    stride, padding = context.arg(3, "stride", 1), context.arg(4, "padding", 0)
    return convolve(
        context, context.arg(6, "groups", 1), True, stride, padding, context.arg(5, "output_padding", 0)
    )


def _convolution(context: Context) -> Value:
    stride, padding = context.arg(3, "stride", 1), context.arg(4, "padding", 0)
    transposed, spare = bool(context.arg(6, "transposed", False)), context.arg(7, "output_padding", 0)
    return convolve(context, context.arg(8, "groups", 1), transposed, stride, padding, spare)


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
}
