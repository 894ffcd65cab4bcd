"""Outputs that are labelled over several axes: each axis moves as a whole, and frames keep their order."""

from __future__ import annotations

import pytest
import torch
from networks.randomise import noise
from torch import Tensor, nn

import permgraph as pg
from tests.symmetry.test_structure import factorial


class Upsampled(nn.Module):
    """Two frames of 6 channels from each."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.frames = nn.Linear(3, 4), nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.frames(torch.tanh(self.up(x))).view(2, 10, 6)


class Heads(nn.Module):
    """Heads and their channels as axes of their own: an order of channels that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).unflatten(2, (3, 4)).transpose(1, 2)


class Shuffled(nn.Module):
    """Channels become pixels, which keep their places."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.up(x), 2)


CASES = {
    "upsampled": (Upsampled(), noise(2, 5, 3), factorial(4) + factorial(6), {2}),
    "heads": (Heads(), noise(2, 5, 3), factorial(3) + factorial(4), {1, 3}),
    "pixels": (Shuffled(), noise(2, 3, 4, 4), factorial(4), {1}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_axis_moves_as_a_whole(name: str) -> None:
    module, x, order, axes = CASES[name]
    spec = pg.infer(pg.trace(module, (x,)), free_output=True)
    assert spec.log10_order == pytest.approx(order, abs=1e-6)
    assert {p.axis for p in spec.places if p.tensor == "output:0"} == axes
    assert pg.verify(module, (x,), spec) < 1e-12
    held = pg.infer(pg.trace(module, (x,)))
    assert held.log10_order < order
