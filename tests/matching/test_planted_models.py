"""Planted: B is A, re-ordered by a random element of its whole group, plus a little noise on the weights.

Every group must be recovered exactly, and the average must be A again.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from networks import MODELS, RECURRENT
from networks import pretrained as p
from oracles.memory import peak
from torch import Tensor, nn

import permgraph as pg
from permgraph.ir.permutations import Permutations
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match
from permgraph.matching.probes import unobserved
from permgraph.weights.interpolate import merge

NOISE = 1e-3  # of each tensor's own spread
SMALL = ("hubert", "hubert_layer", "wavlm", "bert", "llama_gqa", "vit", "resnet_basic", "mobilenet_v2")


def planted(model: nn.Module, plan: pg.Plan, seed: int = 0) -> tuple[nn.Module, Permutations]:
    """B, and the permutations that bring it back to A."""
    secret = pg.random_permutations(plan, seed)
    state = pg.apply(plan, secret, model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor.add_(NOISE * tensor.std() * torch.randn(tensor.shape, generator=generator))
    with torch.no_grad():
        for module in model.modules():  # an old weight norm keeps its last product, which cannot be copied
            for hook in module._forward_pre_hooks.values():
                hook(module, ())
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    return other, secret.inverse(plan.spec)


def more(inputs: tuple[Any, ...], count: int) -> list[tuple[Any, ...]]:
    """Random inputs like the example: noise, or shuffled token ids."""
    generator = torch.Generator().manual_seed(0)

    def like(x: Tensor) -> Tensor:
        shape = (8, *x.shape[1:])
        if x.is_floating_point():
            return torch.randn(shape, generator=generator)
        return torch.randint(2, int(x.max()) + 1, shape, generator=generator)

    return [tuple(like(x) for x in inputs) for _ in range(count)]


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative distance of any weight."""
    return max(
        float((t.double() - other[k].double()).norm() / (t.double().norm() + 1e-12))
        for k, t in one.items()
        if t.is_floating_point() and t.dim() > 1
    )


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "gru_in_loop" else ())
        for name in (*SMALL, *RECURRENT)
    ],
)
def test_every_group_is_recovered_and_the_merge_gives_back_a(name: str) -> None:
    model, inputs = MODELS[name]()
    plan = pg.plan(pg.infer(pg.trace(model, inputs)))
    other, answer = planted(model, plan)
    moments = calibrate(plan, model, other, list(more(inputs, 4)))
    found = match(plan, moments)
    wrong = {g: int((found[g] != answer[g]).sum()) for g in answer if not np.array_equal(found[g], answer[g])}
    assert not wrong
    for row in found.report["groups"].values():  # dead units correlate 0
        assert row["correlation"] > 0.99 * (1 - row["dead_a"] / row["units"])
    merged = merge(model.state_dict(), pg.apply(plan, found, other.state_dict()), (0.5, 0.5))
    plain = merge(model.state_dict(), other.state_dict(), (0.5, 0.5))
    assert distance(model.state_dict(), merged) < 2 * NOISE
    assert distance(model.state_dict(), plain) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*SMALL, *RECURRENT)])
def test_every_group_of_every_other_network(name: str) -> None:
    """The spec names none that could not be observed. A unit that never varies says nothing of its order."""
    model, inputs = MODELS[name]()
    plan = pg.plan(pg.infer(pg.trace(model, inputs)))
    assert not unobserved(plan.spec)
    other, answer = planted(model, plan)
    found = match(plan, calibrate(plan, model, other, [pg.Pair(x, x) for x in more(inputs, 4)]))
    for group, row in found.report["groups"].items():
        assert (found[group] != answer[group]).sum() <= row["dead_a"], group


@pytest.mark.slow
@p.needs_data
def test_hubert_base_on_real_speech() -> None:
    """94 M parameters, random weights; a few seconds of speech. Within 8 GB of memory."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    model = HubertModel(HubertConfig()).eval()
    clips = [clip[:, :16000] for clip in p.keyword_clips(60) if clip.shape[1] >= 16000][:24]
    plan = pg.plan(pg.infer(pg.trace(model, (clips[0],))), "cnn,heads,ffn2")
    other, answer = planted(model, plan)
    found = match(plan, calibrate(plan, model, other, list(torch.cat(clips).split(8))))
    wrong = {g: int((found[g] != answer[g]).sum()) for g in answer if not np.array_equal(found[g], answer[g])}
    assert not wrong
    merged = merge(model.state_dict(), pg.apply(plan, found, other.state_dict()), (0.5, 0.5))
    assert distance(model.state_dict(), merged) < 2 * NOISE
    if sys.platform == "linux":
        assert peak() < 8 * 2**30
