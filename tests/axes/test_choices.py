"""What is selected by value follows its coordinates, unless equal ones may be met: then the first one wins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import permgraph as pg

UNITS = 6


class Chooses(nn.Module):
    """`choose` reads the activations of `up`, a table of rows, weights per unit, and a reader of all units."""

    def __init__(self, choose: Callable[[Chooses, Tensor], Tensor]) -> None:
        super().__init__()
        self.choose = choose
        self.up, self.down, self.rows = nn.Linear(5, UNITS), nn.Linear(UNITS, 3), nn.Embedding(UNITS, 4)
        self.first = nn.Parameter(torch.randn(UNITS, 5, 3))
        self.mix, self.part = nn.Linear(UNITS, UNITS), nn.Linear(UNITS // 2, UNITS // 2)
        self.pair, self.norm, self.codes = nn.Linear(2, 1), nn.LayerNorm(2), nn.Embedding(3, 2)
        self.second = nn.Parameter(torch.randn(UNITS, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(self, x)


Values = Callable[["Chooses", Tensor], Tensor]


def powers(h: Tensor) -> Tensor:
    return torch.stack([h, h**2], -1)


def mirrored(s: Chooses, h: Tensor) -> Tensor:
    return h.tanh() + h.flip(-1).tanh()


# The same number in two places, by ways that were exchanged.
BOTH_WAYS: dict[str, Values] = {
    "each through a function": mirrored,
    "in two parts": lambda s, h: h + torch.cat([h[..., 1:], h[..., :1]], -1),
    "stacked": lambda s, h: torch.stack([h, h.flip(-1)]).sum(0),
    "each a softmax": lambda s, h: h.softmax(-1) + h.flip(-1).softmax(-1),
    "a product": lambda s, h: h.exp() * h.flip(-1).exp(),
}
# What has no weights for each unit leaves them equal.
OTHER_DIM: dict[str, Values] = {
    "weighed along another dim": lambda s, h: s.pair(powers(mirrored(s, h))).squeeze(-1),
    "normed along another dim": lambda s, h: s.norm(powers(mirrored(s, h)))[..., 0],
    "a computed weight": lambda s, h: F.linear(h[:, :1, :2], powers(mirrored(s, h))[0, 0]).expand(-1, 4, -1),
    "scored": lambda s, h: (s.pair.weight @ powers(mirrored(s, h)).mT).squeeze(-2),
    "attended to": lambda s, h: F.scaled_dot_product_attention(
        powers(mirrored(s, h)), powers(h), torch.stack([h, h.sin()], -1)
    )[..., 0],
}


def largest(values: Values) -> Values:
    """The row of the largest."""
    return lambda s, x: s.rows(values(s, s.up(x)).argmax(-1))


def expert(s: Chooses, x: Tensor, shift: int) -> Tensor:
    """The best expert of each token; with a shift, its second matrix is another token's."""
    best = s.up(x).argmax(-1)
    hidden = torch.einsum("bti,btio->bto", x, s.first[best]).relu()
    return torch.einsum("bto,btod->btd", hidden, s.second[best.roll(shift, 1) if shift else best])


def scored(s: Chooses, values: Tensor) -> Tensor:
    """The row that scores best, by a layer without a bias: of zeros all scores are zero."""
    return s.rows(F.linear(values, s.mix.weight).argmax(-1))


def masked(s: Chooses, x: Tensor) -> Tensor:
    """Zeros where a mask says."""
    return s.up(x) * (x[..., :1] > 0).to(x.dtype)


def written(s: Chooses, x: Tensor) -> Tensor:
    """Every unit writes a number to the cell that it likes best: of two that write to one cell the last stays."""
    cells = torch.einsum("bti,uc->btuc", x[..., :1], s.first[:, :, 0]).argmax(-1)
    return s.part(torch.zeros(*x.shape[:2], 5).scatter(-1, cells, s.up(x))[..., :3])


# Of zeros, a weight makes zeros. What is added to all alike makes other numbers of them, and leaves them equal.
ZEROS: dict[str, Values] = {
    "a mask, scored": lambda s, x: scored(s, masked(s, x)),
    "a mask, filled in, scored": lambda s, x: scored(s, s.up(x).masked_fill(x[..., :1] > 0, 0.0)),
    "a mask, normed, scored": lambda s, x: scored(s, F.rms_norm(masked(s, x), (UNITS,), s.up.bias)),
    "padded frames, scored": lambda s, x: scored(s, F.pad(s.up(x), (0, 0, 2, 0))),
    "a first frame of zeros, scored": lambda s, x: scored(
        s, (lambda h: torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1))(s.up(x))
    ),
    "a first state of zeros": lambda s, x: scored(
        s, (lambda h: s.up(x[:, 0]) + s.up(x[:, 1]) * h)(torch.zeros(len(x), UNITS)) * torch.zeros(1)
    ),
    "rectified, scored": lambda s, x: scored(s, s.up(x).relu()),
    "rectified, through a product": lambda s, x: scored(s, s.up(x).relu() @ s.mix.weight),
    "rectified, normed": lambda s, x: s.rows(F.rms_norm(s.up(x).relu(), (UNITS,), s.up.bias).argmin(-1)),
    "rectified, weighed each": lambda s, x: s.rows((s.up(x).relu() * s.up.bias).argmax(-1)),
    "rectified, more for each sample": lambda s, x: s.rows((s.up(x).relu() - x[..., :1]).argmin(-1)),
    "rectified, more for each frame": lambda s, x: s.rows(
        (s.up(x).relu() + s.codes.weight.flatten()[:4, None]).argmin(-1)
    ),
    "rectified, more for all": lambda s, x: s.rows((s.up(x).relu() + s.pair.bias).argmin(-1)),
    "a gate of one number": lambda s, x: s.rows((s.up(x) * s.pair.bias.relu()).argmax(-1)),
    "a gate for each sample": lambda s, x: s.rows((s.up(x) * x[:, :1, :1].relu()).argmax(-1)),
    "divided by what may be zero": lambda s, x: s.rows((s.up(x).abs() / x[..., :1].relu()).argmax(-1)),
    "a mask that is an input": lambda s, x: scored(s, s.up(x) * x[..., :1]),
    "windows in the padding alone": lambda s, x: scored(
        s, F.conv1d(s.up(x).mT, s.mix.weight[..., None], padding=1).mT
    ),
    "gaps between windows": lambda s, x: scored(
        s, F.conv_transpose1d(s.up(x).mT, s.mix.weight[..., None], stride=2).mT
    ),
    "masked out": lambda s, x: s.rows(
        (s.up(x) + torch.zeros_like(x[..., :1]).masked_fill(x[..., :1] > 0, -torch.inf)).argmax(-1)
    ),
    "masked out by the least number": lambda s, x: s.rows(
        (s.up(x) + (x[..., :1] > 0).to(x.dtype) * torch.finfo(torch.float32).min).argmax(-1)
    ),
}


def put(s: Chooses, h: Tensor, base: Tensor) -> Tensor:
    top = h.topk(3)
    return s.down(base.scatter(-1, top.indices, top.values))


FREE: dict[str, Values] = {
    "nearest row": lambda s, x: s.rows(s.up(x).argmax(-1)),
    "one-hot": lambda s, x: s.down(F.one_hot(s.up(x).argmax(-1), UNITS).to(x.dtype)),
    "compared with all": lambda s, x: s.down(
        (s.up(x).argmax(-1)[..., None] == torch.arange(UNITS)).to(x.dtype)
    ),
    "threshold": lambda s, x: s.down((lambda h: h * (h >= h.topk(2).values[..., -1:]))(s.up(x))),
    "rectified, into zeros": lambda s, x: (lambda h: put(s, h, torch.zeros_like(h)))(s.up(x).relu()),
    "sorted": lambda s, x: s.down(s.up(x).sort(-1).values),
    "other values at the same units": lambda s, x: s.up(x).tanh().gather(-1, s.up(-x).topk(2).indices),
    "expert of a token": lambda s, x: expert(s, x, 0),
    "experts of two tokens": lambda s, x: expert(s, x, 1),
    "a softmax written out": lambda s, x: (lambda h: s.rows((h / h.sum(-1, keepdim=True)).argmax(-1)))(
        (lambda h: (h - h.amax(-1, keepdim=True)).exp())(s.up(x))
    ),
    "a norm over all units": lambda s, x: s.rows(F.layer_norm(s.up(x), (UNITS,)).argmax(-1)),
    "added to what was computed of it": lambda s, x: s.rows(
        (lambda h: h + s.mix(h.tanh()))(s.up(x)).argmax(-1)
    ),
    "there and back": lambda s, x: s.rows(
        (lambda h: h + h.unflatten(-1, (2, 3)).tanh().flatten(-2) + h.mT.sin().mT)(s.up(x)).argmax(-1)
    ),
    "less their mean": lambda s, x: s.rows((lambda h: h - h.mean(-1, keepdim=True))(s.up(x)).argmax(-1)),
    "distances to rows": lambda s, x: s.rows(
        (lambda h: (h**2).sum(-1, keepdim=True) - 2 * h @ s.mix.weight.T + (s.mix.weight**2).sum(-1))(
            s.up(x)
        ).argmax(-1)
    ),
    "masked, then a bias for each": lambda s, x: s.rows(s.mix(masked(s, x)).argmax(-1)),
    "rectified, then a bias for each": lambda s, x: s.rows(s.mix(s.up(x).relu()).argmax(-1)),
    "a bias for each added later": lambda s, x: s.rows((masked(s, x) + s.up.bias).argmax(-1)),
    "a sigmoid gate": lambda s, x: s.rows((s.up(x) * x[..., :1].sigmoid()).argmax(-1)),
    "attention, scored": lambda s, x: scored(s, (x @ x.mT).softmax(-1) @ s.up(x)),
    "causal attention, scored": lambda s, x: scored(
        s, (x @ x.mT).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf).softmax(-1) @ s.up(x)
    ),
    "more for each sample": lambda s, x: s.rows((s.up(x) + x[..., :1]).argmax(-1)),
    "padded windows, scored": lambda s, x: scored(
        s, F.conv1d(s.up(x).mT, s.mix.weight[..., None].expand(-1, -1, 3), padding=1).mT
    ),
    "normed, scored": lambda s, x: scored(s, F.rms_norm(s.up(x), (UNITS,), s.up.bias)),
    "divided by the temperature": lambda s, x: s.rows((s.up(x) / s.pair.bias.exp()).argmax(-1)),
    "quantile": lambda s, x: s.down(s.up(x) - torch.quantile(s.up(x), 0.6, dim=-1, keepdim=True)),
}
HELD: dict[str, Values] = {
    "equal where rectified": lambda s, x: s.rows(s.up(x).relu().argmax(-1)),
    "equal where compared": lambda s, x: s.rows((s.up(x) > 0).to(x.dtype).argmax(-1)),
    "rectified, into ones": lambda s, x: (lambda h: put(s, h, torch.ones_like(h)))(s.up(x).relu()),
    "an index that is added to": lambda s, x: s.rows((s.up(x).argmax(-1) + 1) % UNITS),
    "an index that is returned": lambda s, x: s.up(x).argmax(-1),
    "norms of one unit each": lambda s, x: s.rows(
        F.layer_norm(s.up(x).unsqueeze(-1), (1,), s.down.bias[:1], s.down.bias[1:2]).squeeze(-1).argmax(-1)
    ),
    "a softmax of one unit each": lambda s, x: s.rows(
        s.up(x).unsqueeze(-1).softmax(-1).squeeze(-1).argmax(-1)
    ),
    "a softmax of one unit each, written out": lambda s, x: (
        lambda e: s.rows((e / e.sum(-1, keepdim=True)).squeeze(-1).argmax(-1))
    )((lambda h: (h - h.amax(-1, keepdim=True)).exp())(s.up(x).unsqueeze(-1))),
    "divided by its own size": lambda s, x: s.rows(
        F.normalize(s.up(x).unsqueeze(-1), dim=-1).squeeze(-1).argmax(-1)
    ),
    "less the largest over time": lambda s, x: s.rows(
        (lambda h: h - h.amax(1, keepdim=True))(s.up(x)).argmax(-1)
    ),
    "less itself": lambda s, x: s.rows((lambda h: h - h.clone())(s.up(x)).argmax(-1)),
    **{f"both ways, {how}": largest(values) for how, values in BOTH_WAYS.items()},
    **{f"both ways, then {how}": largest(values) for how, values in OTHER_DIM.items()},
    "rectified, then weighed along another dim": lambda s, x: s.rows(
        s.pair(powers(s.up(x).relu())).squeeze(-1).argmax(-1)
    ),
    "looked up by a code that two may have": lambda s, x: s.rows(
        s.pair(s.codes((s.up(x)[..., None] * s.codes.weight[:, 0]).argmax(-1))).squeeze(-1).argmax(-1)
    ),
    "written by several to one place": written,
    "running maximum": lambda s, x: s.down(s.up(x).cummax(-1).values),
}


def free(choose: Values) -> tuple[pg.PermSpec, set[int]]:
    torch.manual_seed(0)
    module, inputs = Chooses(choose).eval(), (torch.randn(2, 4, 5),)
    spec = pg.infer(pg.trace(module, inputs))
    if spec.groups:
        assert pg.verify(module, inputs, spec) <= 1e-9
    return spec, {group.size for group in spec.groups if any(p.tensor == "up.weight" for p in group.places)}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", FREE)
def test_the_units_chosen_among_are_free(name: str) -> None:
    spec, sizes = free(FREE[name])
    assert sizes == {UNITS} and not spec.frozen


@pytest.mark.parametrize("name", HELD)
def test_where_the_first_of_equals_or_the_number_counts_units_are_held(name: str) -> None:
    assert free(HELD[name])[1] == set()


@pytest.mark.parametrize("name", ZEROS)
def test_rows_chosen_by_values_that_may_be_zero_together_are_held(name: str) -> None:
    spec, _ = free(ZEROS[name])
    assert not any(place.tensor == "rows.weight" and place.axis == 0 for place in spec.places)


def through_one_layer(s: Chooses, h: Tensor) -> Tensor:
    a, b = s.part(h[..., :3]), s.part(h[..., 3:])
    return torch.cat([a, b], -1) + torch.cat([b, a], -1)


def test_a_layer_called_twice_gives_equal_values_too() -> None:
    spec, _ = free(largest(through_one_layer))
    assert not any(place.tensor == "rows.weight" and place.axis == 0 for place in spec.places)


def test_units_of_a_chosen_expert_have_an_order_in_each_unless_two_are_mixed() -> None:
    def inner(name: str) -> list[tuple[int, int]]:
        spec, _ = free(FREE[name])
        return [(g.size, g.copies) for g in spec.groups if any(p.tensor == "second" for p in g.places)]

    assert inner("expert of a token") == [(UNITS, 1), (3, UNITS)]
    assert sorted(inner("experts of two tokens")) == [(3, 1), (UNITS, 1)]
