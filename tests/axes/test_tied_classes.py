"""The law: classes of tied points are the connected components, whichever ties are taken for whole runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import permgraph as pg
from permgraph.axes.points import Labels, Points, components
from permgraph.axes.tied import tied_classes

FRAMES, UNITS = 7, 6


def plain(count: int, ties: list[tuple[Labels, Labels]]) -> Labels:
    """Classes by connected components alone, numbered in order of first appearance."""
    joins = [np.concatenate([pair[side] for pair in ties]) for side in (0, 1)]
    of = components(count, *joins)[1]
    first = np.unique(of, return_index=True)[1]
    return np.argsort(np.argsort(first))[of]


@pytest.mark.parametrize("seed", range(200))
def test_classes_are_the_components(seed: int) -> None:
    """Whole runs with whole runs, with parts of them, and with stretches that begin in one run and end in another."""
    rng = np.random.default_rng(seed)
    points = Points()
    runs = [points.fresh((int(size),)) for size in rng.integers(1, 7, size=8)]
    ties: list[tuple[Labels, Labels]] = []
    for _ in range(int(rng.integers(1, 9))):
        run = runs[int(rng.integers(len(runs)))]
        start = int(rng.integers(0, points.count - len(run) + 1))
        pair = (run, np.arange(start, start + len(run), dtype=np.int64))
        ties.append(pair if rng.random() < 0.5 else pair[::-1])
    count, of = tied_classes(points, ties)
    assert (of == plain(points.count, ties)).all() and count == of.max() + 1


class Deltas(nn.Module):
    """Differences of neighbours along one dim, the first frame (or unit) put before all, beside what is free."""

    def __init__(self, dim: int, prepend: bool) -> None:
        super().__init__()
        self.up, self.down, self.dim, self.prepend = nn.Linear(3, UNITS), nn.Linear(UNITS, 2), dim, prepend
        self.u, self.v, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        first = h.narrow(self.dim, 0, 1)
        change = h.diff(dim=self.dim, prepend=first if self.prepend else torch.zeros_like(first))
        return self.down(change.tanh()) + self.out(torch.cat([self.u(x), self.v(x)], -1).tanh())


@pytest.mark.parametrize("prepend", [True, False])
@pytest.mark.parametrize("dim", [1, 2])
def test_differences_of_neighbours(dim: int, prepend: bool) -> None:
    """Over frames the units stay free; over units none is; what stands beside is free in both."""
    module, inputs = Deltas(dim, prepend), (torch.randn(2, FRAMES, 3),)
    spec = pg.infer(pg.trace(module, inputs))
    held = {group.size: {place.tensor for place in group.places} for group in spec.groups}
    sizes = [group.size for group in spec.groups]
    assert sizes == ([UNITS, 6] if dim == 1 else [6]) and ("up.weight" in str(held)) == (dim == 1)
    assert pg.verify(module, inputs, spec) <= 1e-9


class Steps(nn.Module):
    """Three steps from unit to neighbour, each with another edge."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.edge = nn.Linear(3, 7), nn.Linear(7, 2), nn.Parameter(torch.randn(1))
        self.u, self.v, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        p = torch.cat([h[..., :1], h], -1)
        h = p[..., 1:] + p[..., :-1]
        p = torch.cat([h, h[..., -1:]], -1)
        h = p[..., 1:] - p[..., :-1]
        p = torch.cat([self.edge.expand(*x.shape[:2], 1), h], -1)
        h = p[..., 1:].tanh() - p[..., :-1]
        return self.down(h.tanh()) + self.out(torch.cat([self.u(x), self.v(x)], -1).tanh())


def test_steps_to_neighbours_hold_the_units() -> None:
    module, inputs = Steps(), (torch.randn(2, 5, 3),)
    spec = pg.infer(pg.trace(module, inputs))
    assert not any(place.tensor.startswith(("up", "down")) for place in spec.places)
    assert [group.size for group in spec.groups] == [6]
    assert pg.verify(module, inputs, spec) <= 1e-9
