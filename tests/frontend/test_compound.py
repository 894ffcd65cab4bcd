"""Compound ops are taken apart by torch, but for those with a row in the rule table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from permgraph.axes.rules import RULES
from permgraph.frontend.capture import capture
from permgraph.frontend.decomposition import ALSO, WHOLE, composed, makes_tensors
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


def overloads(name: str) -> list[Any]:
    packet = getattr(torch.ops.aten, name, None)
    return [getattr(packet, o) for o in packet.overloads()] if packet else []


def is_compound(name: str) -> bool:
    """Whether no overload would come through under this name."""
    made = [op for op in overloads(name) if makes_tensors(op) and not op._schema.is_mutable]
    return bool(made) and all(map(composed, made))


def test_what_stays_whole_has_a_rule_and_what_has_a_rule_stays_whole() -> None:
    assert sorted(WHOLE - set(RULES)) == []
    assert sorted({n for n in RULES if is_compound(n)} - WHOLE) == []


def test_what_is_listed_besides_has_no_rule_and_a_decomposition() -> None:
    known = {op for op in torch.export.default_decompositions()}
    assert sorted(ALSO & set(RULES)) == []
    assert [name for name in sorted(ALSO) if not any(op in known for op in overloads(name))] == []


class Pair(nn.Module):
    """Two layers whose units meet in a compound op; what comes out is read without an order."""

    def __init__(self, meet: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.meet = nn.Linear(4, 6), nn.Linear(4, 6), meet

    def forward(self, x: Tensor) -> Tensor:
        return self.meet(self.one(x), self.two(x)).sum()


STATE = ("one.weight", "one.bias", "two.weight", "two.bias")
MEETINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine_similarity": functional.cosine_similarity,
    "mse_loss": functional.mse_loss,
    "pairwise_distance": functional.pairwise_distance,
    "cross_entropy_loss": lambda a, b: functional.cross_entropy(a, b.softmax(-1)),
    "triplet_margin_loss": lambda a, b: functional.triplet_margin_loss(a, b, a * b),
    "absolute": lambda a, b: torch.absolute(a) * torch.arctan2(a, b),
    "tensordot": lambda a, b: torch.tensordot(a, b, dims=([1], [1])).tanh(),
    "isclose": lambda a, b: torch.where(torch.greater(a, b), a, b),
}


class Reading(Pair):
    """The same, whose code reads a value: it is captured by running it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2.0 if float(x.sum()) > 0 else x)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("network", [Pair, Reading])
@pytest.mark.parametrize("name", MEETINGS)
def test_the_units_of_a_compound_op_move_together(name: str, network: type[Pair]) -> None:
    torch.manual_seed(0)
    net, x = network(MEETINGS[name]).double().eval(), (torch.randn(3, 4).double(),)
    found = infer(capture(net, x))
    assert not found.unknown_ops
    [units] = [g for g in found.groups if g.size == 6]
    assert {m for p in units.places for m in found.members(p.tensor)} == set(STATE)
    rest = [g.size for g in found.groups if g is not units]
    assert rest == ([2] if name == "cosine_similarity" else [])  # in which the two layers may change places
    assert verify(net, x, found) < 1e-12


def test_a_cell_taken_apart_has_the_units_of_its_state() -> None:
    torch.manual_seed(0)

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.LSTMCell(3, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = c = x.new_zeros(x.shape[1], 5)
            for step in x:
                h, c = self.cell(step, (h, c))
            return self.out(h)  # type: ignore[no-any-return]

    net, x = Cell().double().eval(), (torch.randn(4, 2, 3).double(),)
    found = infer(capture(net, x))
    assert not found.unknown_ops
    assert [g.size for g in found.groups] == [5]
    assert verify(net, x, found) < 1e-12
