"""One tensor in two orders: added, its results are equal in pairs or on a circle; other tensors are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles.automorphisms import log10_order
from oracles.bound import above
from torch import Tensor, nn

import permgraph as pg

UNITS = 6


class Reads(nn.Module):
    """`made` of the activations of `up`, read by `down`."""

    def __init__(self, made: Callable[[Reads, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.made = made
        self.up, self.down = nn.Linear(3, UNITS), nn.Linear(UNITS, 2)
        self.lstm, self.rows = nn.LSTM(3, UNITS, batch_first=True), nn.Parameter(torch.randn(2, UNITS))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.made(self, self.up(x), x).tanh())


def states(s: Reads, x: Tensor) -> Tensor:
    """The hidden and the cell state, one of them mirrored."""
    _, (hidden, cell) = s.lstm(x)
    return (hidden + cell.flip(-1))[0]


def mirrored_step(h: Tensor) -> Tensor:
    """The second half of the channels at the mirrored time."""
    return torch.cat([h[..., :3], h.flip(1)[..., 3:]], -1)


def steps_joined(h: Tensor) -> Tensor:
    """Both halves of step 0, and of step 1 in the other order."""
    one = torch.cat([h[:, 0, :3], h[:, 0, 3:]], -1)
    return one + torch.cat([h[:, 1, 3:], h[:, 1, :3]], -1)


OTHERS: dict[str, Callable[[Reads, Tensor, Tensor], Tensor]] = {
    "two steps": lambda s, h, x: h[:, 0] + h[:, 1].flip(-1),
    "unbound steps": lambda s, h, x: (lambda a: a[0] + a[1].flip(-1))(h.unbind(1)),
    "halves of time": lambda s, h, x: (lambda a: a[0] + a[1].flip(-1))(h.chunk(2, 1)),
    "steps joined again": lambda s, h, x: steps_joined(h),
    "two rows of a weight": lambda s, h, x: h + s.rows[0] + s.rows[1].flip(0),
    "states of an LSTM": lambda s, h, x: states(s, x),
    "variance and mean": lambda s, h, x: (lambda v: v[0] + v[1].flip(-1))(torch.var_mean(h, 1)),
    "least and largest": lambda s, h, x: (lambda v: v[0] + v[1].flip(-1))(torch.aminmax(h, dim=1)),
    "mirrored in time too": lambda s, h, x: h + h.flip(1, 2),
    "half of it mirrored in time": lambda s, h, x: mirrored_step(h) + h.flip(-1),
    "both axes of a matrix": lambda s, h, x: h * (s.rows[:, None] + s.rows[:, None].flip(0, 2)).sum((0, 1)),
    "a function of it": lambda s, h, x: h * h.flip(-1).sigmoid(),
    "less itself": lambda s, h, x: h - h.flip(-1),
}
SAME: dict[str, Callable[[Reads, Tensor, Tensor], Tensor]] = {
    "flip": lambda s, h, x: h + h.flip(-1),
    "roll, on circles of three": lambda s, h, x: h * h.unflatten(2, (2, 3)).roll(1, 3).flatten(2),
    "halves exchanged": lambda s, h, x: h + torch.cat([h[..., 3:], h[..., :3]], -1),
    "halves split and exchanged": lambda s, h, x: h + torch.cat(h.split(3, -1)[::-1], -1),
    "blocks by a table": lambda s, h, x: h + h.unflatten(2, (3, 2))[:, :, [1, 0, 2]].flatten(2),
    "stacked again": lambda s, h, x: torch.maximum(
        h, torch.stack([h[..., i] for i in (1, 0, 2, 3, 5, 4)], -1)
    ),
}


def judged(
    made: Callable[[Reads, Tensor, Tensor], Tensor],
) -> tuple[nn.Module, tuple[Tensor, ...], pg.PermSpec]:
    torch.manual_seed(0)
    module, inputs = Reads(made).eval(), (torch.randn(2, 4, 3),)
    spec = pg.infer(pg.trace(module, inputs))
    assert pg.verify(module, inputs, spec) <= 1e-9
    return module, inputs, spec


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", OTHERS)
def test_another_tensor_keeps_its_place(name: str) -> None:
    judged(OTHERS[name])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", SAME)
def test_all_that_two_orders_of_one_tensor_leave_free_is_found(name: str) -> None:
    module, inputs, spec = judged(SAME[name])
    assert spec.log10_order == pytest.approx(log10_order(pg.trace(module, inputs)))
    assert above(module, inputs, spec) == []
