"""The law of the whole: planted permutations come back through moments, in whatever order samples come."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from permgraph.errors import MatchError, UsageError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.moments import Layout, Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.matchers import MATCHERS, match, register
from tests.matching.planted import (
    GROUPED_QUERY_PROBES,
    TRANSFORMER_PROBES,
    grouped_query,
    moments_of,
    plan_of,
    planted,
    transformer,
)

CASES = {"transformer": (transformer(), TRANSFORMER_PROBES), "gqa": (grouped_query(), GROUPED_QUERY_PROBES)}


def calibrated(plan, probes, data, order=None, batch=250) -> Moments:
    """The moments as calibration builds them: float32 batches, in some order."""
    sizes = {g.name: g.size for g in plan.spec.groups}
    builder = MomentsBuilder(
        {k: Layout(v, tuple(sizes[g] for g in v)) for k, v in probes.items()}, plan.origin
    )
    count = len(next(iter(data.values()))[0]) // batch
    for i in range(count) if order is None else order:
        for key, (a, b) in data.items():
            rows = slice(i * batch, (i + 1) * batch)
            builder.update(key, torch.from_numpy(a[rows]).float(), torch.from_numpy(b[rows]).float())
    return builder.build()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("matcher", ["correlation", "covariance"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_permutations_are_recovered_whole(case, matcher, seed):
    spec, probes = CASES[case]
    plan = plan_of(spec, *(g for g in spec.by_name if any(g in layout for layout in probes.values())))
    want = random_permutations(plan, seed)
    found = match(plan, calibrated(plan, probes, planted(plan, probes, want, seed=seed)), matcher)
    check_permutations(plan, found)
    assert set(found) == set(plan.selected)
    for name in want:
        np.testing.assert_array_equal(found[name], want[name], err_msg=name)
        assert found.report["groups"][name]["correlation"] == pytest.approx(1 / np.sqrt(1.09), abs=0.02)


def test_taking_the_inverse_is_caught():
    """The convention: perm[i] is B's unit that goes to A's slot i, not the other way round."""
    plan = plan_of(transformer(), "ffn.0")
    want = random_permutations(plan, 1)
    probes = {"ffn.0": ("ffn.0",)}
    found = match(plan, moments_of(plan, probes, planted(plan, probes, want)))
    inverse = want.inverse(plan.spec)
    assert (inverse["ffn.0"] != want["ffn.0"]).any()
    assert (found["ffn.0"] == want["ffn.0"]).all()


def test_order_of_clips_and_shards_change_nothing():
    plan = plan_of(transformer())
    data = planted(plan, TRANSFORMER_PROBES, random_permutations(plan, 4), noise=3.0)
    whole = match(plan, calibrated(plan, TRANSFORMER_PROBES, data))
    order = np.random.default_rng(0).permutation(8)
    shuffled = match(plan, calibrated(plan, TRANSFORMER_PROBES, data, order))
    shards = [calibrated(plan, TRANSFORMER_PROBES, data, part) for part in (order[:3], order[3:5], order[5:])]
    sharded = match(plan, Moments.total(shards))
    for name in whole:
        np.testing.assert_array_equal(whole[name], shuffled[name])
        np.testing.assert_array_equal(whole[name], sharded[name])


def test_same_moments_and_seed_same_answer():
    plan = plan_of(transformer())
    moments = moments_of(
        plan, TRANSFORMER_PROBES, planted(plan, TRANSFORMER_PROBES, Permutations({}), noise=9)
    )
    for name in (name for name, row in MATCHERS.items() if not row.of_weights):
        one, two = match(plan, moments, name, seed=5), match(plan, moments, name, seed=5)
        assert all((one[g] == two[g]).all() for g in one)
        assert json.dumps(one.report, allow_nan=False) == json.dumps(two.report)


def test_matching_beats_identity_and_shuffled_and_says_what_moved():
    plan = plan_of(transformer(heads=12, v=8, qk=8, ffn=64))
    want = random_permutations(plan, 100)
    moments = moments_of(plan, TRANSFORMER_PROBES, planted(plan, TRANSFORMER_PROBES, want))
    rows = match(plan, moments).report["groups"]
    for name, row in rows.items():
        assert row["correlation"] > 0.9 > 0.3 > abs(row["shuffled"])
        assert row["identity"] < 0.5 and not row["warnings"], name
    assert rows["heads.0/v"]["units"] == 96 and rows["heads.0"]["units"] == 12
    assert rows["ffn.0"]["moved"] == 100 * (want["ffn.0"] != np.arange(64)).mean()
    stay = match(plan, moments, "identity").report["groups"]
    assert all(row["moved"] == 0 and row["correlation"] == row["identity"] for row in stay.values())
    random = match(plan, moments, "random").report["groups"]
    assert all(row["moved"] > 50 and row["correlation"] < 0.5 for row in random.values())


def test_correlation_ignores_scale_and_covariance_does_not():
    plan = plan_of(transformer(), "ffn.0")
    probes = {"ffn.0": ("ffn.0",)}
    a, b = planted(plan, probes, Permutations({}), samples=4000)["ffn.0"]
    plain = match(plan, moments_of(plan, probes, {"ffn.0": (a, b)}))
    scaled = moments_of(plan, probes, {"ffn.0": (a, b * 10.0 ** np.arange(-4, 5) + 7)})
    assert (match(plan, scaled)["ffn.0"] == plain["ffn.0"]).all()
    np.testing.assert_allclose(
        scaled["ffn.0"].covariance()[:, 8] / 1e4, np.cov(a.T, b[:, 8])[:-1, -1], rtol=1e-2
    )


def test_59_fewer_samples_than_channels_is_said():
    plan = plan_of(transformer(ffn=64), "ffn.0")
    probes = {"ffn.0": ("ffn.0",)}
    moments = moments_of(plan, probes, planted(plan, probes, Permutations({}), samples=20))
    assert "20 samples for 64 channels" in match(plan, moments).report["groups"]["ffn.0"]["warnings"][0]


def test_66_a_group_that_gains_nothing_is_said():
    plan = plan_of(transformer(ffn=64), "ffn.0")
    probes = {"ffn.0": ("ffn.0",)}
    noise = moments_of(plan, probes, planted(plan, probes, Permutations({}), strength={"ffn.0": 0.0}))
    assert "gains nothing" in match(plan, noise).report["groups"]["ffn.0"]["warnings"][0]


def test_61_dead_units_are_counted_and_meet():
    plan = plan_of(transformer(), "ffn.0")
    probes = {"ffn.0": ("ffn.0",)}
    a, b = planted(plan, probes, Permutations({}))["ffn.0"]
    a[:, 2], b[:, 6] = 5.0, 0.0
    found = match(plan, calibrated(plan, probes, {"ffn.0": (a, b)}))
    row = found.report["groups"]["ffn.0"]
    assert (row["dead_a"], row["dead_b"]) == (1, 1)
    assert found["ffn.0"].tolist() == [0, 1, 6, 3, 4, 5, 2, 7, 8]


def test_without_moments_only_what_needs_none():
    plan = plan_of(transformer())
    assert match(plan, None, "identity").report["groups"]["ffn.0"] == {
        "role": "ffn",
        "units": 9,
        "moved": 0.0,
        "fixed": 9,
        "by_chance": 1.0,
    }
    assert match(plan, None, "random", seed=3).report["groups"]["ffn.0"]["moved"] > 0
    with pytest.raises(MatchError, match=r"matcher 'correlation' needs moments"):
        match(plan, None)


def test_wrong_things_are_refused_in_words():
    plan = plan_of(transformer())
    with pytest.raises(UsageError, match=r"no matcher 'corelation'. Did you mean correlation"):
        match(plan, None, "corelation")
    with pytest.raises(MatchError, match="calibrated for another plan"):
        match(plan, Moments({}, Origin("other")))
    part = {"ffn.0": ("ffn.0",)}
    moments = moments_of(plan, part, planted(plan, part, Permutations({})))
    with pytest.raises(MatchError, match="is selected, but no probe observed it"):
        match(plan, moments)


def test_report_survives_the_permutation_file(tmp_path):
    plan = plan_of(transformer())
    moments = moments_of(plan, TRANSFORMER_PROBES, planted(plan, TRANSFORMER_PROBES, Permutations({})))
    found = match(plan, moments)
    found.save(tmp_path / "p.safetensors")
    assert Permutations.load(tmp_path / "p.safetensors").report == found.report


def test_a_function_of_the_user_is_a_matcher(tmp_path, monkeypatch):
    """By name in a file, and as a row of the menu; both as good as the row it copies."""
    (tmp_path / "scores.py").write_text("def pearson(moments):\n    return moments.correlation()\n")
    plan = plan_of(transformer(), "ffn.0")
    moments = moments_of(
        plan, {"ffn.0": ("ffn.0",)}, planted(plan, {"ffn.0": ("ffn.0",)}, random_permutations(plan, 1))
    )
    want = match(plan, moments)["ffn.0"]
    found = match(plan, moments, f"{tmp_path}/scores.py:pearson")
    np.testing.assert_array_equal(found["ffn.0"], want)
    with pytest.raises(UsageError, match=r"no function 'spearman'"):
        match(plan, moments, f"{tmp_path}/scores.py:spearman")
    monkeypatch.setattr("permgraph.matching.matchers.MATCHERS", dict(MATCHERS))
    register("mine", "as the paper's", "", lambda m: m.correlation())
    np.testing.assert_array_equal(match(plan, moments, "mine")["ffn.0"], want)
    with pytest.raises(UsageError, match=r"matcher 'mine' exists"):
        register("mine", "", "", lambda m: m.correlation())
    with pytest.raises(UsageError, match=r"neither colons nor spaces"):
        register("a:b", "", "", lambda m: m.correlation())


def test_heads_are_judged_where_they_were_decided():
    """The value channels decide the order of heads; queries and keys that match worse do not dilute the report."""
    plan = plan_of(transformer())
    want = random_permutations(plan, 3)
    data = planted(plan, TRANSFORMER_PROBES, want)
    noise = np.random.default_rng(5)
    for key, layout in TRANSFORMER_PROBES.items():
        if any(name.endswith("/qk") for name in layout):
            a, b = data[key]
            data[key] = (a, noise.normal(size=b.shape))  # nothing to be matched there
    report = match(plan, moments_of(plan, TRANSFORMER_PROBES, data)).report
    for name in (g.name for g in plan.groups if g.role == "heads"):
        deciding = [r for r in report["probes"].values() if f"{name}/v" in r["groups"]]
        assert report["groups"][name]["correlation"] == deciding[0]["correlation"] > 0.9
