"""By what the first units of a group may be multiplied, found on numbers alone: no rule and no graph is looked at.

A scale keeps the function when the derivatives of the outputs along log|w| of the places, times the exponents, add up to
nothing: the exponents are the null space of a matrix of differences. A sign keeps it when negating keeps it: every pattern
of places is tried. Several units are looked at together, so that what happens to cancel for one does not count.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

import permgraph as pg
from oracles.numbers import OnNumbers
from permgraph.ir.spec import Place
from permgraph.transformations.find import elements

STEP = 1e-5  # of the factor
UNITS = 4  # that are looked at
DRAWS = 6  # inputs, beside the example
NOTHING = 1e-8  # of the largest derivative: a place that changes nothing
NULL = 1e-7  # of a singular value, columns having norm 1
SAME = 1e-9  # relative change of outputs that are kept
MOST = 10  # places of a unit whose signs are tried: 2^10 patterns

Cell = tuple[Place, int]  # a place and a slot


class Exponents:
    """One network on numbers, at several inputs."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...], spec: pg.PermSpec) -> None:
        self.spec = spec
        generator = torch.Generator().manual_seed(1)
        drawn = [
            tuple(
                3 * torch.randn(x.shape, generator=generator) if x.is_floating_point() else x for x in inputs
            )
            for _ in range(DRAWS)
        ]
        self.numbers = [OnNumbers(module, one) for one in (inputs, *drawn)]
        self.state = self.numbers[0].state

    def scales(self, group: pg.Group) -> int:
        """How many independent exponents of a positive factor keep the function."""
        cells = self.cells(group)
        units = range(min(UNITS, group.size))
        matrix = np.concatenate([self._derivatives(group, cells, unit) for unit in units])
        norms = np.linalg.norm(matrix, axis=0)
        return int((np.linalg.svd(matrix / np.where(norms > 0, norms, 1), compute_uv=False) < NULL).sum())

    def signs(self, group: pg.Group) -> int | None:
        """How many independent sign patterns keep it; None where there are too many to try."""
        cells = self.cells(group)
        if len(cells) > MOST:
            return None
        counts = []
        for unit in range(min(UNITS, group.size)):
            before = self._outputs(group, cells, unit, [1.0] * len(cells))
            size = np.abs(before).max()
            patterns = product([1.0, -1.0], repeat=len(cells))
            after = (self._outputs(group, cells, unit, list(pattern)) for pattern in patterns)
            counts.append(sum(bool(np.abs(one - before).max() <= SAME * size) for one in after))
        return min(counts).bit_length() - 1

    def cells(self, group: pg.Group) -> list[Cell]:
        return [
            (p, slot) for p in group.places if p.tensor in self.state for slot in range(p.positions.shape[-1])
        ]

    def _derivatives(self, group: pg.Group, cells: list[Cell], unit: int) -> np.ndarray:
        columns = []
        for number in range(len(cells)):
            ends = []
            for factor in (1 + STEP, 1 / (1 + STEP)):
                factors = [1.0] * len(cells)
                factors[number] = factor
                ends.append(self._outputs(group, cells, unit, factors))
            columns.append((ends[0] - ends[1]) / 2 / STEP)
        matrix = np.stack(columns, 1)
        norms = np.linalg.norm(matrix, axis=0)
        matrix[:, norms < NOTHING * norms.max(initial=0.0)] = 0
        return np.asarray(matrix / max(norms.max(initial=0.0), 1e-300))

    def _outputs(self, group: pg.Group, cells: list[Cell], unit: int, factors: list[float]) -> np.ndarray:
        state = dict(self.state)
        for (place, slot), factor in zip(cells, factors, strict=True):
            if factor != 1:
                changed = state[place.tensor].clone()
                for index in elements(place, group, unit, slot):
                    changed[index] *= factor
                state[place.tensor] = changed
        return np.concatenate([one.outputs(state).numpy() for one in self.numbers])
