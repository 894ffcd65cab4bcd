"""Weights that are computed from parts are averaged as computed: what the parts look like makes no difference."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from permgraph.errors import FileError, UsageError
from permgraph.weights.computed import WAYS
from permgraph.weights.interpolate import merge

State = dict[str, torch.Tensor]


def old(function: Callable[..., Any]) -> Callable[..., nn.Module]:
    def make(*args: Any, **kwargs: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            made: nn.Module = function(*args, **kwargs)
        return made

    return make


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv1d(6, 4, 3)),
    "weight norm over taps": lambda: parametrizations.weight_norm(nn.Conv1d(6, 4, 3), dim=2),
    "weight norm of all": lambda: old(nn.utils.weight_norm)(nn.Linear(6, 4), dim=None),
    "weight norm, old": lambda: old(nn.utils.weight_norm)(nn.Linear(6, 4)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 4)),
    "spectral norm, transposed": lambda: parametrizations.spectral_norm(nn.ConvTranspose1d(6, 4, 3)),
    "spectral norm, old": lambda: old(nn.utils.spectral_norm)(nn.Conv1d(6, 4, 3)),
}


def layer(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = LAYERS[name]().double()
    for tensor in made.parameters():
        tensor.data.add_(0.3 * torch.randn_like(tensor))
    for _ in range(30):  # spectral norm estimates its vectors in training
        made.train()(
            torch.randn(2, 6, 9, dtype=torch.float64) if tensor_rank(made) == 3 else torch.ones(1, 6).double()
        )
    return made.eval()


def tensor_rank(module: nn.Module) -> int:
    return max(p.dim() for p in module.parameters())


def computed(name: str, state: State) -> torch.Tensor:
    made = LAYERS[name]().double().eval()
    made.load_state_dict(state)
    made(torch.zeros(1, 6, 9, dtype=torch.float64) if tensor_rank(made) == 3 else torch.zeros(1, 6).double())
    weight = made.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().clone()


@pytest.mark.parametrize("name", LAYERS)
def test_the_weight_of_the_merge_is_the_average_of_the_weights(name: str) -> None:
    a, b = (layer(name, seed).state_dict() for seed in (0, 1))
    merged = merge(a, b, (0.7, 0.3))
    want = 0.7 * computed(name, a) + 0.3 * computed(name, b)
    torch.testing.assert_close(computed(name, merged), want, rtol=1e-9, atol=1e-9)
    parts = merge(a, b, (0.7, 0.3), parametrized="parts")
    assert float((computed(name, parts) - want).norm() / want.norm()) > 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_a_direction_keeps_the_interpolated_norm(name: str) -> None:
    a, b = (layer(name, seed).state_dict() for seed in (0, 1))
    merged = computed(name, merge(a, b, (0.7, 0.3), parametrized="direction"))
    mean = 0.7 * computed(name, a) + 0.3 * computed(name, b)
    if "spectral" in name:
        axis = 1 if "transposed" in name else 0
        assert float(torch.linalg.matrix_norm(merged.movedim(axis, 0).flatten(1), 2)) == pytest.approx(1)
        torch.testing.assert_close(merged / merged.norm(), mean / mean.norm())
        return
    axes = {"weight norm over taps": (0, 1), "weight norm of all": (0, 1)}.get(
        name, tuple(range(1, mean.dim()))
    )
    norm = [x.norm(dim=axes, keepdim=True) for x in (merged, mean, computed(name, a), computed(name, b))]
    torch.testing.assert_close(norm[0], 0.7 * norm[2] + 0.3 * norm[3])
    torch.testing.assert_close(merged / norm[0], mean / norm[1])


@pytest.mark.parametrize("way", ["weight", "direction"])
def test_the_length_of_bs_direction_makes_no_difference(way: str) -> None:
    a, b = (layer("weight norm", seed).state_dict() for seed in (0, 1))
    key = "parametrizations.weight.original1"
    one, other = (merge(a, {**b, key: b[key] * scale}, (0.6, 0.4), parametrized=way) for scale in (1, 100))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one[key].norm(dim=(1, 2)), a[key].norm(dim=(1, 2)))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_ends_give_back_the_parts_and_share_no_memory(name: str, way: str) -> None:
    a, b = (layer(name, seed).state_dict() for seed in (0, 1))
    for weights, want in (((1.0, 0.0), a), ((0.0, 1.0), b)):
        merged = merge(a, b, weights, parametrized=way)
        kept = copy.deepcopy(want)
        assert all(torch.equal(merged[k], want[k]) for k in want)
        for tensor in merged.values():
            tensor.zero_()
        assert all(torch.equal(kept[k], want[k]) for k in want)


def test_the_spelling_of_b_may_be_another() -> None:
    a, b = (layer("weight norm, old", seed).state_dict() for seed in (0, 1))
    spelt = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    other = merge(a, {spelt.get(k, k): v for k, v in b.items()}, (0.5, 0.5))
    torch.testing.assert_close(other, merge(a, b, (0.5, 0.5)))


def test_what_cannot_be_computed_from_the_file_is_refused() -> None:
    a, b = (parametrizations.orthogonal(nn.Linear(4, 4)).state_dict() for _ in range(2))
    with pytest.raises(FileError, match=r"parametrizations\.weight.*orthogonal.*--parametrized parts"):
        merge(a, b)
    assert set(merge(a, b, parametrized="parts")) == set(a)
    with pytest.raises(UsageError, match="parametrized='both': one of direction, weight, parts"):
        merge(a, b, parametrized="both")


def test_a_norm_of_nothing_stays_nothing() -> None:
    a, b = (layer("weight norm, old", seed).state_dict() for seed in (0, 1))
    a["weight_g"][1] = 0
    b["weight_v"][1] = 0
    merged = merge(a, b, (0.5, 0.5))
    assert torch.isfinite(computed("weight norm, old", merged)).all()
    assert float(computed("weight norm, old", merged)[1].norm()) == 0
