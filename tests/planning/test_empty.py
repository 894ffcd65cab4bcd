"""A parameter without numbers, as DINOv3's register tokens when it has none, is planned and permuted as the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import permgraph as pg


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.registers = nn.Parameter(torch.zeros(1, 0, 6))
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(
            torch.relu(self.up(torch.cat([self.registers.expand(x.shape[0], -1, -1), x], 1)))
        )
        return result


def test_a_parameter_without_numbers_is_planned() -> None:
    net, inputs = Tokens().eval(), (torch.randn(1, 3, 6),)
    plan = pg.plan(pg.infer(pg.trace(net, inputs)))
    assert [g.size for g in plan.groups] == [8]
    moved = pg.apply(plan, pg.random_permutations(plan, seed=0), net.state_dict())
    assert moved["registers"].shape == (1, 0, 6) and not torch.equal(moved["up.weight"], net.up.weight)
    assert pg.verify(net, inputs, plan).kept
