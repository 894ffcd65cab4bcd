"""One stage of a random network: what it computes, the parts it owns, and how many channels leave it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

SIZES = (2, 3, 4, 6, 8)


class Stage(nn.Module):
    """`compute(stage, x)` with parts as attributes; x has shape (batch, time, channels)."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], channels: int, **parts: Any) -> None:
        super().__init__()
        self.compute, self.channels = compute, channels
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


Family = Callable[[Random, int], Stage]  # (random numbers, channels that enter) → stage


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def divisor(rng: Random, n: int, proper: bool = True) -> int:
    """A divisor of n; neither 1 nor n where there is one and `proper` is asked for."""
    found = [d for d in range(1, n + 1) if n % d == 0]
    inner = [d for d in found if 1 < d < n]
    return rng.choice(inner if proper and inner else found)


def wide(rng: Random, unit: int = 1) -> int:
    """A number of channels that is a multiple of `unit` and at most about twelve."""
    return unit * rng.choice([n for n in SIZES if n * unit <= max(12, 2 * unit)])
