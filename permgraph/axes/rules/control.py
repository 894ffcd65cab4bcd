"""The joints of loops, as `trace/control.py` puts them: a turn leaves the axes of a state as they were."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, equation
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context


def _carry(context: Context) -> Value:
    """A state before a turn: what it starts as, with points also where all is equal at the start."""
    value = context.need(0, "state")
    covered = {d for array in value.arrays for d in array.dims}
    fresh = tuple(
        Array((d,), context.points.fresh((n,)))
        for d, n in enumerate(value.shape)
        if n > 1 and d not in covered
    )
    return Value(value.shape, value.arrays + fresh, name=context.node.name)


def _loop(context: Context) -> Result:
    """Before and after a turn, each state moves as it did."""
    made = []
    for before, after in context.node.args[0]:
        a, b = context.value(before), context.value(after)
        made.append(contract(context, "..., ... -> ...", [a, b], a.shape) if a is not None else None)
    return tuple(made)


def _collect(context: Context) -> Value:
    """Results of all steps, stacked: steps are ordered."""
    value, shape = context.need(0, "row"), context.node.shape
    arrays = tuple(Array(tuple(d + 1 for d in a.dims), a.labels, a.pinned, a.repeats) for a in value.arrays)
    return Value(shape, arrays + context.positions(shape, (0,), "ordered axis"), name=context.node.name)


RULES: dict[str, Rule] = {
    "permgraph.carry": _carry,
    "permgraph.step": equation("!t ... -> ..."),
    "permgraph.loop": _loop,
    "permgraph.collect": _collect,
}
