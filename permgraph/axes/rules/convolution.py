"""Convolutions: channels are free, taps are ordered, and so are positions that more than one tap sees."""

from __future__ import annotations

from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import permute, reshape
from permgraph.axes.rules.builders import per_dim, positions_of
from permgraph.axes.rules.rule import Call
from permgraph.axes.rules.table import op
from permgraph.axes.workspace import ORDERED

CONV = "... (g i) {s}, (g o) i !k*, (g o)? -> ... (g o) {t}"
TRANSPOSED = "... (g i) {s}, (g i) o !k*, (g o)? -> ... (g o) {t}"


@op("conv1d conv2d conv3d convolution")
def convolution(
    input: LabelledTensor,
    weight: LabelledTensor,
    bias: LabelledTensor | None,
    stride: Any,
    padding: Any,
    groups: int,
    transposed: bool = False,
    output_padding: Any = 0,
) -> tuple[str, dict[str, int]]:
    rank = weight.rank - 2
    around = per_dim(stride, rank, 1), per_dim(padding, rank, 0), per_dim(output_padding, rank, 0)
    s, t = positions_of([step == (1, 1, 0, 0) for step in zip(weight.shape[2:], *around, strict=True)])
    return (TRANSPOSED if transposed else CONV).format(s=s, t=t), {"g": groups, "k*": rank}


@op("pixel_shuffle")
def pixel_shuffle(self: LabelledTensor, upscale_factor: int) -> LabelledTensor:
    *lead, c, h, w = self.shape
    n, r, out = len(lead), upscale_factor, c // upscale_factor**2
    wide = reshape(self, (*lead, out, r, r, h, w))
    turned = permute(wide, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(turned, (*lead, out, h * r, w * r))


@op("pixel_unshuffle")
def pixel_unshuffle(self: LabelledTensor, downscale_factor: int) -> LabelledTensor:
    *lead, c, h, w = self.shape
    n, r = len(lead), downscale_factor
    wide = reshape(self, (*lead, c, h // r, r, w // r, r))
    turned = permute(wide, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(turned, (*lead, c * r**2, h // r, w // r))


@op("channel_shuffle native_channel_shuffle")
def channel_shuffle(self: LabelledTensor, groups: int) -> LabelledTensor:
    b, c, *rest = self.shape
    wide = reshape(self, (b, groups, c // groups, *rest))
    return reshape(permute(wide, (0, 2, 1, *range(3, 3 + len(rest)))), self.shape)


@op("im2col")
def im2col(self: LabelledTensor, call: Call) -> LabelledTensor:
    """(b, c, h, w) → (b, c·taps, positions): taps and positions are ordered, channels pass."""
    *lead, c, _, _ = self.shape
    *_, rows, places = call.shape
    wide = (*lead, c, rows // c, places)
    passed = contract("... !h !w -> ...", [self], (*lead, c))
    placed = LabelledTensor(self.space, wide, passed.arrays, self.weight)
    return reshape(placed.with_positions((len(lead) + 1, len(lead) + 2), ORDERED), call.shape)
