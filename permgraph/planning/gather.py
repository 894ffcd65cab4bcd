"""From a plan and permutations to one gather per tensor and axis: `new = old.take(index, axis)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations, source_slots
from permgraph.ir.plan import Plan, Step
from permgraph.ir.spec import IntArray


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


def gathers(plan: Plan, perms: Permutations, outputs: bool = False) -> list[Gather]:
    """One gather per moved tensor and axis, in an order in which they can be applied one after another.

    Places on outputs of the network ("output:0") are left out unless `outputs` asks for them alone.
    """
    chosen = [s for s in plan.steps if s.tensor.startswith("output:") == outputs]
    by_axis: dict[tuple[str, int], list[Step]] = {}
    for step in chosen:
        by_axis.setdefault((step.tensor, step.axis), []).append(step)
    found = [_gather(plan, steps, perms) for steps in by_axis.values()]
    return sorted(found, key=lambda g: g.rows_axis is not None)


def _gather(plan: Plan, steps: list[Step], perms: Permutations) -> Gather:
    tensor, axis = steps[0].tensor, steps[0].axis
    shape = plan.spec.tensors.get(tensor)
    if shape is None and not tensor.startswith("output:"):
        raise PlanError(f"{tensor}: the plan moves it but does not give its shape.")
    size = shape[axis] if shape else 1 + max(int(s.positions.array().max()) for s in steps)
    row_axes = {s.rows_axis for s in steps if s.rows_axis is not None}
    if len(row_axes) > 1:
        raise PlanError(f"{tensor}[{axis}]: its places are given per row of {len(row_axes)} different axes.")
    rows_axis = row_axes.pop() if row_axes else None
    count = 1 if rows_axis is None or shape is None else shape[rows_axis]
    index = np.tile(np.arange(size), (count, 1))
    try:
        for step in steps:
            positions, moved = _moved(plan, step, perms)
            if step.rows is None:  # holds at every row
                index[:, positions.ravel()] = moved.ravel()
                continue
            rows = step.rows.array()[..., :, None]
            index[rows, positions[..., None, :]] = moved[..., None, :]
    except IndexError as error:
        raise PlanError(f"{tensor}[{axis}]: a place lies outside the tensor: {error}.") from error
    if not np.array_equal(np.sort(index, axis=1), np.tile(np.arange(size), (count, 1))):
        raise PlanError(f"{tensor}[{axis}]: the places of the plan overlap; some units would be lost.")
    return Gather(tensor, axis, index[0] if rows_axis is None else index, rows_axis)


def _moved(plan: Plan, step: Step, perms: Permutations) -> tuple[IntArray, IntArray]:
    """Positions of a step, and for each the position its content comes from."""
    positions = step.positions.array()
    return positions, positions[source_slots(plan.spec, list(step.layout), perms.only(plan.selected))]


def apply_numpy(array: NDArray[Any], steps: Iterable[Gather]) -> NDArray[Any]:
    """Apply the gathers of one tensor to its contents; no arithmetic, so every dtype is kept bit for bit."""
    for step in steps:
        if step.rows_axis is None:
            array = array.take(step.index, axis=step.axis)
            continue
        index = step.index if step.rows_axis < step.axis else step.index.T
        view = [1] * array.ndim
        view[step.rows_axis], view[step.axis] = step.index.shape
        array = np.take_along_axis(array, index.reshape(view), axis=step.axis)
    return array
