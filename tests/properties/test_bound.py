"""The bound from above: on small networks, no exchange of two units outside the inferred group keeps the function.

Two coordinates, or two blocks, are exchanged on every set of axes of one size, and the function is tried on
numbers. A smallest set that keeps it is a symmetry, so it has to be in the inferred group: a rule that pins too
much is found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
import torch
from networks import HANDMADE
from networks.traced import network, spec, trace
from torch import Tensor
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from permgraph.axes.rules import RULES
from permgraph.axes.rules.table import equation
from permgraph.ir.spec import PermSpec
from permgraph.symmetry.infer import infer
from permgraph.verification.state import State, Weights
from tests.axes.exchanges import exchanged_units

AXES = 9  # of one size; all their sets are tried
SMALL = [name for name in HANDMADE if name != "cifar_resnet"]  # too many axes of one size

Axis = tuple[str, int]
Order = tuple[int, ...]
Move = frozenset[tuple[str, int, Order]]  # axes, and the order they get


def exchange(n: int, size: int, i: int, j: int) -> Order:
    """The order after blocks i and j of the given size, at any offset, changed places."""
    order = np.arange(n)
    order[i : i + size], order[j : j + size] = np.arange(j, j + size), np.arange(i, i + size)
    return tuple(order.tolist())


def exchanges(n: int) -> Iterator[tuple[int, int, int]]:
    """(size, i, j): two coordinates to exchange, or two blocks of each size that divides n."""
    for size in [b for b in range(1, n // 2 + 1) if n % b == 0]:
        count = n // size
        pairs = {(0, 1), (0, count - 1), (count // 2 - 1, count // 2), (count - 2, count - 1)}
        yield from ((size, i * size, j * size) for i, j in sorted(pairs) if 0 <= i < j)


class Tried:
    """A network on numbers: which re-orderings leave its outputs as they were."""

    def __init__(self, name: str) -> None:
        self.net, inputs = network(name)
        self.inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        state = State(Weights(self.net), noise=1.0)
        self.state = {name: state[name] for name in state.weights.tensors}
        self.before = self.outputs(self.state)

    def outputs(self, state: dict[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            made = functional_call(self.net, state, self.inputs)
        return [x for x in tree_leaves(made) if isinstance(x, Tensor)]

    def keeps(self, axes: frozenset[Axis], order: Order) -> bool:
        state, index = dict(self.state), torch.tensor(order)
        for tensor, axis in axes:
            state[tensor] = state[tensor].index_select(axis, index)
        after = self.outputs(state)
        return all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(self.before, after, strict=True))

    def axes(self, size: int, of: PermSpec) -> list[Axis]:
        return [
            (name, axis)
            for name, shape in of.tensors.items()
            if self.state[name].is_floating_point()
            for axis, n in enumerate(shape)
            if n == size
        ]

    def smallest(self, axes: list[Axis], order: Order) -> Iterator[frozenset[Axis]]:
        """Smallest sets of axes on which `order` keeps the function. An axis that it keeps alone is not seen at all."""
        seen = [a for a in axes if not self.keeps(frozenset([a]), order)]
        found: list[frozenset[Axis]] = []
        for count in range(2, len(seen) + 1):
            for chosen in map(frozenset, combinations(seen, count)):
                if not any(known <= chosen for known in found) and self.keeps(chosen, order):
                    found.append(chosen)
                    yield chosen


def inferred(found: PermSpec) -> set[Move]:
    """What the exchange of any two units of any group does."""
    return {
        frozenset((g.tensor, g.axis, tuple(g.index.ravel().tolist())) for g in moves)
        for moves in exchanged_units(found)
    }


def visible(move: Move) -> Move:
    """Without the axes that it leaves in order."""
    return frozenset((t, a, order) for t, a, order in move if list(order) != sorted(order))


def lacking(name: str, found: PermSpec) -> list[Move]:
    tried, known = Tried(name), [visible(move) for move in inferred(found)]
    missing = []
    for n in sorted({n for shape in found.tensors.values() for n in shape if n > 1}):
        axes = tried.axes(n, found)
        for size, i, j in exchanges(n) if len(axes) <= AXES else ():
            for chosen in tried.smallest(axes, exchange(n, size, i, j)):
                if not any(contains(known, chosen, n, size, i, j, part) for part in range(1, size + 1)):
                    missing.append(frozenset((t, a, exchange(n, size, i, j)) for t, a in chosen))
    return missing


def contains(
    known: list[Move], chosen: frozenset[Axis], n: int, size: int, i: int, j: int, part: int
) -> bool:
    """Whether the group exchanges the two blocks, part by part. It may also move what the function does not see."""
    if size % part:
        return False
    for at in range(0, size, part):
        order = exchange(n, part, i + at, j + at)
        if not any(frozenset((t, a, order) for t, a in chosen) <= move for move in known):
            return False
    return True


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", SMALL)
def test_no_exchange_outside_the_group_keeps_the_function(name: str) -> None:
    assert lacking(name, spec(name)) == []


def test_a_rule_that_pins_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "linear", equation("... !i, o !i, o? -> ... o"))
    assert lacking("mlp", infer(trace("mlp"))) != []
