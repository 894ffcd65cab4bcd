"""A spec says which ops draw random values, and which groups meet them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
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


OF_EACH: dict[str, Callable[[Tensor], Tensor]] = {
    "bernoulli": lambda h: torch.bernoulli(h.sigmoid()),
    "normal": lambda h: torch.normal(h, 1.0),
    "normal of both": lambda h: torch.normal(h, h.exp()),
    "poisson": lambda h: torch.poisson(h.exp()),
    "binomial": lambda h: torch.binomial(torch.full_like(h, 3), h.sigmoid()),
    "gamma": lambda h: torch._standard_gamma(h.exp()),
}
OF_NONE: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda h: torch.empty_like(h).normal_(),
    "uniform": lambda h: torch.empty_like(h).uniform_(),
    "exponential": lambda h: torch.empty_like(h).exponential_(),
    "log-normal": lambda h: torch.empty_like(h).log_normal_(),
    "cauchy": lambda h: torch.empty_like(h).cauchy_(),
    "geometric": lambda h: torch.empty_like(h).geometric_(0.5),
    "gumbel": lambda h: F.gumbel_softmax(h, dim=-1),
}


class Drawn(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.last, self.draw = nn.Linear(5, 6), nn.Linear(6, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        return self.last(h.tanh() * self.draw(h))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", OF_EACH)
def test_what_is_drawn_for_each_value_moves_with_it(name: str) -> None:
    module = randomise(Drawn(OF_EACH[name]))
    spec = pg.infer(pg.trace(module, X))
    assert [group.size for group in spec.groups] == [6]
    assert "in distribution" in spec.notes[0] and not spec.unknown_ops
    assert pg.verify(module, X, pg.plan(spec)).kept


@pytest.mark.parametrize("name", OF_NONE)
def test_what_is_drawn_without_a_value_has_an_order_of_its_own(name: str) -> None:
    spec = spec_of(Drawn(OF_NONE[name]))
    assert not spec.groups and not spec.unknown_ops
    assert "random values" in {pin.reason for pin in spec.pinned}
