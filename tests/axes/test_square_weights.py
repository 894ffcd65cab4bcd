"""A weight between units of one group whose diagonal is read apart: both its axes move together, with the units."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import permgraph as pg

UNITS = 5


class Square(nn.Module):
    def __init__(self, reads: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.down, self.reads = nn.Linear(3, UNITS), nn.Linear(UNITS, 2), reads
        self.between = nn.Parameter(torch.randn(UNITS, UNITS))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.reads(self.up(x).tanh(), self.between))


READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a loop of each unit": lambda h, w: (h @ w).tanh() + h * w.diagonal(),
    "without its diagonal": lambda h, w: (h @ (w - w.diagonal().diag_embed())).tanh() + h,
    "its trace": lambda h, w: (h @ w).tanh() * w.diagonal().sum() + h,
}


@pytest.mark.parametrize("name", READS)
def test_units_are_free_with_both_axes(name: str) -> None:
    torch.manual_seed(0)
    module, inputs = Square(READS[name]).eval(), (torch.randn(4, 3),)
    spec = pg.infer(pg.trace(module, inputs))
    assert [group.size for group in spec.groups] == [UNITS]
    assert {(p.tensor, p.axis) for p in spec.places} >= {("between", 0), ("between", 1), ("up.weight", 0)}
    assert pg.verify(module, inputs, spec) <= 1e-9


def test_another_diagonal_orders_the_units() -> None:
    """The elements next to the diagonal say which unit comes after which."""
    module = Square(lambda h, w: (h @ w).tanh() + h * torch.cat([w.diagonal(1), w[0, :1]]))
    spec = pg.infer(pg.trace(module, (torch.randn(4, 3),)))
    assert not spec.groups
