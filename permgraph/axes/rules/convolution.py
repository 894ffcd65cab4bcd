"""Convolutions: channels are free, taps are ordered, and so are positions that more than one tap sees."""

from __future__ import annotations

from typing import Any

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import permute, reshape
from permgraph.axes.rules.builders import per_dim, positions_of
from permgraph.axes.rules.table import op

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


@op("channel_shuffle native_channel_shuffle")
def channel_shuffle(self: LabelledTensor, groups: int) -> LabelledTensor:
    b, c, *rest = self.shape
    wide = reshape(self, (b, groups, c // groups, *rest))
    return reshape(permute(wide, (0, 2, 1, *range(3, 3 + len(rest)))), self.shape)
