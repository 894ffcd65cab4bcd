"""Sizes that only the data tell (how many tokens an expert gets): captured, positions held, channels free."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)


class Experts(Layers):
    """Each expert takes the tokens that were routed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.up = nn.ModuleList(nn.Linear(6, 8) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(8, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weight, chosen = self.gate(x).softmax(-1).topk(2, -1)
        out = torch.zeros_like(x)
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            token, place = torch.where(chosen == i)
            out.index_add_(0, token, down(up(x[token]).relu()) * weight[token, place, None])
        return self.last(out)  # type: ignore[no-any-return]


class Rows(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x[x.sum(-1) > 0].relu())  # type: ignore[no-any-return]


class Repeated(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x.repeat_interleave((x.sum(-1) > 0).long() + 1, dim=0)).sum(0)  # type: ignore[no-any-return]


class Cut(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        count = x.sum(-1).gt(0).nonzero().shape[0]
        return self.last(x[:count].relu())  # type: ignore[no-any-return]


class CutChannels(Layers):
    """The channels themselves are cut by a count: none may move."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x[:, : x.sum(-1).gt(0).nonzero().shape[0]].sum(-1)


# the size and the number of places of every group
NETS: dict[type[nn.Module], list[tuple[int, int]]] = {
    Experts: [(3, 9), (6, 3), (6, 4), (8, 3)],  # experts change places with their rows of the gate
    Rows: [(6, 3)],
    Repeated: [(6, 3)],
    Cut: [(6, 3)],
    CutChannels: [],
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_channels_pass_where_counts_depend_on_data(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = kind().double().eval(), (torch.randn(5, 4).double(),)
    found = infer(capture(net, x))
    assert not found.unknown_ops
    assert sorted((g.size, len(g.places)) for g in found.groups) == NETS[kind]
    assert max(verify(net, x, found, seed=seed) for seed in range(2)) < 1e-12
