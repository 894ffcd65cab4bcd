"""Units that are pairs of others: a triangle of a symmetric matrix follows the channels, in either order of a pair.

Every order is counted by hand. What is moved is tried on numbers, and one tensor put back must show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks.randomise import noise, randomise
from oracles.automorphisms import log10_order
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg
from permgraph.ir.positions import Positions
from tests.symmetry.test_structure import factorial

N = 5
ALL = torch.triu_indices(N, N)
UPPER = torch.triu_indices(N, N, 1)
LOWER = torch.tril_indices(N, N, -1)
EITHER = UPPER.where(torch.arange(10) % 3 == 0, UPPER.flip(0))
OFF = (1 - torch.eye(N)).nonzero().T
INPUTS = (noise(2, 6, 3),)

Move = Callable[[Tensor], Tensor]


class Pairs(nn.Module):
    """(2, 6, N) between two linear layers → (…, left)."""

    def __init__(self, move: Move, left: int) -> None:
        super().__init__()
        self.move, self.up, self.down = move, nn.Linear(3, N), nn.Linear(left, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.move(torch.tanh(self.up(x))))


def gram(x: Tensor) -> Tensor:
    return x.transpose(1, 2) @ x


def ordered(x: Tensor) -> Tensor:
    """A matrix that is not symmetric."""
    return x.transpose(1, 2) @ x.roll(1, 1)


def root(x: Tensor) -> Tensor:
    """The iteration of Newton and Schulz for the root of a covariance (iSQRT-COV)."""
    a = gram(x) / gram(x).diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    one = torch.eye(N)
    y, z = a @ (1.5 * one - 0.5 * a), 1.5 * one - 0.5 * a
    step = 1.5 * one - 0.5 * z @ y
    return y @ step


def outer(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(1)[:, :, None], x.mean(1)[:, None, :]


def at(v: Tensor, places: Tensor) -> Tensor:
    return v[:, places[0], places[1]]


MASK = torch.ones(N, N).triu(1).bool()
WHOLE: dict[str, tuple[Move, int]] = {
    "with the diagonal": (lambda x: at(gram(x), ALL), 15),
    "without": (lambda x: at(gram(x), UPPER), 10),
    "the lower triangle": (lambda x: at(gram(x), LOWER), 10),
    "on either side": (lambda x: at(gram(x), EITHER), 10),
    "indices made inside": (lambda x: at(gram(x), torch.triu_indices(N, N, 1)), 10),
    "of a flat matrix": (lambda x: gram(x).flatten(1)[:, UPPER[0] * N + UPPER[1]], 10),
    "a mask": (lambda x: gram(x)[:, MASK], 10),
    "masked_select": (lambda x: gram(x).masked_select(MASK).view(2, 10), 10),
    "both triangles": (lambda x: torch.cat([at(gram(x), UPPER), at(gram(x), LOWER).tanh()], 1), 20),
    "the diagonal": (lambda x: gram(x).diagonal(dim1=1, dim2=2), N),
    "centred": (lambda x: at(gram(x - x.mean(1, keepdim=True)), ALL), 15),
    "cosines": (lambda x: at(F.cosine_similarity(x[:, :, :, None], x[:, :, None], dim=1), UPPER), 10),
    "distances": (lambda x: at((outer(x)[0] - outer(x)[1]).abs(), UPPER), 10),
    "squares": (lambda x: at((outer(x)[0] - outer(x)[1]) ** 2, UPPER), 10),
    "cdist": (lambda x: at(torch.cdist(x.transpose(1, 2), x.transpose(1, 2)), UPPER), 10),
    "einsum": (lambda x: at(torch.einsum("bti,btj->bij", x, x), UPPER), 10),
    "root": (lambda x: at(root(x), ALL), 15),
    "ordered pairs": (lambda x: at(ordered(x), OFF), 20),
    "every ordered pair": (lambda x: ordered(x).flatten(1), 25),
    "two of each, multiplied": (lambda x: x[:, :, UPPER.T].prod(-1), 10),
}
PART: dict[str, tuple[Move, int, float]] = {
    "a matrix that is not symmetric": (lambda x: at(ordered(x), ALL), 15, 0),
    "differences": (lambda x: at(outer(x)[0] - outer(x)[1], UPPER), 10, 0),
    "a star": (lambda x: at(gram(x), torch.tensor([[0, 2, 0, 4], [1, 0, 3, 0]])), 4, factorial(4)),
    "blocks": (lambda x: at(gram(x), torch.tensor([[0, 1], [2, 3]])), 2, factorial(2) * 3),
}
CASES = {name: (*case, factorial(N)) for name, case in WHOLE.items()} | PART


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", CASES)
def test_the_pairs_follow_the_channels(name: str) -> None:
    move, left, order = CASES[name]
    module = randomise(Pairs(move, left))
    trace = pg.trace(module, INPUTS)
    spec = pg.infer(trace)
    assert spec.log10_order == pytest.approx(order, abs=1e-6)
    assert log10_order(trace) == pytest.approx(order, abs=1e-6)
    assert spec.frozen == 0 and not spec.unknown_ops
    if order:
        change, put_back = law(module, INPUTS, spec)
        assert change < 1e-12 and put_back > 1e-3
    spec.check()


def test_the_pairs_of_each_block_follow_the_order_inside_it() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(3, 12), nn.GroupNorm(3, 12), nn.Linear(18, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(torch.tanh(self.up(x)).transpose(1, 2)).unflatten(1, (3, 4))
            i, j = torch.triu_indices(4, 4, 1)
            return self.down((y @ y.transpose(2, 3))[:, :, i, j].flatten(1))

    module = randomise(Blocks())
    spec = pg.infer(pg.trace(module, INPUTS))
    assert spec.log10_order == pytest.approx(factorial(3) + 3 * factorial(4), abs=1e-6)
    change, put_back = law(module, INPUTS, spec)
    assert change < 1e-12 and put_back > 1e-3


def test_a_place_of_pairs_survives_its_file_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    spec = pg.infer(pg.trace(Pairs(*WHOLE["without"]), INPUTS))
    (place,) = (p for p in spec.places if p.layout[0] == p.layout[-1] and len(p.layout) == 2)
    spec.save(tmp_path / "spec.json")
    assert pg.PermSpec.load(tmp_path / "spec.json") == spec
    positions = place.positions.array()
    assert (positions[np.eye(N, dtype=bool)] == -1).all() and (positions >= -1).all()
    for wrong in (positions.clip(0), np.triu(positions[..., 0])[..., None], positions + 1):
        bad = replace(place, positions=Positions.of(wrong))
        places = tuple(bad if p == place else p for p in spec.places)
        with pytest.raises(pg.PermgraphError):
            replace(spec, places=places).completed().check()


def test_permutations_of_pairs_are_undone_bit_for_bit() -> None:
    module = randomise(Pairs(*WHOLE["with the diagonal"]))
    plan = pg.plan(pg.infer(pg.trace(module, INPUTS)))
    perms = pg.random_permutations(plan, 3)
    state = {k: v.detach() for k, v in module.state_dict().items()}
    back = pg.unapply(plan, perms, pg.apply(plan, perms, state))
    assert all(torch.equal(back[k], state[k]) for k in state)
