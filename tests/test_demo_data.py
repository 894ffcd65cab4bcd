"""The encoders that ship with the package, and the audio of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel

import permgraph as pg
from permgraph.demo import demo_audio, demo_models
from permgraph.errors import FileError, UsageError
from permgraph.inputs.audio import AudioPairs, Preprocess
from permgraph.inputs.synthetic import KINDS, RATE, synthesise
from permgraph.ir.permutations import source_slots
from permgraph.weights.encoder import open_encoder


@pytest.fixture(scope="module")
def encoders():
    return [AutoModel.from_pretrained(folder).eval() for folder in demo_models()]


def receives(folder: Path) -> Preprocess:
    encoder = open_encoder(folder)
    return Preprocess(encoder.sampling_rate, encoder.do_normalize)


def test_they_are_small():
    for folder in demo_models():
        assert sum(file.stat().st_size for file in folder.iterdir()) < 2 * 2**20


def test_they_load_and_run_in_float32(encoders):
    for model, folder in zip(encoders, demo_models(), strict=True):
        assert model.dtype == torch.float32
        assert receives(folder) == Preprocess(RATE, normalize=True)
        features = model(torch.randn(2, RATE)).last_hidden_state
        assert features.shape[:2] == (2, 49)
        assert features.isfinite().all() and features.std() > 0.1


def test_they_have_one_architecture_and_nothing_else_in_common(encoders):
    a, b = (model.state_dict() for model in encoders)
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    matrices = [name for name, tensor in a.items() if tensor.dim() > 1 and tensor.numel() >= 1000]
    assert len(matrices) > 20
    for name in matrices:
        r = float(np.corrcoef(a[name].flatten(), b[name].flatten())[0, 1])
        assert abs(r) < 5 / np.sqrt(a[name].numel()), f"{name}: {r}"


def test_their_recipes_are_beside_them():
    recipes = [json.loads((folder / "recipe.json").read_text()) for folder in demo_models()]
    assert len({recipe["settings"]["seed"] for recipe in recipes}) == 2
    for recipe in recipes:
        assert recipe["settings"]["synthetic"] and not recipe["settings"]["audio"], "nobody's recordings"
        assert recipe["result"]["accuracy"] > 3 * recipe["result"]["chance"]


def test_missing_encoders_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("permgraph.demo.__file__", str(tmp_path / "demo.py"))
    with pytest.raises(FileError, match=r"demo encoders are missing. Install permgraph again"):
        demo_models()


def test_demo_audio(tmp_path):
    files = demo_audio(tmp_path / "new" / "folder", seed=1)
    assert files == sorted((tmp_path / "new" / "folder").glob("*.wav"))
    heard = [soundfile.read(file, dtype="float32") for file in files]
    assert {rate for _, rate in heard} == {RATE}
    assert 60 <= sum(len(audio) for audio, _ in heard) / RATE <= 120
    for kind in KINDS:
        assert sum(file.name.startswith(kind) for file in files) == len(files) // len(KINDS)
    assert len({audio.tobytes() for audio, _ in heard}) == len(files)


@pytest.mark.parametrize("kind", KINDS)
def test_synthetic_audio_is_a_function_of_its_seed(kind):
    audio = synthesise(kind, 3.21, seed=4)
    assert audio.shape == (round(3.21 * RATE),) and audio.dtype == np.float32
    assert np.isfinite(audio).all() and np.abs(audio).max() < 1
    assert np.array_equal(audio, synthesise(kind, 3.21, seed=4))
    assert not np.array_equal(audio, synthesise(kind, 3.21, seed=5))
    assert len(synthesise(kind, 0, 0)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_speech_pauses_and_music_goes_on(seed):
    quiet = {}
    for kind in KINDS:
        frames = synthesise(kind, 30, seed).reshape(-1, RATE // 10)
        level = frames.std(axis=1)
        quiet[kind] = np.mean(level < 0.03 * level.max())
    assert quiet["speech"] > 0.05 > quiet["music"]


def test_another_kind_is_refused():
    with pytest.raises(
        UsageError, match=r"'musik': synthetic audio is one of speech, music. Did you mean music"
    ):
        synthesise("musik", 1, 0)


@pytest.mark.slow
def test_their_units_correspond_on_audio_that_did_not_match_them(encoders, tmp_path):
    """Matched on some clips, they correlate on others, in every group: it is not the luck of the choice."""
    plan = pg.plan(pg.infer(pg.trace(encoders[0], (torch.zeros(1, RATE // 2),))), groups="cnn,heads,ffn2")
    receivers = [receives(folder) for folder in demo_models()]
    one, other = (
        pg.calibrate(
            plan,
            *encoders,
            AudioPairs(demo_audio(tmp_path / str(seed), seed), *receivers, seconds=4.0, batch=4),
        )
        for seed in (0, 1)
    )
    perms = pg.match(plan, one)
    for row in perms.report["groups"].values():
        assert row["correlation"] > row["identity"] + 0.05
    moved = {k: p for k, p in other.probes.items() if set(p.layout.groups) <= set(plan.selected)}
    assert len(moved) == 5 + 3 + 3
    for key, probe in moved.items():
        sizes, table = probe.layout.sizes, probe.correlation()
        partner = np.ravel_multi_index(source_slots(plan.spec, list(probe.layout.groups), perms), sizes)
        matched = table[np.arange(len(table)), partner.ravel()].mean()
        assert matched > np.trace(table) / len(table) + 0.08, key
