"""Slices that an input, a computed number or the layer of a recurrent op chooses: each has an order of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles.law import law
from torch import Tensor, nn

import permgraph as pg

UNITS = 5


class Adapters(nn.Module):
    """Two matrices for each token, chosen by `choose`; a layer before them and one behind."""

    def __init__(self, choose: Callable[[Adapters, Tensor, Tensor], Tensor], sort: bool = False) -> None:
        super().__init__()
        self.choose, self.sort = choose, sort
        self.up, self.down = nn.Parameter(torch.randn(3, 4, UNITS)), nn.Parameter(torch.randn(3, UNITS, 4))
        self.bias = nn.Parameter(torch.randn(3, UNITS))
        self.before, self.router, self.norm = nn.Linear(2, 4), nn.Linear(4, 3), nn.LayerNorm(4)
        self.hidden, self.after = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        x = self.before(x)
        at = self.choose(self, x, which)
        order = at.argsort(stable=True) if self.sort else torch.arange(len(x))
        tokens, at = x[order], at[order]
        hidden = torch.einsum("td,tdh->th", tokens, self.up[at]) + self.bias[at]
        made = torch.einsum("th,thd->td", hidden.tanh(), self.down[at])
        x = x + made[order.argsort()]
        return self.after(self.hidden(self.norm(x)).relu())  # type: ignore[no-any-return]


CHOICES: dict[str, Callable[[Adapters, Tensor, Tensor], Tensor]] = {
    "given": lambda s, x, which: which,
    "computed of what is given": lambda s, x, which: (which + 1) % 3,
    "selected": lambda s, x, which: s.router(x).argmax(-1),
}
INPUTS = (torch.randn(6, 2), torch.tensor([0, 1, 2, 1, 0, 2]))


def copies_of(spec: pg.PermSpec, tensor: str) -> int:
    """How many orders of UNITS units lie in a tensor."""
    return sum(
        group.copies
        for group in spec.groups
        if group.size == UNITS and any(place.tensor == tensor for place in group.places)
    )


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("sort", [False, True])
def test_matrices_that_an_index_chooses_have_units_of_their_own(choice: str, sort: bool) -> None:
    torch.manual_seed(0)
    net = Adapters(CHOICES[choice], sort)
    spec = pg.infer(pg.trace(net, INPUTS))
    assert [copies_of(spec, tensor) for tensor in ("up", "down", "bias")] == [3, 3, 3]
    change, back = law(net, INPUTS, spec)
    assert change < 1e-9 < back


@pytest.mark.parametrize("choice", CHOICES)
def test_layers_behind_a_choice_can_be_observed(choice: str) -> None:
    spec = pg.infer(pg.trace(Adapters(CHOICES[choice]), INPUTS))
    behind = [g for g in spec.groups if any(place.tensor == "hidden.weight" for place in g.places)]
    assert len(behind) == 2 and all(group.probes for group in behind)


class Shared(nn.Module):
    """One matrix chosen, then a layer that is the same for all: the units have one order."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(3, 4, UNITS)), nn.Linear(UNITS, 4)

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        return self.down(torch.einsum("td,tdh->th", x, self.up[which]).tanh())  # type: ignore[no-any-return]


def test_what_is_read_by_one_layer_has_one_order() -> None:
    inputs = (torch.randn(6, 4), INPUTS[1])
    spec = pg.infer(pg.trace(Shared(), inputs))
    assert copies_of(spec, "up") == 1
    change, back = law(Shared(), inputs, spec)
    assert change < 1e-9 < back


class Started(nn.Module):
    """A recurrent net whose first states are parameters."""

    def __init__(self, kind: type[nn.RNNBase], both: bool, spread: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        ways = 2 if both else 1
        self.net = kind(3, UNITS, 2, bidirectional=both)
        self.states = nn.ParameterList(
            torch.randn(2 * ways, 1, UNITS) for _ in range(2 if kind is nn.LSTM else 1)
        )
        self.out, self.spread = nn.Linear(ways * UNITS, 2), spread

    def forward(self, x: Tensor) -> Tensor:
        first: Any = tuple(self.spread(state) for state in self.states)
        return self.out(self.net(x, first if len(first) > 1 else first[0])[0])  # type: ignore[no-any-return]


SPREAD: dict[str, Callable[[Tensor], Tensor]] = {
    "expand": lambda h: h.expand(-1, 2, -1).contiguous(),
    "repeat": lambda h: h.repeat(1, 2, 1),
}


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("spread", SPREAD)
def test_first_states_of_a_recurrent_net_tie_no_layers(
    kind: type[nn.RNNBase], both: bool, spread: str
) -> None:
    torch.manual_seed(0)
    net, x = Started(kind, both, SPREAD[spread]), (torch.randn(4, 2, 3),)
    spec = pg.infer(pg.trace(net, x))
    free = (4 if both else 2) * math.log10(math.factorial(UNITS))
    assert spec.log10_order == pytest.approx(free)
    change, back = law(net, x, spec)
    assert change < 1e-9 < back


class Quantised(nn.Module):
    """A residual quantiser whose codebooks lie in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.books, self.down = nn.Linear(3, 4), nn.Parameter(torch.randn(2, 7, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        rest = self.up(x).tanh()
        for i in range(2):
            book = self.books[i]
            rest = rest - book[(rest[:, None] - book).pow(2).sum(-1).argmin(-1)]
        return self.down(rest)  # type: ignore[no-any-return]


def test_codebooks_in_one_tensor_have_an_order_each() -> None:
    torch.manual_seed(0)
    net, x = Quantised(), (torch.randn(40, 3),)
    spec = pg.infer(pg.trace(net, x))
    assert sorted(g.size for g in spec.groups) == [4, 7, 7]
    change, back = law(net, x, spec)
    assert change < 1e-9 < back


class Masks(nn.Module):
    def __init__(self, write: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.up, self.down, self.write = nn.Linear(3, UNITS), nn.Linear(UNITS, 2), write

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x).clone()
        self.write(h, x)
        return self.down(h)  # type: ignore[no-any-return]


def own(h: Tensor, x: Tensor) -> None:
    h[h > 0.2] = 0.1


def rows(h: Tensor, x: Tensor) -> None:
    h[x[:, 0] > 0] = 0.3


def above_mean(h: Tensor, x: Tensor) -> None:
    h[h > h.mean(-1, keepdim=True)] = 0


@pytest.mark.parametrize("write", [own, rows, above_mean])
def test_one_number_written_by_a_mask_is_elementwise(write: Callable[[Tensor, Tensor], None]) -> None:
    torch.manual_seed(0)
    net, x = Masks(write), (torch.randn(6, 3),)
    spec = pg.infer(pg.trace(net, x))
    assert copies_of(spec, "up.weight") == 1
    change, back = law(net, x, spec)
    assert change < 1e-9 < back


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.table = nn.EmbeddingBag(7, UNITS), nn.Parameter(torch.randn(3, 4, UNITS))
        self.down = nn.Linear(UNITS, 2)

    def forward(self, words: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return self.down((self.bag(words) + self.table[i, j]).tanh())  # type: ignore[no-any-return]


def test_what_is_looked_up_is_an_activation() -> None:
    one = torch.tensor([0, 1])
    (group,) = pg.infer(pg.trace(Looked(), (torch.tensor([[1, 2], [3, 4]]), one, one))).groups
    assert group.probes
    assert {str(place): place.side for place in group.places}["bag.weight[1]"] == "permute"
