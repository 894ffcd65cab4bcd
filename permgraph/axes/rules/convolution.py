"""Convolutions: channels are free; taps are ordered, and so are positions that more than one tap sees.

A kernel that spans a whole, unpadded dim is a linear layer over it: each position is read by its own tap.
"""

from __future__ import annotations

from typing import Any

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import permute, reshape
from permgraph.axes.rules.builders import per_dim
from permgraph.axes.rules.table import op

CONV = "... (g i) {s}, (g o) i {k}, (g o)? -> ... (g o) {t}"
TRANSPOSED = "... (g i) {s}, (g i) o {k}, (g o)? -> ... (g o) {t}"


@op("conv1d conv2d conv3d convolution")
def convolution(
    input: LabelledTensor,
    weight: LabelledTensor,
    bias: LabelledTensor | None,
    stride: Any,
    padding: Any,
    groups: int,
    dilation: Any,
    transposed: bool = False,
    output_padding: Any = 0,
) -> tuple[str, dict[str, int]]:
    rank = weight.rank - 2
    padding = tuple(k // 2 for k in weight.shape[2:]) if padding == "same" else padding
    around = [per_dim(*given) for given in ((stride, rank, 1), (padding, rank, 0), (output_padding, rank, 0))]
    wide = [d * (k - 1) + 1 for d, k in zip(per_dim(dilation, rank, 1), weight.shape[2:], strict=True)]
    plain = [step == (1, 0, 0) for step in zip(*around, strict=True)]
    unpadded = [step == (0, 0) for step in zip(*around[1:], strict=True)]
    terms = []
    for d, (size, taps) in enumerate(zip(input.shape[-rank:], weight.shape[2:], strict=True)):
        whole = unpadded[d] and wide[d] == taps > 1 and size == (1 if transposed else taps)
        terms.append(_spatial(d, plain[d] and taps == 1, whole, transposed))
    s, k, t = (" ".join(part) for part in zip(*terms, strict=True))
    return (TRANSPOSED if transposed else CONV).format(s=s, k=k, t=t), {"g": groups}


def _spatial(d: int, still: bool, whole: bool, transposed: bool) -> tuple[str, str, str]:
    """Names along one spatial dim: of the positions that enter, of the taps, and of the positions that leave."""
    if still:
        return f"x{d}", f"!k{d}", f"x{d}"
    if whole:
        return (f"!x{d}", f"k{d}", f"k{d}") if transposed else (f"k{d}", f"k{d}", f"!t{d}")
    return f"!x{d}", f"!k{d}", f"!t{d}"


@op("conv_tbc")
def convolution_of_frames(
    self: LabelledTensor, weight: LabelledTensor, bias: LabelledTensor, pad: int = 0
) -> str:
    taps, frames = weight.shape[0], self.shape[0]
    s, k, t = _spatial(0, taps == 1 and not pad, taps == frames > 1 and not pad, False)
    return f"{s} b i, {k} i o, o -> {t} b o"


@op("channel_shuffle native_channel_shuffle")
def channel_shuffle(self: LabelledTensor, groups: int) -> LabelledTensor:
    b, c, *rest = self.shape
    wide = reshape(self, (b, groups, c // groups, *rest))
    return reshape(permute(wide, (0, 2, 1, *range(3, 3 + len(rest)))), self.shape)
