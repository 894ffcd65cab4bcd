"""Branches and loops that torch.export keeps: both arms and one turn are read, and the law holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import flex_attention

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules import RULES, Call, Results
from permgraph.axes.rules.control import carry
from permgraph.axes.rules.table import op
from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


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


class Flex(nn.Module):
    """Attention with a score function that is told the head, or that is not; and the same spelled out."""

    def __init__(self, by_head: bool, spelled: bool) -> None:
        super().__init__()
        self.by_head, self.spelled = by_head, spelled
        self.packed, self.out = nn.Linear(4, 3 * 12), nn.Linear(12, 5)

    def score(self, score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score + 0.1 * (q - k) * (h if self.by_head else 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.packed(x).view(5, 2, 3, 3, 4).permute(2, 0, 3, 1, 4)
        if self.spelled:
            h, t = torch.arange(3)[:, None, None], torch.arange(2)
            y = self.score(q @ k.mT, h, h, t[:, None], t).softmax(-1) @ v
        else:
            y = flex_attention(q, k, v, score_mod=self.score)  # type: ignore[assignment]
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("by_head", [False, True])
def test_attention_with_a_score_function_has_the_groups_of_the_same_spelled_out(by_head: bool) -> None:
    torch.manual_seed(0)
    x = (torch.randn(5, 2, 4).double(),)
    nets = [Flex(by_head, spelled).double().eval().requires_grad_(False) for spelled in (False, True)]
    found, spelled = (infer(capture(net, x)) for net in nets)
    assert not found.unknown_ops
    assert [(g.size, g.copies, g.ancestors) for g in found.groups] == [
        (g.size, g.copies, g.ancestors) for g in spelled.groups
    ]
    assert {g.copies for g in found.groups} == ({1} if by_head else {1, 3})
    assert max(verify(net, x, found, seed=seed) for net in nets for seed in range(2)) < 1e-12


# number of places of each group of 6 units
FLOWS: dict[type[nn.Module], list[int]] = {
    Branch: [4, 5],
    Scan: [6],
    While: [6],
    OrderedWhile: [],
    Map: [3, 3],
}


@pytest.mark.sampled(3)
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
    for joint in ("loop", "carry"):
        monkeypatch.setitem(RULES, f"permgraph.{joint}", RULES[f"permgraph.{joint}"])  # put back afterwards

    @op("permgraph.loop")
    def loose(before: tuple[LabelledTensor, ...], after: tuple[LabelledTensor, ...], call: Call) -> Results:
        call.only_shapes()
        return tuple(carry(state) for state in before)

    @op("permgraph.carry")
    def as_it_is(state: LabelledTensor) -> LabelledTensor:
        return state

    assert verify(net, x, infer(capture(net, x))) > 1e-6
