"""What is written at places of a constant table keeps its groups, as the same network with cat or stack does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks.randomise import noise, randomise
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg
from tests.symmetry.test_structure import factorial

INPUTS = (noise(2, 5, 3),)
EVEN, ODD = torch.arange(0, 8, 2), torch.arange(1, 8, 2)
Write = Callable[[Tensor, Tensor], Tensor]


class Two(nn.Module):
    """Two layers of 4 units, written into one tensor, and a layer that reads it."""

    def __init__(self, write: Write, left: int) -> None:
        super().__init__()
        self.write, self.a, self.b, self.down = write, nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(left, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.write(self.a(x).tanh(), self.b(x).tanh()))


def zeros(a: Tensor, *shape: int) -> Tensor:
    return a.new_zeros(2, 5, *shape)


def assigned(a: Tensor, b: Tensor, first: slice | Tensor, second: slice | Tensor) -> Tensor:
    y = zeros(a, 8)
    y[..., first], y[..., second] = a, b
    return y


def selected(a: Tensor, b: Tensor) -> Tensor:
    y = zeros(a, 4, 2)
    y[..., 0], y[..., 1] = a, b
    return y.flatten(2)


def jointly(a: Tensor, b: Tensor) -> Tensor:
    y, rows = zeros(a, 8), torch.arange(5)[:, None]
    y[:, rows, EVEN], y[:, rows, ODD] = a, b
    return y


def masked(a: Tensor, b: Tensor) -> Tensor:
    return assigned(a, b, torch.arange(8) % 2 == 0, torch.arange(8) % 2 == 1)


def on_the_diagonal(a: Tensor, b: Tensor) -> Tensor:
    y = zeros(a, 4, 4).diagonal_scatter(a, 0, 2, 3)
    return torch.cat([(y @ b[..., None]).squeeze(-1), a], 2)


def a_diagonal_matrix(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([(torch.diag_embed(a) @ b[..., None]).squeeze(-1), a], 2)


BOTH = 2 * factorial(4)
AT = torch.tensor([0, 0, 1, 1])
CASES: dict[str, tuple[Write, int, float]] = {
    "slices": (lambda a, b: assigned(a, b, slice(0, 4), slice(4, 8)), 8, BOTH),
    "steps": (lambda a, b: assigned(a, b, slice(0, 8, 2), slice(1, 8, 2)), 8, BOTH),
    "indices": (lambda a, b: assigned(a, b, EVEN.flip(0), ODD), 8, BOTH),
    "masks": (masked, 8, BOTH),
    "select": (selected, 8, BOTH),
    "two indices": (jointly, 8, BOTH),
    "index_copy": (lambda a, b: zeros(a, 8).index_copy(2, EVEN, a).index_copy(2, ODD, b), 8, BOTH),
    "index_add": (lambda a, b: zeros(a, 8).index_add(2, EVEN, a).index_add(2, ODD, b), 8, BOTH),
    "scatter": (
        lambda a, b: zeros(a, 8).scatter(2, EVEN.expand(2, 5, 4), a).scatter(2, ODD.expand(2, 5, 4), b),
        8,
        BOTH,
    ),
    "scatter_add": (
        lambda a, b: (
            zeros(a, 8).scatter_add(2, EVEN.expand(2, 5, 4), a).scatter_add(2, ODD.expand(2, 5, 4), b)
        ),
        8,
        BOTH,
    ),
    "sums of two": (
        lambda a, b: torch.cat([zeros(a, 2).index_add(2, AT, a), b], 2),
        6,
        factorial(4) + 3 * factorial(2),
    ),
    "a part filled": (
        lambda a, b: torch.cat([a, b], 2).index_fill(2, EVEN[:1], 0.0),
        8,
        factorial(7),  # two layers one after another are one of 8 units
    ),
    "a part masked": (
        lambda a, b: torch.cat([a.masked_fill(EVEN > 2, 0.0), b], 2),
        8,
        factorial(4) + 2 * factorial(2),
    ),
    "a mask chooses": (lambda a, b: torch.where(EVEN > 2, a, b), 4, 2 * factorial(2)),
    "a diagonal": (on_the_diagonal, 8, factorial(4)),
    "a diagonal matrix": (a_diagonal_matrix, 8, factorial(4)),
    "single units": (lambda a, b: torch.cat([torch.stack(a.unbind(2)[::-1], 2), b], 2), 8, BOTH),
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", CASES)
def test_what_is_written_keeps_its_groups(name: str) -> None:
    write, left, order = CASES[name]
    module = randomise(Two(write, left))
    spec = pg.infer(pg.trace(module, INPUTS))
    assert spec.log10_order == pytest.approx(order, abs=1e-6)
    assert spec.frozen == 0 and not spec.unknown_ops
    change, put_back = law(module, INPUTS, spec)
    assert change < 1e-12 and put_back > 1e-3


def test_of_several_values_for_one_place_none_may_move() -> None:
    module = randomise(Two(lambda a, b: torch.cat([zeros(a, 2).index_copy(2, AT, a), b], 2), 6))
    spec = pg.infer(pg.trace(module, INPUTS))
    assert not any(p.tensor.startswith("a.") for p in spec.places)
