"""A narrower HuBERT in the shapes of a wider one: the tool behind docs/widths.md, on untrained encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretraining.network import save_encoder, small_config
from transformers import HubertModel
from widths import Two, changed

import permgraph as pg


@pytest.fixture
def two(tmp_path: Path) -> Two:
    for seed, (name, convs, ffn) in enumerate(
        (("widths-first", (4, 6, 6, 6, 8, 8, 8), 24), ("narrow", (2, 3, 4, 6, 5, 8, 8), 16))
    ):
        torch.manual_seed(seed)
        save_encoder(
            HubertModel(small_config(16, 2, convs=convs, ffn=ffn)), tmp_path / name, {}, False, False
        )
    return Two.load(tmp_path)


def test_a_narrower_hubert_computes_what_it_did_and_is_merged(two: Two) -> None:
    audio = torch.randn(2, 9600, generator=torch.Generator().manual_seed(0))
    assert changed(two, audio) < 1e-12
    sizes = [
        [group.size for group in groups if "/" not in group.name]
        for groups in (two.plan.groups, two.groups_b)
    ]
    assert all(a >= b for a, b in zip(*sizes, strict=True)) and sizes[0] != sizes[1]
    perms = pg.match(two.plan, (two.a.state_dict(), two.fitted), "weights")
    alone = two.merged(perms, (1.0, 0.0)).state_dict()
    assert all(torch.equal(alone[key], tensor) for key, tensor in two.a.state_dict().items())
    mixed = two.merged(perms, (0.5, 0.5)).state_dict()
    key = "encoder.layers.0.feed_forward.intermediate_dense.weight"
    rows = (mixed[key] == alone[key]).all(1)
    assert int(rows.sum()) == 24 - 16  # slots that no unit of B takes are A's


def test_a_number_in_an_empty_slot_is_noticed(two: Two) -> None:
    two.fitted.state["encoder.layers.0.feed_forward.intermediate_dense.bias"][0] += 1
    assert changed(two, torch.randn(2, 9600)) > 1e-6
