"""Slices: which weights are labelled once more, with an order in each of their rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles.bound import above
from oracles.law import law
from torch import Tensor, nn
from torch.nn import functional as F

import permgraph as pg
from permgraph.axes.propagation import propagate

HOW: dict[str, Callable[[Tensor, int], Tensor]] = {
    "batch norm, as in BiT": lambda w, groups: F.batch_norm(
        w.reshape(1, len(w), -1), None, None, training=True, momentum=0.0
    ).reshape_as(w),
    "mean and deviation": lambda w, groups: (
        (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
    ),
    "group norm": lambda w, groups: F.group_norm(w.reshape(1, len(w), -1), groups).view_as(w),
    "a factor for every tap": lambda w, groups: (
        w.reshape(len(w), -1, 9) * torch.arange(1.0, 10.0, dtype=w.dtype)
    ).view_as(w),
    "rows mixed": lambda w, groups: (
        torch.cos(torch.outer(w[:, 0, 0, 0], w[:, 0, 0, 0])) @ w.flatten(1)
    ).view_as(w),
    "all in one": lambda w, groups: w.reshape(-1).softmax(0).view_as(w),
}


class Computed(nn.Module):
    """A convolution whose kernel is computed from its weight, between two others."""

    def __init__(self, groups: int, how: str = "batch norm, as in BiT", width: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Conv2d(width, 2, 1)
        self.weight = nn.Parameter(torch.randn(width, width // groups, 3, 3))
        self.groups, self.how = groups, how

    def forward(self, x: Tensor) -> Tensor:
        kernel = HOW[self.how](self.weight, self.groups)
        return self.last(F.conv2d(self.first(x), kernel, padding=1, groups=self.groups))  # type: ignore[no-any-return]


def test_rows_of_a_plain_kernel_have_no_orders_of_their_own() -> None:
    """They would take a label for every number of the kernel, and free nothing."""
    plain = pg.trace(Computed(1).eval(), (torch.randn(1, 3, 5, 5),))
    assert propagate(plain).slices == {}
    assert {(g.size, g.copies) for g in pg.infer(plain).groups} == {(8, 1)}


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("how", HOW)
def test_a_computed_kernel_has_an_order_in_each_group(how: str, groups: int) -> None:
    """Of its inputs and outputs in each group, and of the groups: as many as where the weight itself is the kernel."""
    torch.manual_seed(0)
    module, inputs = Computed(groups, how).double().eval(), (torch.randn(2, 3, 5, 5, dtype=torch.float64),)
    spec = pg.infer(pg.trace(module, inputs))
    change, broken = law(module, inputs, spec)
    assert change < 1e-9 < broken
    assert above(module, inputs, spec) == []
    if how != "rows mixed":
        orders = sorted((g.size, g.copies) for g in spec.groups)
        assert orders == sorted([(8 // groups, groups), (8 // groups, groups), (groups, 1)])


def test_a_wide_grouped_kernel_has_no_label_for_every_number() -> None:
    """NFNet's widest has 768 rows of 1,152 numbers, 57 such kernels did not fit in memory."""
    module = Computed(6, width=768).eval()
    trace = pg.trace(module, (torch.randn(1, 3, 5, 5),))
    slices = propagate(trace).slices
    assert propagate(trace, slices=slices).points.count < module.weight.numel() / 20
    assert sorted((g.size, g.copies) for g in pg.infer(trace).groups) == [(6, 1), (128, 6), (128, 6)]


class CutElsewhere(nn.Module):
    """A weight that is read as a whole, and a part of it once more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(6, 2)
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.linear(self.first(x).relu(), self.weight * self.weight[:, :1]).relu())  # type: ignore[no-any-return]


def test_what_is_read_as_a_whole_is_read_though_a_part_is_cut_out_elsewhere() -> None:
    module, inputs = CutElsewhere().double().eval(), (torch.randn(4, 3, dtype=torch.float64),)
    spec = pg.infer(pg.trace(module, inputs))
    assert sorted(g.size for g in spec.groups) == [6, 7]  # one of the 8 units is a factor of the others
    change, broken = law(module, inputs, spec)
    assert change < 1e-9 < broken
    assert above(module, inputs, spec) == []
