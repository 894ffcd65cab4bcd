"""Slices: which weights are labelled once more, with an order in each of their rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import permgraph as pg
from permgraph.axes.propagation import propagate


class Standardised(nn.Module):
    """A convolution whose kernel is standardised in each row, as in BiT, between two others."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.weight = nn.Parameter(torch.randn(8, 8 // groups, 3, 3))
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, 8, -1)
        kernel = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return self.last(F.conv2d(self.first(x), kernel, padding=1, groups=self.groups))  # type: ignore[no-any-return]


def test_rows_of_a_plain_kernel_have_no_orders_of_their_own() -> None:
    """They would take a label for every number of the kernel, and free nothing."""
    plain, grouped = (pg.trace(Standardised(groups).eval(), (torch.randn(1, 3, 5, 5),)) for groups in (1, 4))
    assert propagate(plain).slices == {}
    assert any("weight" in name for name in propagate(grouped).slices)
    assert {(g.size, g.copies) for g in pg.infer(plain).groups} == {(8, 1)}
    orders = sorted((g.size, g.copies) for g in pg.infer(grouped).groups)
    assert orders == [(2, 4), (2, 4), (4, 1)]  # inputs and outputs of each block, and the blocks
