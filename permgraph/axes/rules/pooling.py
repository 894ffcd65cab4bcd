"""Pooling and resampling: channels pass, positions are ordered but where each stays, or all are read alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import reshape
from permgraph.axes.rules.builders import per_dim, positions_of
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register

register(
    """upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa upsample_nearest3d
    _upsample_nearest_exact3d upsample_trilinear3d""",
    "b c !s* -> b c !t*",
)


def _pooled(tensor: LabelledTensor, call: Call, still: list[bool], whole: list[bool]) -> Results:
    """When it is read where each maximum was, positions are ordered even if one is left."""
    s, t = positions_of(still, [w and 1 not in call.read for w in whole])
    return call.every(contract(f"... {s} -> ... {t}", [tensor], call.shape))


def _windows(rank: int) -> Callable[..., Results]:
    def pool(
        self: LabelledTensor, kernel_size: Any, stride: Any, padding: Any, call: Call, dilation: Any = 1
    ) -> Results:
        """... !s* -> ... !t*; windows that lie side by side are blocks, read alike inside"""
        windows = per_dim(kernel_size, rank, 1)
        if call.read <= {0} and _tiled(self, call, windows, stride, padding, dilation):
            return call.every(_of_blocks(self, call, windows))
        kernel, around = per_dim(kernel_size, rank, 1), per_dim(padding, rank, 0)
        steps, sizes = per_dim(stride, rank, None), self.shape[-rank:]
        still = [k == 1 and p == 0 and s in (1, None) for k, s, p in zip(kernel, steps, around, strict=True)]
        whole = [k == n and p == 0 for k, n, p in zip(kernel, sizes, around, strict=True)]
        return _pooled(self, call, still, whole)

    return pool


def _tiled(
    tensor: LabelledTensor, call: Call, kernel: list[int], stride: Any, padding: Any, dilation: Any
) -> bool:
    """Whether windows lie side by side and cover every dim."""
    rank = len(kernel)
    steps, around, apart = per_dim(stride, rank, None), per_dim(padding, rank, 0), per_dim(dilation, rank, 1)
    return all(
        s in (k, None) and p == 0 and a == 1 and n == k * out
        for s, k, p, a, n, out in zip(
            steps, kernel, around, apart, tensor.shape[-rank:], call.shape[-rank:], strict=True
        )
    )


def _of_blocks(tensor: LabelledTensor, call: Call, kernel: list[int]) -> LabelledTensor:
    lead, out = tensor.shape[: -len(kernel)], call.shape[-len(kernel) :]
    blocks = [n for pair in zip(out, kernel, strict=True) for n in pair]
    wide = reshape(tensor, (*lead, *blocks))
    before = " ".join(f"x{d} k{d}" for d in range(len(kernel)))
    after = " ".join(f"x{d}" for d in range(len(kernel)))
    return contract(f"... {before} -> ... {after}", [wide], call.shape)


def _adaptive(rank: int) -> Callable[..., Results]:
    def pool(self: LabelledTensor, call: Call) -> Results:
        """... !s* -> ... !t*"""
        sizes = list(zip(self.shape[-rank:], call.shape[-rank:], strict=True))
        return _pooled(self, call, [a == b for a, b in sizes], [b == 1 for _, b in sizes])

    return pool


def _unpooled(rank: int) -> Callable[..., LabelledTensor]:
    def unpool(self: LabelledTensor, indices: LabelledTensor, call: Call) -> LabelledTensor:
        """What was pooled goes back to where it was: channels go with the channels of the index."""
        lead = call.shape[:-rank]
        passed = [contract("... !s* -> ...", [t], lead, {"s*": rank}) for t in (self, indices)]
        return contract("..., ... -> ... !t*", passed, call.shape, {"t*": rank})

    return unpool


for _n in (1, 2, 3):
    op(f"avg_pool{_n}d max_pool{_n}d max_pool{_n}d_with_indices")(_windows(_n))
    op(f"adaptive_avg_pool{_n}d adaptive_max_pool{_n}d")(_adaptive(_n))
for _n in (2, 3):
    op(f"_adaptive_avg_pool{_n}d")(_adaptive(_n))
    op(f"max_unpool{_n}d")(_unpooled(_n))
