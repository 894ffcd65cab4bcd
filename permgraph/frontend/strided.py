"""Strided: `as_strided` written as views, windows and slices, for which axis rules exist.

`as_strided` says where in memory each element of the result lies, whatever the dims of its operand are. Overlapping
chunks of a sequence, as in Longformer's attention, are written so. Where each stride is that of a dim of the operand, or
of neighbours that lie in memory as one, the result is a view of these dims: whole, with a step, or in windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Dim = tuple[int, int]  # size, stride


@dataclass(frozen=True)
class Part:
    """Neighbouring dims of the operand as one, of `size` elements; the dims of the result that walk along it, the
    longest step first, as (dim, step)."""

    size: int
    steps: tuple[tuple[int, int], ...]


def as_strided_in_parts(
    self: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """The same tensor, by ops that say what becomes of dims; NotImplemented where it is no such view."""
    parts = parts_of(self, size, stride, storage_offset)
    if parts is None:
        return NotImplemented
    x, order = self.reshape([part.size for part in parts]), list[int]()
    inner = list[int]()
    for dim, part in enumerate(parts):
        (first, step), *rest = part.steps
        if rest:
            x = torch.ops.aten.unfold(x, dim, size[rest[0][0]], step)
            inner.append(rest[0][0])
            step = 1
        order.append(first)
        if x.shape[dim] != size[first] or step != 1:
            x = torch.ops.aten.slice(x, dim, 0, (size[first] - 1) * step + 1, step)
    found = [*order, *inner]
    return x.permute([found.index(d) for d in sorted(found)]).reshape(list(size))


def parts_of(
    tensor: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> list[Part] | None:
    """How the dims of the result walk along those of the operand; None where they do in no way that is known."""
    if offset not in (None, tensor.storage_offset()) or 0 in size or not tensor.numel():
        return None
    result = {d: (n, s) for d, (n, s) in enumerate(zip(size, stride, strict=True)) if n > 1}
    dims = [dim for dim in zip(tensor.shape, tensor.stride(), strict=True) if dim[0] > 1]
    return next((parts for joined in _joined(dims) if (parts := _walks(joined, result))), None)


def _joined(dims: Sequence[Dim]) -> Iterator[list[Dim]]:
    """The dims as they are, and with neighbours that lie in memory as one joined, in every way."""
    if len(dims) < 2:
        yield list(dims)
        return
    (size, stride), (next_size, next_stride), *rest = dims
    yield from ([dims[0], *others] for others in _joined(dims[1:]))
    if stride == next_size * next_stride:
        yield from _joined([(size * next_size, next_stride), *rest])


def _walks(dims: Sequence[Dim], result: dict[int, Dim]) -> list[Part] | None:
    """Each dim of the result along the dim of the operand within which its stride lies: one or two along each, where
    the second has no step of its own."""
    parts, walking = [], set[int]()
    for size, stride in dims:
        along = sorted(
            (d for d, (_, s) in result.items() if stride <= s < size * stride), key=lambda d: -result[d][1]
        )
        steps = tuple((d, result[d][1] // stride) for d in along)
        reach = sum((result[d][0] - 1) * step for d, step in steps)
        whole = all(result[d][1] % stride == 0 for d in along)
        if not 1 <= len(steps) <= 2 or not whole or reach >= size or (len(steps) == 2 and steps[1][1] != 1):
            return None
        walking.update(along)
        parts.append(Part(size, steps))
    return parts if walking == result.keys() else None
