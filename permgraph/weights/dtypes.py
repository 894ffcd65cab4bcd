"""Types of stored numbers, as numpy holds them: by their value where numpy knows the type, by their bits where not.

>>> import numpy as np
>>> one = np.array([0x3F80], dtype="<u2")
>>> widen(one, DTYPES["BF16"])
array([1.], dtype=float32)
>>> narrow(np.array([1.0], dtype="<f4"), DTYPES["BF16"]) == one
array([ True])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Dtype:
    """name  torch's
    code  safetensors'
    held  the numpy type that holds it: of the numbers, or of as many bits
    kind  "f" of floating point, "c" complex, "i" integer, "b" boolean
    """

    name: str
    code: str
    held: str
    kind: str

    def __str__(self) -> str:
        return f"torch.{self.name}"

    @property
    def itemsize(self) -> int:
        return np.dtype(self.held).itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def torch(self) -> Any:
        """The same as a `torch.dtype`."""
        import torch

        return getattr(torch, self.name)


DTYPES: dict[str, Dtype] = {
    code: Dtype(name, code, held, kind)
    for code, name, held, kind in (
        ("F64", "float64", "<f8", "f"),
        ("F32", "float32", "<f4", "f"),
        ("F16", "float16", "<f2", "f"),
        ("BF16", "bfloat16", "<u2", "f"),
        ("F8_E4M3", "float8_e4m3fn", "u1", "f"),
        ("F8_E5M2", "float8_e5m2", "u1", "f"),
        ("F8_E4M3FNUZ", "float8_e4m3fnuz", "u1", "f"),
        ("F8_E5M2FNUZ", "float8_e5m2fnuz", "u1", "f"),
        ("F8_E8M0", "float8_e8m0fnu", "u1", "f"),
        ("C64", "complex64", "<c8", "c"),
        ("I64", "int64", "<i8", "i"),
        ("I32", "int32", "<i4", "i"),
        ("I16", "int16", "<i2", "i"),
        ("I8", "int8", "i1", "i"),
        ("U64", "uint64", "<u8", "i"),
        ("U32", "uint32", "<u4", "i"),
        ("U16", "uint16", "<u2", "i"),
        ("U8", "uint8", "u1", "i"),
        ("BOOL", "bool", "?", "b"),
    )
}
_BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}
_NOT_FINITE = {  # of float8: what of the bits says so, and how
    "float8_e4m3fn": (0x7F, 0x7F),
    "float8_e5m2": (0x7C, 0x7C),
    "float8_e4m3fnuz": (0xFF, 0x80),
    "float8_e5m2fnuz": (0xFF, 0x80),
    "float8_e8m0fnu": (0xFF, 0xFF),
}


def dtype_of(kind: Any) -> Dtype | None:
    """The type that a torch or numpy dtype is; None for one that no safetensors file holds."""
    return kind if isinstance(kind, Dtype) else _BY_NAME.get(str(kind).removeprefix("torch."))


def is_inexact(dtype: Any) -> bool:
    """Whether numbers of this type are averaged: floating point or complex."""
    found = dtype_of(dtype)
    return found is not None and found.kind in "fc"


def widen(held: Array, dtype: Dtype) -> Array:
    """Numbers to compute with: float32, or wider where the type is. A view where nothing has to change."""
    if dtype.name == "bfloat16":
        return (held.astype("<u4") << 16).view("<f4")
    assert dtype.itemsize > 1 and dtype.kind in "fc", f"{dtype} is not computed with"
    return held.astype("<f4") if dtype.name == "float16" else held


def narrow(values: Array, dtype: Dtype) -> Array:
    """Numbers as they are stored, rounded to the nearest, ties to even. Too large ones become infinite."""
    if dtype.name != "bfloat16":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values).astype(dtype.held, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, bits >> 16 | 0x40, rounded).astype("<u2").reshape(np.shape(values))


def count_nonfinite(held: Array, dtype: Dtype) -> int:
    """How many of the numbers are NaN or infinite."""
    if dtype.kind in "ib" or not held.size:
        return 0
    if dtype.name in _NOT_FINITE:
        mask, value = _NOT_FINITE[dtype.name]
        return int(((held & mask) == value).sum())
    if dtype.name == "bfloat16":
        return int(((held & 0x7F80) == 0x7F80).sum())
    if sums_finite(held):
        return 0
    return int(held.size - np.isfinite(held).sum())


def are_bounds(held: Array, dtype: Dtype) -> bool:
    """Whether infinite numbers are meant: a bound, one number without a dim, or a mask, which holds 0 and infinity alone."""
    if dtype.kind != "f" or dtype.itemsize == 1:
        return False
    values = widen(held, dtype)
    infinite = np.isinf(values)
    if not held.ndim:
        return bool(infinite)
    return bool(infinite.any() and (values == 0).any() and (infinite | (values == 0)).all())


def sums_finite(values: Array) -> bool:
    """Then all of them are finite: NaN and infinity stay in every sum. Much faster than a test of each."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype="<f4" if values.dtype.itemsize == 2 else None)))
