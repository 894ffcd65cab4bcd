"""Heads: beside scikit-learn's, on planted layers, and blind to what they must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from permgraph.evaluation import heads as h
from permgraph.evaluation.heads import HEADS, Parts

CLASSES = 3


def planted(
    layers: int = 4, width: int = 10, informative: int = 2, noise: float = 0.5, seed: int = 0
) -> Parts:
    """Classes are told by one layer alone."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, width))
    sides = []
    for count in (120, 60, 90):
        y = rng.integers(CLASSES, size=count)
        x = rng.normal(size=(count, layers, width))
        x[:, informative] = centres[y] + noise * rng.normal(size=(count, width))
        sides.append((x.astype(np.float32), y))
    (train, y_train), (valid, y_valid), (test, y_test) = sides
    parts = Parts(train, y_train, valid, y_valid, test, CLASSES)
    truth[id(parts)] = y_test
    return parts


truth: dict[int, np.ndarray] = {}


def accuracy(parts: Parts, head: str, seed: int = 0) -> float:
    found = HEADS[head].fit(parts.standardised(), seed)
    assert found.test.shape == truth[id(parts)].shape
    return float((found.test == truth[id(parts)]).mean())


@pytest.mark.sampled(2)
@pytest.mark.parametrize("head", HEADS)
def test_a_planted_layer_is_found(head: str) -> None:
    if head.startswith("logistic"):
        pytest.importorskip("sklearn")
    parts = planted()
    assert accuracy(parts, head) > 0.9
    found = HEADS[head].fit(parts.standardised(), 0)
    if head == "ridge" or head.startswith("logistic"):
        assert "layer 2" in found.choice
    else:
        weights = [float(w) for w in found.choice.partition("weighted ")[2].split(", ")]
        assert int(np.argmax(weights)) == 2


@pytest.mark.sampled(2)
@pytest.mark.parametrize("head", HEADS)
def test_labels_that_say_nothing_give_chance(head: str) -> None:
    if head.startswith("logistic"):
        pytest.importorskip("sklearn")
    assert accuracy(planted(noise=100), head) < 0.55


@pytest.mark.parametrize("head", HEADS)
def test_each_test_clip_is_predicted_by_itself(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the other test clips is used: not their mean, not their number."""
    monkeypatch.setattr(h, "STEPS", 200)
    if head.startswith("logistic"):
        pytest.importorskip("sklearn")
    parts = planted(noise=1.0)
    whole = HEADS[head].fit(parts.standardised(), 0).test
    few = HEADS[head].fit(replace(parts, test=parts.test[:7] * 1).standardised(), 0).test
    np.testing.assert_array_equal(few, whole[:7])


@pytest.mark.parametrize("head", ["linear", "two-layer"])
def test_a_seed_is_all_the_chance_there_is(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(h, "STEPS", 200)
    parts = planted(noise=3.0).standardised()
    state = torch.random.get_rng_state()
    one, same, other = (HEADS[head].fit(parts, seed).test for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_ridge_is_that_of_sklearn() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    parts = planted(layers=1, informative=0, noise=2.0).standardised()
    found = h.ridge(parts, 0)
    penalty = float(found.choice.rpartition(" ")[2]) * len(parts.train)
    targets = np.eye(CLASSES)[parts.y_train]
    theirs = sklearn.Ridge(alpha=penalty).fit(parts.train[:, 0].astype(float), targets)
    np.testing.assert_array_equal(found.test, theirs.predict(parts.test[:, 0].astype(float)).argmax(axis=1))
    valid = theirs.predict(parts.valid[:, 0].astype(float)).argmax(axis=1)
    assert found.valid_accuracy == pytest.approx((valid == parts.y_valid).mean())


@pytest.mark.parametrize("head", ["ridge", "linear"])
def test_more_channels_than_clips(head: str) -> None:
    parts = planted(width=300, noise=1.0)
    assert accuracy(parts, head) > 0.9


@pytest.mark.slow
def test_scales_of_channels_and_layers_do_not_matter() -> None:
    parts = planted(noise=1.0)
    scale = np.float32(10.0) ** np.arange(-5, 5)
    scaled = replace(parts, **{k: getattr(parts, k) * scale + 3 * scale for k in ("train", "valid", "test")})
    truth[id(scaled)] = truth[id(parts)]
    for head in ("ridge", "linear"):
        assert accuracy(scaled, head) == pytest.approx(accuracy(parts, head), abs=0.05)


def test_a_constant_channel_says_nothing_and_breaks_nothing() -> None:
    parts = planted()
    for x in (parts.train, parts.valid):
        x[:, :, 0] = 7.1
    parts.test[:, :, 0] = 1e6  # only in test: a division by a tiny deviation would blow up
    assert accuracy(parts, "ridge") > 0.9
    assert accuracy(parts, "linear") > 0.9
    assert (parts.standardised().test[:, :, 0] == 0).all()
