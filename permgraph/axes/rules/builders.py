"""What rule files share: terms of an equation for a tensor of any rank, and coordinates held in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from permgraph.axes.contraction import contract, settled
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.workspace import ORDERED

INDEX = "index by position"
POINTWISE = "..., ... -> ..."


def axes(rank: int) -> list[str]:
    """A name for every axis: a0, a1, …"""
    return [f"a{i}" for i in range(rank)]


def term(names: Sequence[str], ordered: Collection[int] = (), mixed: Collection[int] = ()) -> str:
    """A term of an equation, with marks on some axes: "a0 !a1 [a2]"."""
    marked = [f"!{x}" if d in ordered else f"[{x}]" if d in mixed else x for d, x in enumerate(names)]
    return " ".join(marked)


def pointwise(*tensors: LabelledTensor | None) -> LabelledTensor:
    """Elementwise with broadcasting from the right: same axes, same names."""
    given = [t for t in tensors if t is not None]
    shape = broadcast(*(t.shape for t in given))
    return contract(", ".join(["..."] * len(given)) + " -> ...", given, shape)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape, by broadcasting from the right."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def placed(tensor: LabelledTensor, dims: tuple[int, ...], reason: str = "position") -> LabelledTensor:
    """The tensor with its coordinates along `dims` in order: what happens to an element depends on them.

    What is labelled jointly with other dims moves as blocks over those: heads may still change places.
    """
    tensor = settled(tensor)
    where = LabelledTensor(tensor.space, tensor.shape, weight=True).with_positions(dims, reason)
    result = contract(POINTWISE, [tensor, where], tensor.shape)
    return LabelledTensor(tensor.space, tensor.shape, result.arrays, tensor.weight, None, tensor.name)


def ordered_along(rank: int, dims: tuple[int, ...]) -> str:
    """Same rank; the coordinates along `dims` may not move, and those of the result know their place."""
    names = axes(rank)
    after = [f"new{d}" if d in dims else x for d, x in enumerate(names)]
    return f"{term(names, ordered=dims)} -> {term(after, ordered=dims)}"


def per_dim(value: Any, rank: int, default: Any) -> list[Any]:
    """A stride, padding or window for every spatial dim, given as nothing, one number, or one per dim."""
    if value in (None, (), "valid", "same"):  # "same" adds nothing around a single tap
        return [default] * rank
    values = value if isinstance(value, tuple) else (value,)
    return list(values) * (rank // len(values))


def positions_of(still: list[bool], whole: list[bool] | None = None) -> tuple[str, str]:
    """Terms of an equation for spatial dims, before and after: ordered, unless each position stays where it is
    (`still`), or all are read alike into one (`whole`)."""
    before, after = [], []
    for d, (stays, alike) in enumerate(zip(still, whole or [False] * len(still), strict=True)):
        before.append(f"x{d}" if stays or alike else f"!x{d}")
        after.append(f"x{d}" if stays else f"!y{d}")
    return " ".join(before), " ".join(after)


def dims_of(value: Any, rank: int) -> tuple[int, ...]:
    """Dims given as None (all), a number or a list, counted from the front."""
    if value in (None, ()):
        return tuple(range(rank))
    dims = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(d, int) for d in dims):
        raise UnsupportedForm(f"dims given as {value}")
    return tuple(d % rank for d in dims) if rank else ()


def one_dim(value: int, rank: int) -> int:
    """One dim, counted from the front; that of a scalar is 0."""
    return value % max(1, rank)


def positions_only(
    tensor: LabelledTensor, shape: tuple[int, ...], start: int, reason: str = ORDERED
) -> LabelledTensor:
    """The arrays of `tensor`, on a result whose dims from `start` on are distinguished by position."""
    lead = LabelledTensor(tensor.space, shape, tensor.arrays, tensor.weight)
    return lead.with_positions(tuple(range(start, len(shape))), reason)


def written(base: LabelledTensor, dim: int, sources: Sequence[LabelledTensor]) -> LabelledTensor:
    """The result of writing at positions of `dim`: they are distinguished in all that meets there, and all else is
    elementwise."""
    return added(base, dim, [placed(t, (dim,) if t.rank else (), INDEX) for t in sources])


def added(base: LabelledTensor, dim: int, sources: Sequence[LabelledTensor]) -> LabelledTensor:
    """The same, where all that meets at a position is added, or reduced in another way that knows no order: what is
    added moves along `dim` with the index that says where."""
    terms = ["m" if t.rank < base.rank else "l* m r*" for t in sources]
    tensors = [placed(base, (dim,) if base.rank else (), INDEX), *map(settled, sources)]
    return contract(", ".join(["l* n r*", *terms]) + " -> l* n r*", tensors, base.shape, {"l*": dim})


def part_by_data(tensor: LabelledTensor, dim: int, shape: tuple[int, ...]) -> LabelledTensor:
    """A part of a dim (or, where `shape` has one dim less, one place of it) that the data decide on: positions are
    ordered, the other dims pass."""
    left = "l* n r* -> l* !m r*" if len(shape) == tensor.rank else "l* n r* -> l* r*"
    return contract(left, [placed(tensor, (dim,), INDEX)], shape, {"l*": dim})
