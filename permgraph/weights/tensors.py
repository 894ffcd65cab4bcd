"""Tensors of torch as the arrays that hold them, and back; without a copy where torch has none to make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from permgraph.weights.dtypes import Array, Dtype, dtype_of, is_inexact, widen

if TYPE_CHECKING:
    import torch


def held_by(tensor: Any) -> tuple[Array, Dtype | None]:
    """The numbers of a tensor or an array, and their type."""
    dtype = dtype_of(tensor.dtype)
    if isinstance(tensor, np.ndarray) or dtype is None:
        return np.asarray(tensor), dtype
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return _bits(plain, dtype).numpy().view(dtype.held), dtype


def tensor_of(held: Array, dtype: Dtype) -> torch.Tensor:
    """A tensor over the memory of an array."""
    import torch

    if dtype.kind == "c":
        return torch.from_numpy(held)
    width = held.dtype.itemsize
    bits = held.view("?" if dtype.kind == "b" else f"{'u' if width == 1 else 'i'}{width}")
    return torch.from_numpy(bits).view(dtype.torch)


def _bits(tensor: torch.Tensor, dtype: Dtype) -> torch.Tensor:
    """The same memory as a type that numpy knows."""
    import torch

    if dtype.kind in "cb":
        return tensor
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(widths[dtype.itemsize])


def float32_of(held: Array, dtype: Dtype) -> Array:
    """Numbers of any type in float32, complex ones as pairs: as a fingerprint counts them."""
    if dtype.is_floating_point and dtype.itemsize == 1:
        return tensor_of(held, dtype).float().numpy()
    values = widen(held, dtype) if is_inexact(dtype) else held
    return values.astype("<c8" if dtype.is_complex else "<f4", copy=False)


def numbers_of(held: Array, dtype: Dtype) -> memoryview:
    """The bytes of these numbers in float32, for a fingerprint."""
    return np.ascontiguousarray(float32_of(held, dtype)).reshape(-1).view("u1").data
