"""Branches and loops that torch.export keeps: both arms and one turn are read, and the law holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from permgraph.axes.rules import RULES
from permgraph.plan.verify import verify
from permgraph.symmetry.infer import infer
from permgraph.trace.capture import capture


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)


class Branch(Layers):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        h = torch.cond(h.sum() > 0, lambda h: self.one(h), lambda h: 2 * self.two(h), (h,))
        return self.last(h.tanh())  # type: ignore[no-any-return]


class Scan(Layers):
    """A recurrent layer that starts at zero, where all units look the same; its last state is not read."""

    def forward(self, x: Tensor) -> Tensor:
        def step(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            state = torch.tanh(self.first(row) + self.one(state))
            return state, 2 * state

        _, rows = scan(step, x.new_zeros(2, 6), x, dim=0)
        return self.last(rows)  # type: ignore[no-any-return]


class While(Layers):
    def forward(self, x: Tensor) -> Tensor:
        def goes_on(i: Tensor, h: Tensor) -> Tensor:
            return (i < 3) & (h.sum() < 100)

        _, h = while_loop(
            goes_on, lambda i, h: (i + 1, self.one(h).tanh()), (torch.tensor(0), self.first(x).tanh())
        )
        return self.last(h)  # type: ignore[no-any-return]


class OrderedWhile(Layers):
    """How often it turns depends on the third unit: none may move."""

    def forward(self, x: Tensor) -> Tensor:
        def goes_on(i: Tensor, h: Tensor) -> Tensor:
            return (i < 3) & (h[0, 0].cumsum(0)[2] < 100)

        _, h = while_loop(
            goes_on, lambda i, h: (i + 1, self.one(h).tanh()), (torch.tensor(0), self.first(x).tanh())
        )
        return self.last(h)  # type: ignore[no-any-return]


class Map(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(map_rows(lambda row: self.one(self.first(row).tanh()).tanh(), x))  # type: ignore[no-any-return]


# number of places of each group of 6 units
FLOWS: dict[type[nn.Module], list[int]] = {
    Branch: [4, 5],
    Scan: [6],
    While: [6],
    OrderedWhile: [],
    Map: [3, 3],
}


@pytest.mark.parametrize("kind", FLOWS, ids=lambda kind: kind.__name__)
def test_groups_run_through_control_flow(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = kind().double().eval(), (torch.randn(5, 2, 4).double(),)
    found = infer(capture(net, x))
    assert not found.unknown_ops
    assert [(g.size, len(g.places)) for g in found.groups] == [(6, n) for n in FLOWS[kind]]
    assert max(verify(net, x, found, seed=seed) for seed in range(2)) < 1e-12


def test_a_loop_that_does_not_close_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = Scan().double().eval(), (torch.randn(5, 2, 4).double(),)
    loose = RULES["permgraph.carry"]
    monkeypatch.setitem(
        RULES, "permgraph.loop", lambda context: tuple(loose(context) for _ in context.node.results)
    )
    monkeypatch.setitem(RULES, "permgraph.carry", lambda context: context.need(0, "state"))
    assert verify(net, x, infer(capture(net, x))) > 1e-6
