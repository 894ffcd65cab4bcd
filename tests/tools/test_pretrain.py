"""The pre-training tool: it learns, is a function of its settings, survives SIGKILL, and writes what loads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretrain import main
from pretraining import variants
from pretraining.corpus import clips, draw
from pretraining.network import small_config
from pretraining.targets import clusters, mfcc, receptive_field, stride
from pretraining.train import Settings, schedule, spans, train
from transformers import AutoModel

from permgraph.errors import FileError, UsageError
from permgraph.inputs.synthetic import LOUDNESS, RATE, synthesise

TINY = Settings(
    synthetic=("speech=0.5",),
    seed=5,
    steps=80,
    batch=8,
    seconds=1.0,
    clusters=8,
    rate=5e-3,
    span=3,
    hidden=32,
    layers=1,
    channels=16,
)
TOOLS = Path(__file__).resolve().parents[2] / "tools"

KILLED = """
import os, signal, sys, json, torch
from pathlib import Path
from pretraining.train import Settings, train
torch.set_num_threads(1)
values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[1]).items()}
def report(progress):
    if progress.step >= 50:
        os.kill(os.getpid(), signal.SIGKILL)
train(Settings(**values), Path(sys.argv[2]), report, save_every=0.0)
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(TINY, tmp_path_factory.mktemp("run") / "checkpoint", lambda progress: None)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_it_learns(finished):
    _, course = finished
    assert course[-1].step == TINY.steps
    assert course[-1].loss < course[0].loss
    assert course[-1].accuracy > course[-1].chance + 0.1


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run(finished, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    arguments = [sys.executable, "-c", KILLED, json.dumps(asdict(TINY)), str(checkpoint)]
    assert subprocess.run(arguments, cwd=TOOLS).returncode == -signal.SIGKILL
    seen: list[int] = []
    model, course = train(TINY, checkpoint, lambda progress: seen.append(progress.step))
    assert 45 <= seen[0] <= 51, "it went on from the checkpoint"
    assert same(model, finished[0])
    assert course == finished[1]


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def peak(clip: np.ndarray) -> float:
    """Hz."""
    return float(np.abs(np.fft.rfft(clip)).argmax() / len(clip) * RATE)


def test_a_faster_copy_is_shorter_and_higher():
    made = [variants.sped(tone(440.0), np.random.default_rng(seed)) for seed in range(20)]
    lengths = np.array([len(clip) / RATE for clip in made])
    assert lengths.min() < 0.8 and lengths.max() > 1.2
    assert lengths.min() > 1 / 1.42 and lengths.max() < 1.42
    assert [peak(clip) for clip in made] == pytest.approx(440 / lengths, rel=5e-3)


def test_a_copy_with_another_spectrum_keeps_its_pitch_and_length():
    both = tone(300.0) + tone(3000.0)
    gains = []
    for seed in range(20):
        clip = variants.tilted(both, np.random.default_rng(seed))
        assert len(clip) == len(both)
        low, high = (np.abs(np.fft.rfft(clip))[hertz] for hertz in (300, 3000))
        assert np.abs(np.fft.rfft(clip)).sum() == pytest.approx(low + high, rel=1e-2)  # nothing else is there
        gains.append(20 * np.log10(high / low))
    assert np.std(gains) > 3


def test_the_clip_below_is_softer_by_what_was_said():
    rng = np.random.default_rng(0)
    for other in (tone(1000.0, 0.3), tone(1000.0, 3.0)):
        mixed = variants.over(tone(250.0), other, 10.0, rng)
        below, above = np.split(np.abs(np.fft.rfft(mixed)) ** 2, [600])
        assert 10 * np.log10(below.sum() / above.sum()) == pytest.approx(10, abs=0.3)


def test_copies_come_on_top_of_the_clips():
    plain, more = (clips(("speech=0.7",), (), 3, copies) for copies in (0, 2))
    assert len(more) == 3 * len(plain)
    own = {clip.tobytes() for clip in plain}
    assert own < {clip.tobytes() for clip in more}
    assert [c.tobytes() for c in more] == [c.tobytes() for c in clips(("speech=0.7",), (), 3, 2)]


def test_another_seed_is_another_encoder(finished, tmp_path):
    short = replace(TINY, seed=6, steps=1)
    assert not same(train(short, tmp_path / "checkpoint", lambda progress: None)[0], finished[0])


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    short = replace(TINY, steps=1)
    train(short, tmp_path / "checkpoint", lambda progress: None)
    with pytest.raises(FileError, match=r"other settings \(seed, rate\)\. Remove it"):
        train(replace(short, seed=7, rate=1e-4), tmp_path / "checkpoint", lambda progress: None)


@pytest.mark.parametrize("half", [False, True])
def test_the_folder_loads(tmp_path, half, capsys):
    size = "--steps 2 --batch 2 --seconds 1 --clusters 8 --hidden 32 --layers 1 --channels 16"
    out = tmp_path / "encoder"
    given = ["--synthetic", "music=0.3", *size.split(), "-o", str(out), *(["--half"] if half else [])]
    assert main(given) == 0
    assert "chance" in capsys.readouterr().out
    model = AutoModel.from_pretrained(out)
    assert model.dtype == torch.float32
    assert model(torch.randn(1, 8000)).last_hidden_state.shape == (1, 24, 32)
    assert json.loads((out / "preprocessor_config.json").read_text())["sampling_rate"] == RATE
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["settings"]["synthetic"] == ["music=0.3"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".checkpoint") == []
    with pytest.raises(FileError, match="is there already"):
        main(given)


def test_an_earlier_encoder_gives_the_second_targets(tmp_path):
    size = [
        "--steps=1",
        "--batch=2",
        "--seconds=1",
        "--clusters=8",
        "--hidden=32",
        "--layers=2",
        "--channels=16",
    ]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    main(["--synthetic", "speech=0.3", *size, "-o", first])
    main(["--synthetic", "speech=0.3", *size, "--targets", f"{first}:1", "-o", second])
    assert AutoModel.from_pretrained(second).config.num_hidden_layers == 2


def test_a_frame_of_targets_is_a_frame_of_the_encoder():
    """As many MFCC frames as the encoder gives, each centred in what the encoder's frame sees."""
    config = small_config()
    model = AutoModel.from_config(config)
    for length in (RATE, RATE + 319, RATE + 320, 3 * RATE + 7):
        frames = int(model._get_feat_extract_output_lengths(length))
        audio = 1e-3 * np.random.default_rng(0).standard_normal(length).astype(np.float32)
        assert len(mfcc(audio, config)) == frames
    t = 20
    centre = t * stride(config) + receptive_field(config) // 2
    audio[centre - 20 : centre + 20] *= 1000
    assert int(mfcc(audio, config)[:, 0].argmax()) == t


def test_clusters_find_what_is_there():
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 6, 3000))
    points = torch.from_numpy(rng.normal(0, 10, (6, 5))).float()[truth] + torch.randn(3000, 5) * 0.1
    found = clusters(points, 6, seed=1)
    assert len({(int(a), int(b)) for a, b in zip(truth, found, strict=True)}) == 6
    assert torch.equal(found, clusters(points, 6, seed=1))


def test_masks_are_spans():
    mask = spans(np.random.default_rng(0), (200, 100), 0.05, 8)
    assert mask.any(axis=1).all()
    for row in mask:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        lengths, ends = edges[1::2] - edges[::2], edges[1::2]
        assert ((lengths >= 8) | (ends == 100)).all()
    assert 0.25 < mask.mean() < 0.42  # 1 - 0.95^8 = 0.34


def test_the_rate_rises_and_falls():
    rates = [schedule(k / 100, 0.1) for k in range(101)]
    assert rates[0] == 0 and rates[10] == 1 and rates[100] == pytest.approx(0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_files_are_kept_by_condition_and_equally_loud(tmp_path):
    rows = ["path,split"]
    for k, split in enumerate(("train", "test", "train")):
        soundfile.write(tmp_path / f"{k}.wav", (0.1 + 0.3 * k) * synthesise("speech", 1.0 + k, k), RATE)
        rows.append(f"{k}.wav,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = clips((), (f"{tmp_path / 'manifest.csv'}@split=train",), seed=0)
    assert sorted(map(len, found)) == [RATE, 3 * RATE]
    for clip in found:
        assert np.sqrt(np.mean(clip**2)) == pytest.approx(LOUDNESS, rel=1e-3)
    assert len(clips((), (f"{tmp_path / 'manifest.csv'}@split=test@path=1.wav",), seed=0)) == 1


def test_crops_lie_within_their_clips_and_every_second_is_as_likely():
    lengths = np.array([8, 20, 100, 300])
    rng = np.random.default_rng(0)
    frames = np.zeros(len(lengths))
    for _ in range(3000):
        chosen, starts, size = draw(rng, lengths, 4, 50)
        assert size <= 50 and (starts >= 0).all() and (starts + size <= lengths[chosen]).all()
        assert abs(len(chosen) * size - 4 * 50) <= size / 2
        frames[chosen[0]] += 1  # the rows are alike
    assert frames[-1] > 2 * frames[-2] > 4 * frames[1] > 0 < frames[0]


@pytest.mark.parametrize(
    ("synthetic", "audio", "message"),
    [
        ((), (), "nothing to train on"),
        (("speech",), (), "write kind=minutes"),
        (("speach=1",), (), "Did you mean speech"),
        ((), ("m.csv@split",), "MANIFEST@column=value"),
        ((), ("nowhere",), "no such file or folder"),
    ],
)
def test_mistakes_are_explained(synthetic, audio, message):
    with pytest.raises((UsageError, FileError), match=message):
        clips(synthetic, audio, 0)
