"""The label-free screen: 1 for what is kept, 0 for what is not, as scikit-learn computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.features import FrozenEncoder
from permgraph.evaluation.retention import PENALTIES, Sums, r_squared, retained
from permgraph.inputs.synthetic import KINDS, synthesise
from permgraph.weights.encoder import open_encoder
from permgraph.weights.interpolate import merge
from tests.evaluation import miniature as m

RNG = np.random.default_rng(0)


def sums(x: np.ndarray, y: np.ndarray, chunks: int = 3) -> Sums:
    made = Sums(x.shape[1], y.shape[1])
    for a, b in zip(np.array_split(x, chunks), np.array_split(y, chunks), strict=True):
        made.add(a.astype(np.float32), b.astype(np.float32))
    return made


def draws(mix: float, d: int = 8, e: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    weights = RNG.normal(size=(d, e))
    found = []
    for n in (300, 80, 120):
        x = RNG.normal(size=(n, d)) + 20
        found.append((x, mix * x @ weights + (1 - mix) * RNG.normal(size=(n, e)) - 5))
    return found


def test_it_is_ridge_and_r2_of_sklearn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    parts = draws(0.4)
    (x, y), (xv, yv), (xt, yt) = (tuple(z.astype(np.float32).astype(float) for z in p) for p in parts)
    scale = ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    every = [linear.Ridge(alpha=p * scale, solver="cholesky").fit(x, y) for p in PENALTIES]
    score = lambda model, a, b: metrics.r2_score(b, model.predict(a), multioutput="variance_weighted")  # noqa: E731
    best = max(every, key=lambda model: score(model, xv, yv))
    expected = score(best, xt, yt)
    assert r_squared(*(sums(*p) for p in parts)) == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected < 0.9


def test_a_linear_map_is_kept_whole_and_noise_not_at_all() -> None:
    assert r_squared(*(sums(*p) for p in draws(1.0))) == pytest.approx(1, abs=1e-5)
    assert abs(r_squared(*(sums(*p) for p in draws(0.0)))) < 0.1


def test_a_dead_encoder_explains_nothing_and_a_dead_parent_is_no_question() -> None:
    parts = draws(1.0)
    dead = [(np.full_like(x, 3.0), y) for x, y in parts]
    assert abs(r_squared(*(sums(*p) for p in dead))) < 0.05
    constant = [(x, np.full_like(y, 3.0)) for x, y in parts]
    assert np.isnan(r_squared(*(sums(*p) for p in constant)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Path]]]:
    import soundfile
    from safetensors.torch import load_file, save_file

    where = tmp_path_factory.mktemp("retention")
    a, b = (m.encoder(where / name, seed) for seed, name in enumerate("ab"))
    states = [load_file(folder / "model.safetensors") for folder in (a, b)]
    mostly = m.encoder(where / "mostly_a")
    save_file(merge(states[0], states[1], (0.95, 0.05)), mostly / "model.safetensors", {"format": "pt"})
    files = []
    for i in range(9):
        path = where / f"{i}.wav"
        soundfile.write(path, synthesise(KINDS[i % len(KINDS)], 1.0, i), m.RATE)
        files.append(path)
    return where, [files[:5], files[5:7], files[7:]]


def frozen(folder: Path) -> FrozenEncoder:
    return FrozenEncoder(open_encoder(folder))


def test_a_parent_keeps_itself_and_a_merge_more_of_the_nearer_one(
    models: tuple[Path, list[list[Path]]],
) -> None:
    where, parts = models
    a, b, merged = (frozen(where / name) for name in ("a", "b", "mostly_a"))
    itself, other = retained(a, [a, b], *parts)
    assert len(itself) == m.SMALL.num_hidden_layers + 1
    assert min(itself) > 0.999
    of_a, of_b = retained(merged, [a, b], *parts)
    assert all(x > y for x, y in zip(of_a, of_b, strict=True))
    assert max(other) < 0.999


def test_lists_that_overlap_or_are_empty_are_refused(models: tuple[Path, list[list[Path]]]) -> None:
    where, (fit, choose, judge) = models
    a = frozen(where / "a")
    with pytest.raises(UsageError, match="must not overlap"):
        retained(a, [a], fit, choose, [*judge, fit[0]])
    with pytest.raises(FileError, match="no clips to choose"):
        retained(a, [a], fit, [], judge)


def test_other_frame_rates_are_refused(models: tuple[Path, list[list[Path]]], tmp_path: Path) -> None:
    where, parts = models
    slow = m.encoder(tmp_path / "slow", rate=8_000)
    with pytest.raises(UsageError, match="cannot be paired"):
        retained(frozen(slow), [frozen(where / "a")], *parts)
