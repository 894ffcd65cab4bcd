"""Recurrent layers: the blocks of rows of the gates move together, with the columns that read the state back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from permgraph.axes import movement
from permgraph.axes.contraction import contract
from permgraph.axes.joining import concat
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op
from permgraph.ir.names import hidden_states_name

# Rows are (gate, unit), gates in a fixed order; time is ordered, and its order shows in the result.
INPUT = "b !t i, (!g h) i, (!g h)?, (!g h)? -> b !s h"
STATE = "b t k, (!g h) k, b t h, b k?, b h? -> b t h"
PROJECTED = "b t h, p h -> b t p"

State = tuple[LabelledTensor, LabelledTensor]


def _layer(
    x: LabelledTensor, weights: tuple[LabelledTensor, ...], hx: list[LabelledTensor], gates: int, biased: bool
) -> State:
    """One direction of one layer: x (b, t, i) → state (b, t, k), k = h, or p when it is projected, and cell (b, t, h)."""
    w_ih, w_hh, *rest = weights
    shape = (*x.shape[:2], w_ih.shape[0] // gates)
    biases = [*rest[:2]] if biased else [None, None]
    cell = contract(INPUT, [x, w_ih, *biases], shape, {"g": gates})
    state = cell
    if len(rest) > (2 if biased else 0):
        state = contract(PROJECTED, [cell, rest[-1]], (*shape[:2], rest[-1].shape[0]))
    contract(STATE, [state, w_hh, cell, hx[0], hx[1] if len(hx) > 1 else None], shape, {"g": gates})
    return state, cell


def _recurrent(gates: int) -> Callable[..., Results]:
    def layers(
        hx: LabelledTensor | tuple[LabelledTensor, ...],
        params: tuple[LabelledTensor, ...],
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        call: Call,
        input: LabelledTensor | None = None,
        batch_first: bool = False,
    ) -> Results:
        """All layers, one after another, each in one or two directions."""
        if input is None:
            raise UnsupportedForm("packed sequences")
        start = hx if isinstance(hx, tuple) else (hx,)
        x = input if batch_first else movement.swap(input, 0, 1)
        ways = 2 if bidirectional else 1
        per = len(params) // (num_layers * ways)
        last: list[State] = []
        for first in range(0, num_layers * ways, ways):
            for at in range(first, first + ways):
                initial = [movement.select(h, 0, at) for h in start]
                last.append(_layer(x, params[at * per : (at + 1) * per], initial, gates, has_biases))
                _show(call, last[-1], at // ways, bool(at % ways))
            states = [state for state, _ in last[first:]]
            x = concat(states, 2) if ways > 1 else states[0]
        x = x if batch_first else movement.swap(x, 0, 1)
        return (x, *(_final(call, i, last) if i in call.read else None for i in range(1, 1 + len(start))))

    return layers


def _show(call: Call, made: State, layer: int, reverse: bool) -> None:
    """The hidden states of this layer and direction can be observed, also where they are projected afterwards."""
    state, cell = made
    node = call.node.name
    call.space.show(hidden_states_name(node, layer, reverse), state)
    if cell is not state:
        call.space.show(hidden_states_name(node, layer, reverse, inner=True), cell)


def _final(call: Call, result: int, last: list[State]) -> LabelledTensor:
    """The states (or cells) after the last step, one per layer and direction, stacked: each has units of its own."""
    rows = [movement.select(states[result - 1], 1, -1) for states in last]
    space, shape = call.space, call.shapes[result]
    units = [a.labels for row in rows for a in row.arrays if a.dims == (1,)]
    if len(units) < len(rows) or any(len(row.arrays) > len(row.on(1)) + len(row.on(0)) for row in rows):
        return concat([movement.insert(row, 0) for row in rows], 0)
    joint = LabelArray((2,), units[0])
    if len(units) > 1:  # the units of two layers may have been tied elsewhere: what is new distinguishes them
        fresh = space.points.fresh((len(units), units[0].size))
        space.points.link(fresh, np.stack(units))
        space.points.link(fresh, space.fresh_pinned((len(units), 1), "layer"))
        joint = LabelArray((0, 2), fresh)
    batch = tuple(replace(a, dims=(1,)) for a in rows[0].arrays if a.dims == (0,))
    return LabelledTensor(space, shape, (joint, *batch))


op("lstm")(_recurrent(4))
op("gru")(_recurrent(3))
op("rnn_tanh rnn_relu")(_recurrent(1))
