"""The law of repair: afterwards every unit has the weighted mean of A's and B's mean and deviation."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from functools import reduce

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as made_of
from torch.nn.utils import weight_norm
from transformers.pytorch_utils import Conv1D

import permgraph as pg
from permgraph.errors import MatchError
from permgraph.frontend.batches import Pair
from permgraph.ir.sums import Sums
from permgraph.weights.interpolate import merge
from permgraph.weights.repair import repair

SHARES = [(0.5, 0.5), (0.9, 0.1)]


class Plain(nn.Module):
    """No norm: a convolution, a hidden layer with a bias, one without, and a read-out."""

    def __init__(self, seed: int, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv1d(2, 6, 3)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.hidden = nn.Linear(6, 9)
        self.bare = nn.Linear(9, 5, bias=False)
        self.out = nn.Linear(5, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.hidden(x.transpose(1, 2)))
        return self.out(torch.relu(self.bare(x)))


def inputs(count: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 2, 30, generator=generator) + 0.5 for _ in range(count)]


def made(norm: bool, shares: tuple[float, float]) -> tuple[pg.Plan, nn.Module, nn.Module, nn.Module]:
    a, b = Plain(0, norm), Plain(1, norm)
    if norm:
        with torch.no_grad():
            for model, generator in ((a, 2), (b, 3)):
                noise = torch.Generator().manual_seed(generator)
                model.norm.running_mean.copy_(torch.randn(6, generator=noise))
                model.norm.running_var.copy_(0.5 + torch.rand(6, generator=noise))
    result = copy.deepcopy(a)
    result.load_state_dict(merge(a.state_dict(), b.state_dict(), shares))
    return pg.plan(pg.infer(pg.trace(a, (inputs()[0][:1],)))), result, a, b


def statistics(model: nn.Module, name: str, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    layer = model.get_submodule(name)
    axis = -1 if isinstance(layer, (nn.Linear, nn.LayerNorm, Conv1D)) else -2
    handle = layer.register_forward_hook(lambda m, args, y: seen.append(y.movedim(axis, -1).flatten(0, -2)))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return torch.cat(seen).double().mean(0), torch.cat(seen).double().std(0, correction=0)


@pytest.mark.parametrize("shares", SHARES)
def test_every_unit_gets_the_weighted_mean_and_deviation(shares: tuple[float, float]) -> None:
    plan, merged, a, b = made(False, shares)
    batches = [torch.cat(inputs())]  # one batch: then the law is exact through all layers
    before = {name: statistics(merged, name, batches) for name in ("conv", "hidden")}
    report = repair(plan, merged, a, b, batches, shares)
    assert list(report["layers"]) == ["conv", "hidden", "bare"] and report["batch_norm"] == []
    for name in ("conv", "hidden"):
        of_a, of_b = statistics(a, name, batches), statistics(b, name, batches)
        want = [shares[0] * x + shares[1] * y for x, y in zip(of_a, of_b, strict=True)]
        found = statistics(merged, name, batches)
        for one, other in zip(found, want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert float((before[name][1] / want[1]).mean()) < 0.99  # there was something to repair


def test_several_batches_come_close_and_order_hardly_matters() -> None:
    plan, merged, a, b = made(False, (0.5, 0.5))
    other = copy.deepcopy(merged)
    repair(plan, merged, a, b, inputs())
    repair(plan, other, a, b, inputs()[::-1])
    for name in ("conv", "hidden"):
        of_a, of_b = (statistics(m, name, inputs())[1] for m in (a, b))
        torch.testing.assert_close(
            statistics(merged, name, inputs())[1], (of_a + of_b) / 2, rtol=0.05, atol=0.01
        )
    for one, two in zip(merged.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_without_a_bias_the_deviation_alone_is_repaired_and_that_is_said() -> None:
    plan, merged, a, b = made(False, (0.5, 0.5))
    before = {k: t.clone() for k, t in merged.state_dict().items()}
    batches = [torch.cat(inputs())]
    report = repair(plan, merged, a, b, batches)
    assert report["scaled"] == ["bare"] and report["skipped"] == {}
    of_a, of_b = (statistics(m, "bare", batches)[1] for m in (a, b))
    torch.testing.assert_close(
        statistics(merged, "bare", batches)[1], (of_a + of_b) / 2, rtol=1e-4, atol=1e-6
    )
    changed = {k for k, t in merged.state_dict().items() if not torch.equal(t, before[k])}
    assert changed == {"conv.weight", "conv.bias", "hidden.weight", "hidden.bias", "bare.weight"}


def test_equal_models_need_no_repair() -> None:
    plan, _, a, _ = made(False, (0.5, 0.5))
    merged = copy.deepcopy(a)
    report = repair(plan, merged, a, copy.deepcopy(a), inputs())
    assert all(abs(factor - 1) < 1e-6 for factor in report["layers"].values())
    for one, two in zip(merged.state_dict().values(), a.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_batch_norm_gets_the_average_over_batches_of_what_it_sees() -> None:
    plan, merged, a, b = made(True, (0.5, 0.5))
    batches = inputs()
    conv = {k: t.clone() for k, t in merged.conv.state_dict().items()}
    report = repair(plan, merged, a, b, batches)
    assert report["batch_norm"] == ["norm"] and list(report["layers"]) == ["hidden", "bare"]
    assert all(torch.equal(t, conv[k]) for k, t in merged.conv.state_dict().items())
    with torch.no_grad():
        seen = [merged.conv(x).transpose(0, 1).flatten(1) for x in batches]
    torch.testing.assert_close(merged.norm.running_mean, torch.stack([s.mean(1) for s in seen]).mean(0))
    torch.testing.assert_close(merged.norm.running_var, torch.stack([s.var(1) for s in seen]).mean(0))
    assert merged.norm.momentum == a.norm.momentum
    assert not merged.training and not merged.norm.training


def test_the_other_models_and_dropout_are_left_alone() -> None:
    plan, merged, a, b = made(True, (0.5, 0.5))
    states = [{k: t.clone() for k, t in m.state_dict().items()} for m in (a, b)]
    merged.train()
    repair(plan, merged, a, b, inputs())
    assert merged.training and merged.norm.training
    for model, state in zip((a, b), states, strict=True):
        assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())


def test_a_dead_unit_is_moved_and_not_blown_up() -> None:
    plan, merged, a, b = made(False, (0.5, 0.5))
    with torch.no_grad():
        merged.get_parameter("conv.weight")[2] = 0
    repair(plan, merged, a, b, inputs())
    assert not merged.get_parameter("conv.weight")[2].any() and all(
        torch.isfinite(t).all() for t in merged.state_dict().values()
    )


def test_same_inputs_same_weights_and_pairs_feed_b_its_own() -> None:
    plan, merged, a, b = made(False, (0.5, 0.5))
    one, two, three = (copy.deepcopy(merged) for _ in range(3))
    repair(plan, one, a, b, inputs())
    repair(plan, two, a, b, (Pair(x, x) for x in inputs()))  # a generator, read once
    repair(plan, three, a, b, [Pair(x, 2 * x) for x in inputs()])
    assert all(
        torch.equal(s, t) for s, t in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert not torch.equal(one.conv.weight, three.conv.weight)


def test_no_batch_is_an_error() -> None:
    plan, merged, a, b = made(False, (0.5, 0.5))
    with pytest.raises(MatchError, match="no batch to repair on"):
        repair(plan, merged, a, b, [])


def test_sums_of_parts_are_those_of_the_whole() -> None:
    x = 1e3 + torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, parts = Sums.of(x), reduce(operator.add, map(Sums.of, x.split([10, 200, 90])))
    for sums in (whole, parts):
        torch.testing.assert_close(sums.mean(), x.mean(0))
        torch.testing.assert_close(sums.variance().sqrt(), x.std(0, correction=0))
    wrong = Sums.of(x[:10]) + replace(Sums.of(x[10:] + 5), shift=x[:10].mean(0))  # as if about the same shift
    assert not torch.allclose(wrong.mean(), x.mean(0))


class Between(nn.Module):
    """Any layer of channels in the middle, (n, 4, time) in and (n, 6, time) out, between two convolutions."""

    def __init__(self, seed: int, kind: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv1d(2, 4, 3, padding=1)
        self.middle = MIDDLES[kind]()
        self.last = nn.Conv1d(6, 3, 1)
        with torch.no_grad():
            for p in (
                self.parameters()
            ):  # directions whose lengths say something, scales and biases unlike 1 and 0
                p.add_(torch.randn_like(p) * 0.3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.middle(torch.tanh(self.first(x)))))


class Turned(nn.Module):
    """A layer that has channels last, used with channels first."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2).contiguous()).transpose(1, 2)


class OneByOne(nn.Module):
    """A convolution that gets its clips one at a time, without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(clip) for clip in x.unbind()])


MIDDLES = {
    "weight norm": lambda: made_of.weight_norm(nn.Conv1d(4, 6, 3, padding=1)),
    "weight norm by tap": lambda: made_of.weight_norm(nn.Conv1d(4, 6, 3, padding=1), dim=2),
    "weight norm of all": lambda: made_of.weight_norm(nn.Conv1d(4, 6, 3, padding=1), dim=None),  # type: ignore[arg-type]
    "old weight norm": lambda: weight_norm(nn.Conv1d(4, 6, 3, padding=1)),
    "transposed": lambda: nn.ConvTranspose1d(4, 6, 3, padding=1, groups=2),
    "gpt2": lambda: Turned(Conv1D(6, 4)),
    "linear": lambda: Turned(nn.Linear(4, 6)),
    "group norm": lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1, bias=False), nn.GroupNorm(6, 6)),
    "layer norm": lambda: Turned(nn.Linear(4, 6, bias=False), nn.LayerNorm(6)),
    "unbatched": OneByOne,
}
# where the units of the middle have to get the weighted mean and deviation
WHERE = {
    "gpt2": "middle.layers.0",
    "linear": "middle.layers.0",
    "group norm": "middle.1",
    "layer norm": "middle.layers.1",
    "unbatched": "middle.conv",
}


def between(kind: str) -> tuple[pg.Plan, nn.Module, nn.Module, nn.Module]:
    a, b = Between(0, kind), Between(1, kind)
    result = Between(0, kind)
    result.load_state_dict(merge(a.state_dict(), b.state_dict(), (0.7, 0.3)))
    return pg.plan(pg.infer(pg.trace(a, (inputs()[0][:1],)))), result, a, b


@pytest.mark.parametrize("kind", MIDDLES)
def test_layers_of_every_kind_get_the_weighted_mean_and_deviation(kind: str) -> None:
    plan, merged, a, b = between(kind)
    batches = [torch.cat(inputs())]
    name = WHERE.get(kind, "middle")
    report = repair(plan, merged, a, b, batches, (0.7, 0.3))
    assert not report["skipped"] and name in report["layers"] and name not in report["scaled"]
    merged.load_state_dict(merged.state_dict())  # what is stored is what computes it
    of_a, of_b = (statistics(m, name, batches) for m in (a, b))
    for found, x, y in zip(statistics(merged, name, batches), of_a, of_b, strict=True):
        torch.testing.assert_close(found, 0.7 * x + 0.3 * y, rtol=1e-4, atol=1e-5)


class StillNorm(nn.Module):
    """A batch norm whose statistics are buffers that nothing takes anew, as in DETR."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.randn(6))
        self.register_buffer("running_var", torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean.reshape(-1, 1)) / self.running_var.reshape(-1, 1).sqrt()


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x.transpose(1, 2))[0].transpose(1, 2)


MIDDLES_LEFT = {
    "spectral": (
        lambda: made_of.spectral_norm(nn.Conv1d(4, 6, 3, padding=1)),
        {"middle": "its weight is computed (SpectralNorm), which cannot give a rescaled one"},
    ),
    "gru": (
        Gru,
        {
            f"middle.gru.{name}": "not the weight of a linear layer or a convolution"
            for name in ("weight_ih_l0", "weight_hh_l0")
        },
    ),
}


@pytest.mark.parametrize("kind", MIDDLES_LEFT)
def test_what_is_left_is_named_and_untouched(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    make, want = MIDDLES_LEFT[kind]
    monkeypatch.setitem(MIDDLES, kind, make)
    plan, merged, a, b = between(kind)
    middle = merged.get_submodule("middle")
    before = {k: t.clone() for k, t in middle.state_dict().items()}
    report = repair(plan, merged, a, b, inputs())
    assert report["skipped"] == want and list(report["layers"]) == ["first"]
    assert all(torch.equal(t, before[k]) for k, t in middle.state_dict().items())


def test_a_batch_norm_that_is_frozen_is_no_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        MIDDLES, "frozen", lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1, bias=False), StillNorm())
    )
    plan, merged, a, b = between("frozen")
    report = repair(plan, merged, a, b, inputs())
    assert report["scaled"] == ["middle.0"] and report["batch_norm"] == []


def test_a_convolution_without_bias_is_repaired_by_the_batch_norm_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its units leave the norm with the weighted mean and deviation, when A's and B's statistics are those of the data."""
    monkeypatch.setitem(
        MIDDLES, "bn", lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1, bias=False), nn.BatchNorm1d(6))
    )
    plan, merged, a, b = between("bn")
    batches = [torch.cat(inputs())]
    for model in (a, b):
        repair(plan, model, copy.deepcopy(model), copy.deepcopy(model), batches)
    merged.load_state_dict(merge(a.state_dict(), b.state_dict(), (0.7, 0.3)))
    report = repair(plan, merged, a, b, batches, (0.7, 0.3))
    assert report["batch_norm"] == ["middle.1"] and list(report["layers"]) == ["first"]
    of_a, of_b = (statistics(m, "middle.1", batches) for m in (a, b))
    for found, x, y in zip(statistics(merged, "middle.1", batches), of_a, of_b, strict=True):
        torch.testing.assert_close(found, 0.7 * x + 0.3 * y, rtol=1e-3, atol=1e-4)
