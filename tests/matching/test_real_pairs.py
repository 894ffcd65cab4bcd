"""Acceptance on networks that other people trained apart, along the whole line. Numbers: docs/real_pairs.md."""

from __future__ import annotations

import copy
from functools import cache

import onsets
import pytest
import real_pairs as tool
import torch
from networks import pretrained as p

from permgraph.matching.matchers import match

pytestmark = p.needs_data


@cache
def res8_probes(other: str) -> dict[str, dict]:
    pair = tool.res8(other, clips=50)
    return match(pair.plan, pair.moments()).report["probes"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("other", ["seed441002", "seed794773"])
def test_res8_layers_correlate_as_measured_when_each_is_matched_alone(other: str) -> None:
    """At least 0.80 in conv0 and 0.22 in every deeper layer; left in place at most 0.25 and about nothing."""
    for key, row in res8_probes(other).items():
        first = "entering conv1" in key
        assert row.get("alone", row["correlation"]) >= (0.80 if first else 0.22), key
        if "entering output" not in key:  # a mean over time and mel: few samples, large correlations
            assert row["identity"] <= (0.25 if first else 0.08), key


@pytest.mark.parametrize("other", ["seed441002", "seed794773"])
def test_one_permutation_serves_the_whole_residual_stream(other: str) -> None:
    """conv0 gives some of its correlation up to conv2, conv4, conv6; every group stays far above chance."""
    for key, row in res8_probes(other).items():
        assert row["correlation"] > row["shuffled"] + 0.08, key
        if "entering conv1" in key:
            assert row["alone"] > row["correlation"] >= 0.65
        if not key.startswith("residual"):
            assert row["correlation"] >= 0.22, key


def test_mnist_pair_averages_once_aligned() -> None:
    pair, judged = tool.digits()
    perms = match(pair.plan, pair.moments())
    assert p.accuracy(pair.merged(None), p.mnist()) == pytest.approx(0.785, abs=0.005)
    assert p.accuracy(pair.merged(perms), p.mnist()) >= 0.95
    assert p.accuracy(pair.merged(perms), judged) >= 0.95  # none of these was calibrated on
    assert p.accuracy(pair.merged(perms, fix=True), judged) >= 0.95
    assert p.accuracy(pair.merged(None, fix=True), judged) < 0.88  # repair alone does not align


@pytest.mark.slow
def test_cifar_pair_needs_alignment_and_batch_norm_both() -> None:
    pair, judged = tool.objects(200)
    equal = tool.balanced(dict(pair.a.state_dict()), dict(pair.b.state_dict()))
    same = copy.deepcopy(pair.a)
    same.load_state_dict(equal)
    with torch.no_grad():
        torch.testing.assert_close(same(judged[0][:50]), pair.a(judged[0][:50]), rtol=1e-2, atol=1e-2)
    perms = match(pair.plan, pair.moments())
    assert p.accuracy(pair.merged(None), judged) < 0.15  # chance
    assert p.accuracy(pair.merged(perms), judged) < 0.25
    plain = p.accuracy(pair.merged(None, True, equal), judged)
    aligned = p.accuracy(pair.merged(perms, True, equal), judged)
    assert plain < 0.3 and aligned > plain + 0.15
    assert p.accuracy(pair.merged(perms, True), judged) > p.accuracy(pair.merged(None, True), judged)


@pytest.mark.slow
def test_onset_detectors_average_once_every_layer_and_direction_is_aligned() -> None:
    """On clips of other recordings than those matched on, as in docs/onsets.md."""
    heard, judged = p.onset_features("train", onsets.HEARD), p.onset_features("test", onsets.JUDGED)
    wanted = onsets.consensus(judged)
    ours, reports = onsets.aligned(heard)
    for count, least in ((2, 0.87), (4, 0.78), (8, 0.72)):
        aligned, plain = (
            onsets.agreement(onsets.outputs(onsets.averaged(found[:count]), judged), wanted)[0]
            for found in (ours, onsets.states())
        )
        assert aligned >= least and plain < 0.6
    assert len(reports[0]) == 6 and all(row["correlation"] > 0.35 for row in reports[0].values())
