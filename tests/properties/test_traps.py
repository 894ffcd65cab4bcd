"""Networks on which an inference that looks right was wrong once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from networks.randomise import noise, randomise
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import TOLERANCE, verify


class Channels(nn.Module):
    """A convolution, something done to its 5 channels, and a linear layer over all that came of it."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 5, 1), nn.Conv1d(5, 5, 1)
        self.hidden, self.head = nn.Linear(width, 11), nn.Linear(11, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self, F.relu(self.first(x)))
        return self.head(F.relu(self.hidden(x.flatten(1))))


def tied_parts(net: nn.Module, x: Tensor) -> Tensor:
    """Both parts have one order, but they are two parts: (part, channel, time) is not (other part, channel, time)."""
    return torch.cat([x, F.relu(x + net.second(x))], 1)


def neighbours(net: nn.Module, x: Tensor) -> Tensor:
    """Adding a shifted copy ties every channel to the next."""
    return F.pad(x, (0, 0, 1, 0)) + F.pad(x, (0, 0, 0, 1))


def same_twice(net: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([x, x], 1)


def switches(net: nn.Module, x: Tensor) -> Tensor:
    """Positions of the maxima of one layer are read by another."""
    pooled, where = F.max_pool1d(x, 2, return_indices=True)
    return F.max_unpool1d(net.second(pooled), where, 2, output_size=[8])


@pytest.mark.parametrize(
    ("middle", "width", "sizes"),
    [
        (tied_parts, 80, [5, 11]),
        (neighbours, 48, [11]),
        (same_twice, 80, [5, 11]),
        (switches, 40, [5, 11]),
    ],
)
def test_traps(middle: Callable[[nn.Module, Tensor], Tensor], width: int, sizes: list[int]) -> None:
    module, inputs = randomise(Channels(middle, width)), (noise(2, 3, 8),)
    found = infer(capture(module, inputs))
    assert [g.size for g in found.groups] == sizes
    assert max(verify(module, inputs, found, seed=seed) for seed in range(3)) <= TOLERANCE


class Remembers(nn.Module):
    """Keeps a table computed from its weights for the next call, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(7))
        self.table: Tensor | None = None
        self.first, self.head = nn.Linear(3, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.scale.exp()
        return self.head(self.first(x) * self.table)


def test_a_module_that_remembers_is_verified_afresh() -> None:
    module, inputs = randomise(Remembers()), (noise(2, 3),)
    found = infer(capture(Remembers().eval(), inputs))
    assert [g.size for g in found.groups] == [7]
    assert verify(module, inputs, found) <= TOLERANCE
    assert module.table is None
