"""Cases 60-66: activations, sums and scores that do not behave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import permgraph as pg
from permgraph.errors import MatchError
from tests.faults.kit import MATCH, bad, good

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(64, 4, generator=GENERATOR)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def plan() -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(net(), (X,))))


# 60
def test_a_nan_in_the_activations_leaves_its_batch_out_and_many_end_the_run() -> None:
    broken = X.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(MatchError, match=r"probe '.*': 64 of 128 samples .*NaN"):
        pg.calibrate(plan(), net(), net(1), [X, broken])
    many = [torch.randn(1000, 4, generator=GENERATOR) for _ in range(70)]
    moments = pg.calibrate(plan(), net(), net(1), [*many, broken])
    assert set(moments.excluded.values()) == {64}
    clean = pg.calibrate(plan(), net(), net(1), many)
    assert pg.match(plan(), moments).digest == pg.match(plan(), clean).digest


# 61
def test_dead_units_are_matched_last_in_one_way_and_counted() -> None:
    a, b = net(), net(1)
    for model, units in ((a, [1, 4]), (b, [0, 2])):
        with torch.no_grad():
            model[0].weight[units] = 0
    moments = pg.calibrate(plan(), a, b, [X])
    found = pg.match(plan(), moments)
    row = found.report["groups"][next(iter(found))]
    assert (row["dead_a"], row["dead_b"]) == (2, 2)
    (perm,) = found.values()
    assert set(perm[[1, 4]]) == {0, 2} and found.digest == pg.match(plan(), moments).digest


# 62
@pytest.mark.parametrize("size", [1, 5, 70])
def test_equal_scores_leave_every_unit_where_it_is(size: int) -> None:
    assert (pg.assign(np.ones((size, size))) == np.arange(size)).all()
    assert (pg.assign(np.zeros((size, size))) == np.arange(size)).all()


# 63
def test_sums_are_float64_whatever_the_activations_are() -> None:
    from permgraph.matching.accumulation import MomentsBuilder
    from permgraph.matching.probes import choose_probes, layout_of

    made = plan()
    layouts = {key: layout_of(made.spec, probe) for key, probe in choose_probes(made).items()}
    key = next(iter(layouts))
    sums = []
    for dtype in (torch.float16, torch.float64):
        builder = MomentsBuilder({key: layouts[key]}, made.origin)
        for _ in range(70):
            ones = torch.full((1000, 6), 100.0, dtype=dtype)  # 7,000,000 in all: beyond float16
            ones[::2] += 1
            builder.update(key, ones, ones)
        probe = builder.build()[key]
        sums.append((probe.n, probe.a.variance()))
    assert sums[0][0] == sums[1][0] == 70_000
    assert np.allclose(sums[0][1], 0.25, rtol=1e-3) and np.allclose(sums[1][1], 0.25)


# 64
def test_opposites_are_paired_only_when_asked_for_and_then_told(place: Path) -> None:
    a = net()
    b = net()
    with torch.no_grad():
        b[0].weight.neg_()
        b[0].bias.neg_()
    moments = pg.calibrate(plan(), a, b, [X])
    (signed,), (size,) = (pg.match(plan(), moments, name).values() for name in ("correlation", "abs"))
    assert (size == np.arange(6)).all() and (signed != np.arange(6)).any()
    warned = good(*MATCH, "-o", "p.st", "--abs").out
    assert "anti-correlated: averaging" in " ".join(warned.split())
    assert "leave out --matcher covariance" in bad(
        *MATCH, "-o", "q.st", "--abs", "--matcher", "covariance", code=2
    )


# 65
@pytest.mark.parametrize(
    "score",
    [np.full((3, 3), np.nan), np.full((3, 3), np.inf), np.ones((3, 4)), np.ones(3), np.ones((2, 2, 2))],
)
def test_scores_that_are_none_are_refused_before_they_are_solved(score: np.ndarray) -> None:
    with pytest.raises(MatchError, match=r"score|finite|square"):
        pg.assign(score)


# 66
def test_a_group_that_gains_nothing_is_told() -> None:
    moments = pg.calibrate(plan(), net(), net(1), [torch.randn(8, 4, generator=GENERATOR)])
    found = pg.match(plan(), moments)
    warnings = [text for row in found.report["groups"].values() for text in row["warnings"]]
    assert any("gains nothing" in text for text in warnings), warnings
