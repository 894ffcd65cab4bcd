"""The φ-nodes of loops, as `frontend/control_flow.py` puts them: a turn leaves the axes of a state as they were."""

from __future__ import annotations

from dataclasses import replace

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules.builders import pointwise
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.workspace import ORDERED

register("permgraph.step", "!t ... -> ...")


@op("permgraph.carry")
def carry(state: LabelledTensor) -> LabelledTensor:
    """A state before a turn: what it starts as, with points also where all is equal at the start."""
    state.space.use(state)
    covered = {d for array in state.arrays for d in array.dims}
    free = [d for d, n in enumerate(state.shape) if n > 1 and d not in covered]
    fresh = tuple(LabelArray((d,), state.space.points.fresh((state.shape[d],))) for d in free)
    arrays = tuple(map(state.space.used_part, state.arrays))
    return LabelledTensor(state.space, state.shape, arrays + fresh)


@op("permgraph.loop")
def loop(before: tuple[LabelledTensor, ...], after: tuple[LabelledTensor, ...]) -> Results:
    """Before and after a turn, each state moves as it did."""
    return tuple(pointwise(a, b) for a, b in zip(before, after, strict=True))


@op("permgraph.collect")
def collect(row: LabelledTensor, call: Call) -> LabelledTensor:
    """Results of all steps, stacked: steps are ordered."""
    used = map(row.space.used_part, row.arrays)
    arrays = tuple(replace(a, dims=tuple(d + 1 for d in a.dims)) for a in used)
    call.only_shapes()  # of the loop it reads nothing, but comes after it
    return LabelledTensor(row.space, call.shape, arrays).with_positions((0,), ORDERED)
