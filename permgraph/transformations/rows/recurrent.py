"""Recurrent layers: what one step keeps, all steps keep, when the state before the first is zero or multiplied alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from permgraph.ir.names import hidden_states_name
from permgraph.ir.trace import Shape
from permgraph.transformations.call import SCALES, SIGNS, Blocked, Call, Results, row
from permgraph.transformations.forms import Algebra
from permgraph.transformations.patterns import (
    Pattern,
    added,
    alike_along,
    blocked,
    contracted,
    full,
    short,
)

NEW = {1: 0, 3: 2, 4: 2}  # number of gates → which rows make the new state; the others pass through a sigmoid


@dataclass(frozen=True)
class Weight:
    """One weight of a layer: its forms, and its shape."""

    forms: Pattern
    shape: Shape

    def times(self, forms: Algebra, x: Pattern) -> Pattern:
        """W x, for x (1, in) → (1, out)."""
        out, width = self.shape
        return contracted(forms, "ni,oi->no", x, self.forms, ((1, width), (out, width)), (1, out))


def _direction(
    forms: Algebra, x: Pattern, start: list[Pattern], weights: list[Weight], gates: int, biased: bool
) -> tuple[Pattern, Pattern]:
    """One direction of one layer: the forms of what enters, (1, in) → of its state and of its cell, (1, hidden)."""
    w_ih, w_hh, *rest = weights
    rows = w_ih.shape[0]
    entering = w_ih.times(forms, x)
    if biased:
        entering = added(forms, [entering, rest[0].forms], (1, rows))
    each = _parts(entering, gates)
    for gate in range(gates):
        if gate != NEW[gates]:
            blocked(forms, each[gate])
    cell = state = each[NEW[gates]]
    if len(rest) > (2 if biased else 0):
        state = rest[-1].times(forms, cell)
    again = w_hh.times(forms, state)
    if biased:
        again = added(forms, [again, rest[1].forms], (1, rows))
    for one, other in zip(_parts(again, gates), each, strict=True):
        added(forms, [one, other], (1, rows // gates))
    for before, own in zip(start, (state, cell), strict=False):
        width = (before if before is not None else own if own is not None else torch.zeros(1, 1)).shape[-1]
        added(forms, [own, None if before is None else before.reshape(-1, width)], (-1, width))
    return state, cell


def _parts(pattern: Pattern, count: int) -> list[Pattern]:
    return [None] * count if pattern is None else [short(p) for p in pattern.chunk(count, -1)]


def _recurrent(gates: int, kind: str) -> Callable[[Call], Results]:
    def layers(call: Call) -> Results:
        """All layers, one after another, each in one or two directions."""
        if call.kind != kind or call.shapes.get("input") is None:
            raise Blocked("its functions do not commute with a factor")
        hx = call.patterns["hx"]
        starts, biased = hx if isinstance(hx, list) else [hx], bool(call.option("has_biases"))
        ways = 2 if call.option("bidirectional") else 1
        count = int(call.option("num_layers")) * ways
        params = [Weight(*one) for one in zip(call.patterns["params"], call.shapes["params"], strict=True)]
        per = len(params) // count
        x = call.of("input")
        entering = None if x is None else alike_along(call.forms, x, range(x.dim() - 1)).reshape(1, -1)
        made: list[tuple[Tensor, Tensor]] = []
        for at in range(count):
            weights = params[at * per : (at + 1) * per]
            begin = [None if p is None else p[at] for p in starts]
            found = _direction(call.forms, entering, begin, weights, gates, biased)
            sizes = (weights[1].shape[1], weights[1].shape[0] // gates)
            for inner, pattern in zip((False, True), found, strict=True):
                name = hidden_states_name(call.node.name, at // ways, bool(at % ways), inner)
                call.inside[name] = pattern
            made.append((full(found[0], (1, sizes[0])), full(found[1], (1, sizes[1]))))
            if (at + 1) % ways == 0:
                entering = short(torch.cat([state for state, _ in made[-ways:]], -1))
        last = [torch.stack(part) for part in zip(*made, strict=True)]
        metas = call.node.results[1:]
        ends = [short(p.expand(m.shape)) if m else None for p, m in zip(last, metas, strict=False)]
        return [None if entering is None else entering[0].expand(call.shape), *ends]

    return layers


row("rnn_tanh")(_recurrent(1, SIGNS))
row("rnn_relu")(_recurrent(1, SCALES))
row("gru")(_recurrent(3, SIGNS))
row("lstm")(_recurrent(4, SIGNS))
