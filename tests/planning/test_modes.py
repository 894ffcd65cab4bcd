"""The modes of the literature: each says which projections get an order of their own, and none is a symmetry."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from networks.traced import network, spec

import permgraph as pg
from permgraph.matching.probes import choose_probes

PARTS = {"untied": ["heads.0/v", "heads.0/qk@q", "heads.0/qk@k"]}
PARTS["untied-qkv"] = ["heads.0/qk@q", "heads.0/qk@k", "heads.0/v@v", "heads.0/v@o"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mode", PARTS)
@pytest.mark.parametrize("name", ["multihead_attention", "qkv_hd3"])
def test_every_projection_is_matched_by_what_leaves_it(name: str, mode: str) -> None:
    """B's projections were each re-ordered by themselves: what leaves them shows that, and the function is lost."""
    model, (x,) = network(name)
    plan = pg.plan(spec(name), "heads,qk", mode=mode)
    assert set(plan.selected) == {"heads.0", *PARTS[mode]}
    secret, other = pg.random_permutations(plan, 3), copy.deepcopy(model)
    other.load_state_dict(pg.apply(plan, secret, model.state_dict()))
    with torch.no_grad():
        assert (other(x) - model(x)).norm() > 0.01 * model(x).norm()
    found = pg.match(plan, pg.calibrate(plan, model, other, [torch.randn(8, *x.shape[1:]) for _ in range(8)]))
    answer = secret.inverse(plan.spec)
    for group in (
        "heads.0",
        "heads.0/qk@q",
        "heads.0/qk@k",
        *(["heads.0/v@v"] if mode == "untied-qkv" else []),
    ):
        assert np.array_equal(found[group], answer[group]), group
    assert not np.array_equal(found["heads.0/qk@q"], found["heads.0/qk@k"])


def test_values_are_read_where_they_enter_and_where_they_are_made() -> None:
    plan = pg.plan(spec("multihead_attention"), "heads", mode="untied-qkv")
    where = {probe.layout[-1]: probe.when for probe in choose_probes(plan).values()}
    assert where == {"heads.0/v@v": "leaving", "heads.0/v@o": "entering"}
    assert any("out_proj" in tie and "move separately" in tie for tie in plan.broken)
