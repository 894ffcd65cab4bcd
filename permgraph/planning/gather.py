"""From a plan and permutations to one gather per tensor and axis: `new = old.take(index, axis)`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations, source_slots
from permgraph.ir.plan import Plan, Step
from permgraph.ir.spec import IntArray

T = TypeVar("T")


@dataclass(frozen=True)
class Gather:
    """`new = old.take(index, axis)` when `index` has shape (n,).

    With `rows_axis`, `index` has shape (rows, n) and the order along `axis` depends on the coordinate along
    `rows_axis`: `new = take_along_axis(old, index, axis)` with `index` broadcast over the other axes. Such a
    gather comes after the one on `rows_axis`.
    """

    tensor: str
    axis: int
    index: IntArray
    rows_axis: int | None = None

    @property
    def moves(self) -> bool:
        """Whether it moves anything."""
        return bool((self.index != np.arange(self.index.shape[-1])).any())

    def broadcast(self, ndim: int) -> IntArray:
        """The index of an order per row, with as many dims as the tensor."""
        assert self.rows_axis is not None
        shape = [1] * ndim
        shape[self.rows_axis], shape[self.axis] = self.index.shape
        return (self.index if self.rows_axis < self.axis else self.index.T).reshape(shape)


def gathers(plan: Plan, perms: Permutations, outputs: bool = False) -> list[Gather]:
    """One gather per moved tensor and axis, in an order in which they can be applied one after another.

    Places on outputs of the network ("output:0") are left out unless `outputs` asks for them alone.
    Both have been checked (`check_plan`, `check_permutations`); what `apply`, `merge` and `verify` are given is.
    Raises PlanError when a place lies outside its tensor or places overlap.
    """
    chosen = [s for s in plan.steps if s.tensor.startswith("output:") == outputs]
    by_axis: dict[tuple[str, int], list[Step]] = {}
    for step in chosen:
        by_axis.setdefault((step.tensor, step.axis), []).append(step)
    found = [_gather(plan, steps, perms) for steps in by_axis.values()]
    return sorted(found, key=lambda g: g.rows_axis is not None)


def apply_gathers(tensor: T, steps: Iterable[Gather]) -> T:
    """A copy of one tensor, torch or numpy, re-ordered. No arithmetic: every dtype is kept bit for bit."""
    moved: T = (_apply_numpy if isinstance(tensor, np.ndarray) else _apply_torch)(tensor, steps)
    return moved


def _apply_numpy(array: Any, steps: Iterable[Gather]) -> Any:
    moved = array
    for step in steps:
        if step.rows_axis is None:
            moved = moved.take(step.index, axis=step.axis)
        else:
            moved = np.take_along_axis(moved, step.broadcast(moved.ndim), axis=step.axis)
    return array.copy() if moved is array else moved


def _apply_torch(tensor: Any, steps: Iterable[Gather]) -> Any:
    import torch

    source = tensor.detach().clone()
    bits = _bits(source)
    for step in steps:
        if step.rows_axis is None:
            bits = bits.index_select(step.axis, torch.from_numpy(step.index).to(bits.device))
        else:
            index = torch.from_numpy(np.ascontiguousarray(step.broadcast(bits.ndim))).to(bits.device)
            bits = torch.take_along_dim(bits, index, dim=step.axis)
    return bits.view(source.dtype)


def _bits(tensor: Any) -> Any:
    """The tensor as integers of the same width: torch's operators lack some of the float8 dtypes."""
    import torch

    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(widths.get(tensor.element_size(), tensor.dtype))


def one_after_another(tensors: Sequence[T], axis: int) -> T:
    """Tensors of one dtype, torch or numpy, along an axis of theirs."""
    several: Any = tensors
    if isinstance(several[0], np.ndarray):
        return np.concatenate(several, axis=axis)  # type: ignore[return-value]
    import torch

    return torch.cat([_bits(t.detach()) for t in several], dim=axis).view(several[0].dtype)  # type: ignore[return-value]


def index_of(length: int, height: int | None, pieces: Iterable[tuple[Any, IntArray, IntArray]]) -> IntArray:
    """The index of a gather along an axis of this length: (length,), or (height, length) with an order per row.

    Each piece is (rows or None for all, positions, where their content comes from), arrays (…, r), (…, m), (…, m).
    Raises IndexError when one lies outside.
    """
    index = np.tile(np.arange(length), (height or 1, 1))
    for rows, positions, sources in pieces:
        if rows is None:
            held = positions.ravel() >= 0
            index[:, positions.ravel()[held]] = sources.ravel()[held]
        else:
            index[rows[..., :, None], positions[..., None, :]] = sources[..., None, :]
    return index[0] if height is None else index


def _gather(plan: Plan, steps: Sequence[Step], perms: Permutations) -> Gather:
    tensor, axis = steps[0].tensor, steps[0].axis
    shape = plan.spec.shapes.get(tensor)
    length = shape[axis] if shape else 1 + max(s.positions.bounds()[1] for s in steps)
    row_axes = {s.rows_axis for s in steps if s.rows_axis is not None}
    if len(row_axes) > 1:
        raise PlanError(f"{tensor}[{axis}]: its places are given per row of {len(row_axes)} different axes.")
    rows_axis = row_axes.pop() if row_axes else None
    height = None if rows_axis is None or shape is None else shape[rows_axis]
    pieces = []
    for step in steps:
        positions = step.positions.array()
        sources = positions[source_slots(plan.spec, step.layout, perms)]
        pieces.append((None if step.rows is None else step.rows.array(), positions, sources))
    try:
        index = index_of(length, height, pieces)
    except IndexError as error:
        raise PlanError(f"{tensor}[{axis}]: a place lies outside the tensor: {error}.") from error
    if not np.array_equal(np.sort(index), np.broadcast_to(np.arange(length), index.shape)):
        raise PlanError(f"{tensor}[{axis}]: the places of the plan overlap; some units would be lost.")
    return Gather(tensor, axis, index, rows_axis)
