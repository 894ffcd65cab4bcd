"""Recurrent layers: the blocks of rows of the gates move together, with the columns that read the state back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes import movement as moves
from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Rule
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Shape

# Rows are (gate, unit), gates in a fixed order; time is ordered, and its order shows in the result.
INPUT = "b !t i, (!g h) i, (!g h)?, (!g h)? -> b !T h"
STATE = "b T k, (!g h) k, b T h, b k?, b h? -> b T h"
PROJECTED = "b T h, p h -> b T p"


def _layer(
    context: Context, x: Value, weights: list[Value], hx: list[Value], gates: int, biased: bool
) -> tuple[Value, Value]:
    """One direction of one layer: x (b, t, i) → state (b, t, k), k = h, or p when it is projected, and cell (b, t, h)."""
    w_ih, w_hh, *rest = weights
    batch, time, units = x.shape[0], x.shape[1], w_ih.shape[0] // gates
    biases: list[Value | None] = [*rest[:2]] if biased else [None, None]
    cell = contract(context, INPUT, [x, w_ih, *biases], (batch, time, units), g=gates)
    state = cell
    if len(rest) > (2 if biased else 0):
        projection = rest[-1]
        state = contract(context, PROJECTED, [cell, projection], (batch, time, projection.shape[0]))
    read = [state, w_hh, cell, hx[0], hx[1] if len(hx) > 1 else None]
    contract(context, STATE, read, (batch, time, units), g=gates)
    return state, cell


def _recurrent(gates: int) -> Rule:
    def rule(context: Context) -> tuple[Value | None, ...]:
        if not isinstance(context.arg(3, "has_biases"), bool):
            raise NotImplementedError("packed sequences")
        x, hx = context.need(0, "input"), context.arg(1, "hx")
        start = [v for v in map(context.value, hx if isinstance(hx, tuple) else (hx,)) if v is not None]
        weights = [v for v in map(context.value, context.arg(2, "params")) if v is not None]
        biased, layers = bool(context.arg(3, "has_biases")), int(context.arg(4, "num_layers"))
        ways, batched = 1 + bool(context.arg(7, "bidirectional")), bool(context.arg(8, "batch_first"))
        x = x if batched else moves.swap(context, x, 0, 1)
        per = len(weights) // (layers * ways)
        last: list[tuple[Value, Value]] = []
        for layer in range(layers):
            made = []
            for way in range(ways):
                at = layer * ways + way
                initial = [moves.select(context, h, 0, at) for h in start]
                last.append(_layer(context, x, weights[at * per : (at + 1) * per], initial, gates, biased))
                made.append(last[-1][0])
            x = moves.concat(context, made, 2) if ways > 1 else made[0]
        x = x if batched else moves.swap(context, x, 0, 1)
        return (x, *(_read(context, i, [pair[i] for pair in last]) for i in range(len(start))))

    rule.__doc__ = INPUT
    return rule


def _read(context: Context, which: int, states: list[Value]) -> Value | None:
    """One of the final states, when something reads it."""
    meta = context.node.results[1 + which]
    return _final(context, states, meta.shape) if meta and context.reads(1 + which) else None


def _final(context: Context, states: list[Value], shape: Shape) -> Value:
    """The states after the last step, one per layer and direction, stacked: each has units of its own."""
    rows = [moves.select(context, state, 1, -1) for state in states]
    units = [a.labels for row in rows for a in row.arrays if a.dims == (1,)]
    if len(units) < len(rows) or any(len(row.arrays) > len(row.on(1)) + len(row.on(0)) for row in rows):
        return moves.concat(context, [moves.insert(context, row, 0) for row in rows], 0)
    joint = Array((2,), units[0])
    if len(units) > 1:  # the units of two layers may have been tied elsewhere: what is new tells them apart
        fresh, layer = (
            context.points.fresh((len(units), units[0].size)),
            context.fresh_pinned((len(units), 1), "layer"),
        )
        context.points.link(fresh, np.stack(units))
        context.points.link(fresh, layer)
        joint = Array((0, 2), fresh)
    batch = tuple(replace(a, dims=(1,)) for a in rows[0].arrays if a.dims == (0,))
    return Value(shape, (joint, *batch), name=context.node.name)


RULES: dict[str, Rule] = {
    "lstm": _recurrent(4),
    "gru": _recurrent(3),
    "rnn_tanh": _recurrent(1),
    "rnn_relu": _recurrent(1),
}
