"""Small networks on which more is free than inference says, each with the cause. A cure makes a test here fail."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Between(nn.Module):
    """What `move` does between two linear layers."""

    def __init__(self, move: Callable[[Tensor], Tensor], width: int, left: int) -> None:
        super().__init__()
        self.move, self.up, self.down = move, nn.Linear(3, width), nn.Linear(left, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.move(self.up(x))))


KNOWN: dict[str, tuple[nn.Module, str]] = {
    "halves joined again": (
        Between(lambda x: torch.cat([x[:, :3].sin(), x[:, 3:].sin()], 1), 6, 6),
        "parts of an axis are told apart by where they were cut, although the same is done to both",
    ),
    "rolled along what a mean is taken over": (
        Between(lambda x: torch.cat([x[:, :1], x[:, 1:].roll(1, 0)], 1).sin().mean(0, keepdim=True), 4, 4),
        "positions have an order, so channels are told apart that differ by the order of their positions alone",
    ),
}
