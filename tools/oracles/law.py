"""The law, judged without the library's own check: permute, load, compare; then put one tensor back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import permgraph as pg
from oracles.numbers import OnNumbers

NUDGES = 16  # of two equal values each comes out larger in some of them
_EPS = 2.0**-52


def rounding(module: nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> float:
    """The largest relative change when every weight moves by its last bits, and no unit moves."""
    numbers = OnNumbers(module, inputs)
    draw = torch.Generator().manual_seed(seed)

    def nudged(value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        by = torch.randint(-2, 3, value.shape, generator=draw, dtype=torch.float64)
        return value * (1 + _EPS * by)

    return max(numbers.change({k: nudged(v) for k, v in numbers.state.items()}) for _ in range(NUDGES))


def law(
    module: nn.Module, inputs: tuple[Any, ...], spec: pg.PermSpec, seed: int = 0, most: int | None = None
) -> tuple[float, float]:
    """Relative change under a random element of the whole group, and the largest when one tensor is put back.

    Both 0 where no tensor moves. `most`: of so many tensors at the most, spread over the network.
    """
    numbers = OnNumbers(module, inputs)
    plan = pg.plan(spec)
    for draw in range(seed, seed + 8):
        state = pg.apply(plan, pg.random_permutations(plan, draw), numbers.state)
        moved = [k for k in state if not torch.equal(state[k], numbers.state[k])]
        if moved:
            some = moved[:: -(-len(moved) // most)] if most else moved
            back = [numbers.change({**state, k: numbers.state[k]}) for k in some]
            return numbers.loaded_change(state), max(back)
    return 0.0, 0.0
