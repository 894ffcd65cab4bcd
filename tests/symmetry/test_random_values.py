"""A spec says which ops draw random values, and which groups meet them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from networks.randomise import noise, randomise
from torch import Tensor, nn

import permgraph as pg

X = (noise(4, 5),)


class Noisy(nn.Module):
    """Dropout that is always on, noise that is added to another layer, and a layer that meets neither."""

    def __init__(self, rate: float = 0.3) -> None:
        super().__init__()
        self.rate = rate
        self.one, self.two, self.three = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(torch.tanh(self.one(x)), self.rate, training=True)
        h = self.two(h)
        h = torch.tanh(h + torch.randn_like(h))
        return self.last(torch.tanh(self.three(h)))  # type: ignore[no-any-return]


def spec_of(module: nn.Module) -> pg.PermSpec:
    return pg.infer(pg.trace(randomise(module), X))


def test_groups_that_meet_random_values_are_named() -> None:
    spec = spec_of(Noisy())
    by_size = {group.size: group.name for group in spec.groups}
    assert set(by_size) == {6, 8}
    dropout, added = sorted(spec.notes, key=lambda note: "randn" in note)
    assert by_size[6] in dropout and by_size[8] not in dropout and "in distribution" in dropout
    assert added == "aten.randn_like.default draws random values, and what they meet is held in order"
    assert {pin.tensor for pin in spec.pinned if pin.reason == "random values"} >= {
        "two.weight",
        "three.weight",
    }
    assert pg.verify(Noisy(), X, pg.plan(spec)).kept


def test_a_network_that_draws_nothing_says_nothing() -> None:
    assert not spec_of(nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3))).notes
    assert not spec_of(nn.Sequential(nn.Linear(5, 6), nn.RReLU(), nn.Linear(6, 3))).notes


def test_dropout_of_nothing_draws_nothing() -> None:
    assert not any("dropout" in note for note in spec_of(Noisy(0.0)).notes)
