"""`w_A · a + w_B · b` of two tensors: taken in float32 or wider, written in a given dtype, refused where it means nothing."""

from __future__ import annotations

import torch

from permgraph.errors import FileError
from permgraph.weights.apply import refuse_nonfinite

Weights = tuple[float, float]


def interpolate(
    key: str,
    a: torch.Tensor,
    b: torch.Tensor,
    weights: Weights,
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
) -> torch.Tensor:
    """`w_A · a + w_B · b` of two tensors of one shape; a new tensor. Raises FileError for NaN, inf, or integers that
    differ."""
    a, b = a.detach(), b.detach()
    if not is_inexact(a.dtype):
        if not integers_of_a:
            _refuse_other_integers(key, a, b)
        return a.clone()
    check_pair(key, a, b, allow_nonfinite)
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    merged = (a.to(wide) * weights[0]).add_(b.to(a.device, wide), alpha=weights[1])
    return written(key, merged, a.dtype, dtype, allow_nonfinite)


def check_pair(key: str, a: torch.Tensor, b: torch.Tensor, allow_nonfinite: bool) -> None:
    """Refuse a pair whose average means nothing. Raises FileError."""
    if a.element_size() == 1 or b.element_size() == 1:
        raise FileError(f"{key}: {a.dtype} and {b.dtype}: float8 cannot be averaged. Dequantise first.")
    if not is_inexact(b.dtype):
        raise FileError(f"{key}: {a.dtype} in A and {b.dtype} in B cannot be averaged.")
    if not allow_nonfinite:
        refuse_nonfinite(key, a, "A")
        refuse_nonfinite(key, b, "B")


def written(
    key: str, merged: torch.Tensor, of_a: torch.dtype, dtype: torch.dtype | None, allow_nonfinite: bool
) -> torch.Tensor:
    """A result in the dtype it is written in. Raises FileError when that is too narrow for it."""
    merged = merged.to(result_dtype(of_a, dtype))
    if not allow_nonfinite:
        refuse_nonfinite(key, merged, f"the result ({merged.dtype} is too narrow)")
    return merged


def result_dtype(of_a: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and of_a.is_floating_point else of_a


def is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _refuse_other_integers(key: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """A single number is a counter; several are an order, a mask or a table, which the other weights rely on."""
    if a.numel() > 1 and not torch.equal(a, b.to(a.device, a.dtype)):
        count = int((a != b.to(a.device, a.dtype)).sum())
        raise FileError(
            f"{key}: {count:,} of {a.numel():,} {a.dtype} values differ in A and B. Orders, masks and tables say what the "
            "other weights mean, so these cannot be averaged. If A's are right for both, pass integers_of_a=True "
            "(--integers-of-a)."
        )
