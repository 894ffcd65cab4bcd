"""The scoreboard judges a group of another tool by the function: a right one is kept, a wrong one is not."""

from __future__ import annotations

import numpy as np
import torch
from networks.randomise import noise, randomise
from oracles.numbers import OnNumbers
from peers.pruning_groups import Move, changes
from torch import Tensor, nn


class Flattened(nn.Module):
    """Channels that are columns of the next layer in runs of nine, and a concatenation of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1)))
        return self.last(h.flatten(1))  # type: ignore[no-any-return]


def _moves(columns: bool = True, statistics: bool = True) -> tuple[Move, ...]:
    """What re-ordering the channels of `two` moves."""
    roots = np.arange(4)
    own = [Move(f"two.{name}", 0, roots, roots) for name in ("weight", "bias")]
    names = ("weight", "bias", *(("running_mean", "running_var") if statistics else ()))
    norm = [Move(f"norm.{name}", 0, roots + 4, roots) for name in names]
    last = Move("last.weight", 1, np.arange(36, 72), np.repeat(roots, 9))
    return (*own, *norm, *((last,) if columns else ()))


def test_a_right_group_keeps_the_function_and_a_wrong_one_does_not() -> None:
    numbers = OnNumbers(randomise(Flattened()), (noise(2, 2, 5, 5),))
    groups = [(4, _moves()), (4, _moves(columns=False)), (4, _moves(statistics=False)), (4, ())]
    right, *wrong = changes(groups, numbers.state, numbers.change)
    assert right < 1e-12
    assert min(wrong) > 1e-3
    assert wrong[-1] == float("inf"), "what cannot be read as a permutation is not sound"


def test_what_cannot_be_applied_is_not_sound() -> None:
    numbers = OnNumbers(randomise(Flattened()), (noise(2, 2, 5, 5),))
    beyond = Move("last.weight", 1, np.arange(70, 74), np.arange(4))
    assert changes([(4, (beyond,))], numbers.state, numbers.change) == [float("inf")]
