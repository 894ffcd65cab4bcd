"""Recipes of encoders: data, of train alone; targets that keep pitch; runs that go on where they were stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretraining.train as loop
import pytest
import soundfile
import torch
from encoders import main
from pretraining.leaks import refuse_leaks
from pretraining.network import Predictor, small_config
from pretraining.pitch import BINS, LOWEST, OCTAVE
from pretraining.recipe import load_recipe
from pretraining.targets import SIGNALS, receptive_field, stride
from pretraining.train import Settings
from safetensors.numpy import load_file

from permgraph.data_files import specs
from permgraph.errors import FileError, UsageError
from permgraph.evaluation.task import load_task
from permgraph.inputs.synthetic import RATE, synthesise

CONFIG = small_config(convs=(16,) * 7)
RECIPE = """
tasks = ["TASK"]
[settings]
audio = ["clips.csv@split=train"]
vectors = ["cqt"]
batch = 2
seconds = 0.5
clusters = 8
hidden = 32
layers = 2
convs = [8, 8, 8, 8, 8, 8, 8]
[first]
seed = 1
steps = 4
targets = ["logmel", "harmonics"]
[second]
steps = 12
targets = ["logmel", "first:1"]
[encoders.tiny-0]
seed = 2
[encoders.tiny-1]
seed = 3
init = 9
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def tone(hertz: float, strengths: list[float], seconds: float = 1.0) -> np.ndarray:
    at = np.arange(round(seconds * RATE)) / RATE
    parts = [a * np.sin(2 * np.pi * hertz * k * at) for k, a in enumerate(strengths, 1) if hertz * k < 7500]
    found = np.sum(parts, axis=0)
    return np.asarray(0.08 * found / found.std(), dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clips in three splits, a task that judges by them, and a recipe."""
    rows = ["path,label,split"]
    for k, split in enumerate(["train", "valid", "test"] * 2):
        soundfile.write(tmp_path / f"{k}.wav", synthesise("music", 1.5, k), RATE)
        rows.append(f"{k}.wav,{k % 2},{split}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    task = tmp_path / "task.toml"
    task.write_text('domain = "music"\nmanifest = "clips.csv"\nlabel = "label"\nsplit = "split"\n')
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("TASK", str(task)))
    return tmp_path


def train_all(data: Path, out: Path, *more: str) -> dict[str, dict[str, np.ndarray]]:
    main([str(data / "tiny.toml"), "--data", str(data), "-o", str(out), "--save-every", "0", *more])
    return {p.name: load_file(p / "model.safetensors") for p in out.iterdir() if p.is_dir()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_stopped_and_started_again_is_the_same_run(data, tmp_path, monkeypatch, capsys):
    whole = train_all(data, tmp_path / "whole")
    assert sorted(whole) == ["tiny-0", "tiny-1", "tiny-first"]
    assert not same(whole["tiny-0"], whole["tiny-1"])
    step = loop._step

    def stopped(settings: Settings, number: int, *rest: object) -> object:
        if settings.seed == 2 and number == 7:
            raise KeyboardInterrupt
        return step(settings, number, *rest)

    monkeypatch.setattr(loop, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_all(data, tmp_path / "parts")
    assert (tmp_path / "parts" / "tiny-0.checkpoint").exists()
    monkeypatch.setattr(loop, "_step", step)
    capsys.readouterr()
    again = train_all(data, tmp_path / "parts")
    told, _, _ = capsys.readouterr().out.partition("tiny-1")
    assert "tiny-first: is there" in told and "step 7/12" not in told and "step 8/12" in told
    # the targets are of first runs in two folders, which are the same
    assert all(same(whole[name], again[name]) for name in whole)


def test_an_encoder_of_other_settings_is_not_taken_for_the_recipes(data, tmp_path):
    train_all(data, tmp_path / "out", "--only", "tiny-first")
    text = (data / "tiny.toml").read_text()
    (data / "tiny.toml").write_text(text.replace("steps = 4", "steps = 5"))
    with pytest.raises(FileError, match=r"tiny-first: was trained with other settings \(steps\)\. Remove it"):
        train_all(data, tmp_path / "out", "--only", "tiny-first")


def test_only_what_is_named_is_trained_and_mistakes_are_explained(data, tmp_path):
    assert list(train_all(data, tmp_path / "out", "--only", "tiny-first")) == ["tiny-first"]
    with pytest.raises(UsageError, match="Did you mean tiny-first"):
        train_all(data, tmp_path / "out", "--only", "tiny-frist")


def test_first_weights_are_those_of_init_whatever_is_predicted(data):
    def weights(**values: object) -> dict[str, torch.Tensor]:
        settings = Settings(steps=0, audio=(f"{data}/clips.csv@split=train",), hidden=32, clusters=4)
        model, _ = loop.train(replace(settings, **values), data / "none", lambda progress: None)
        (data / "none").unlink()
        return {name: value.numpy() for name, value in model.encoder.state_dict().items()}

    speech = weights(seed=1, init=5, targets=("mfcc",))
    assert same(speech, weights(seed=2, init=5, targets=("logmel", "harmonics"), vectors=("cqt",)))
    assert same(speech, weights(seed=5))
    assert not same(speech, weights(seed=1))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[first]", "[frist]", "Did you mean first"),
        ("steps = 4", "stepps = 4", "unknown setting 'stepps'. Did you mean steps"),
        ("batch = 2", "batch = 2.5", "batch: expected a whole number, found 2.5"),
        ('tasks = ["TASK"]', "", "tasks is missing"),
    ],
)
def test_a_mistaken_recipe_is_refused(tmp_path, before, after, message):
    (tmp_path / "tiny.toml").write_text(RECIPE.replace(before, after))
    with pytest.raises(FileError, match=message.replace("[", r"\[")):
        load_recipe(tmp_path / "tiny.toml", tmp_path, tmp_path)


def test_a_leak_is_caught(data):
    tasks = [load_task(data / "task.toml")]
    assert refuse_leaks([f"{data}/clips.csv@split=train"], tasks, data) == 2
    with pytest.raises(FileError, match=r"is in test of task\. An encoder must not train on what judges it"):
        refuse_leaks([f"{data}/clips.csv@split=test"], tasks, data)
    with pytest.raises(FileError, match="is in valid of task"):
        refuse_leaks([str(data / "clips.csv")], tasks, data)
    shutil.copy(data / "2.wav", data / "another_name.wav")
    with pytest.raises(FileError, match=r"another_name\.wav: is in test"):
        refuse_leaks([str(data / "another_name.wav")], tasks, data)


def test_a_recipe_that_leaks_trains_nothing(data, tmp_path):
    text = (data / "tiny.toml").read_text()
    (data / "tiny.toml").write_text(text.replace("@split=train", ""))
    with pytest.raises(FileError, match="must not train on what judges it"):
        train_all(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_first_weights_of_the_recipes_are_shared_by_one_pair_only(tmp_path):
    """All others start apart: numbers of two recipes must not meet by chance."""
    recipes = [
        load_recipe(specs() / "encoders" / f"{d}.toml", tmp_path, tmp_path) for d in ("speech", "music")
    ]
    runs = {run.name: run.settings for recipe in recipes for run in recipe.runs}
    inits = {name: s.init if s.init >= 0 else s.seed for name, s in runs.items()}
    assert inits.pop("speech-shared") == inits.pop("music-shared")
    assert len(set(inits.values())) == len(inits) >= 8
    assert len({s.seed for s in runs.values()}) == len(runs)
    configs = [s.config.to_diff_dict() for s in runs.values()]
    assert all(config == configs[0] for config in configs), "encoders of one architecture can be merged"
    assert configs[0]["num_hidden_layers"] >= 4 and len(configs[0]["conv_dim"]) == 7


def test_what_the_heads_read_is_what_the_encoder_computes():
    torch.manual_seed(0)
    model = Predictor(small_config(32, 2, convs=(8,) * 7), [4], [3]).eval()
    audio, mask = torch.randn(2, 8000), torch.zeros(2, 24, dtype=torch.bool)
    mask[:, 5:9] = True
    with torch.no_grad():
        front, last = model.hidden(audio, mask)
        wanted = model.encoder.train()(audio, mask_time_indices=mask).last_hidden_state
        again, _ = model.hidden(audio, ~mask)
    torch.testing.assert_close(last, wanted, rtol=0, atol=1e-6)
    assert torch.equal(front, again), "the convolutions' own output is not masked"
    assert not torch.allclose(last, model.encoder.eval()(audio).last_hidden_state, atol=1e-2)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_frame_of_a_signal_is_a_frame_of_the_encoder(name):
    """As many frames as the encoder gives; what changes in the middle of one changes as many before as after it."""
    hop, field, t = stride(CONFIG), receptive_field(CONFIG), 30
    audio = tone(440.0, [1.0, 0.5])
    other = audio.copy()
    centre = t * hop + field // 2
    other[centre - 60 : centre + 60] += 0.5 * np.random.default_rng(0).standard_normal(120).astype(np.float32)
    one, two = (SIGNALS[name][0](a, CONFIG) for a in (audio, other))
    assert len(one) == 1 + (RATE - field) // hop
    change = (one - two).square().sum(1)
    changed = torch.nonzero(change > 1e-3 * change.max())
    assert float(changed.min() + changed.max()) / 2 == pytest.approx(t, abs=1)
    if name != "texture":  # all of half a second weighs the same
        assert int(change.argmax()) == t


@pytest.mark.parametrize("note", [36, 47, 60, 69, 81])
def test_the_bin_of_a_note_is_the_strongest(note):
    """A4 = 69 = 440 Hz; LOWEST is note 24."""
    hertz = 440 * 2 ** ((note - 69) / 12)
    assert hertz == pytest.approx(LOWEST * 2 ** ((note - 24) / 12), rel=1e-3)
    pure, rich = (
        SIGNALS[name][0](tone(hertz, strengths), CONFIG)[25]
        for name, strengths in (("cqt", [1.0]), ("harmonics", [1.0, 0.8, 0.6, 0.5, 0.4]))
    )
    assert len(pure) == BINS
    for found in (pure, rich):
        assert int(found.argmax()) == pytest.approx((note - 24) * OCTAVE // 12, abs=1)


def test_harmonics_keep_the_pitch_where_log_mel_keeps_the_timbre():
    """The nearest note of another timbre is the same note by harmonics; by log-mel it is not."""
    notes = range(40, 76)
    timbres = [[1.0, 0.5, 0.33, 0.25, 0.2, 0.17], [1.0, 0.1, 0.8, 0.1, 0.9, 0.1, 0.7, 0.1, 0.5]]

    def mean(name: str, note: int, timbre: list[float]) -> torch.Tensor:
        return SIGNALS[name][0](tone(440 * 2 ** ((note - 69) / 12), timbre, 0.5), CONFIG)[8:16].mean(0)

    def right(name: str) -> float:
        one, other = (torch.stack([mean(name, n, timbre) for n in notes]) for timbre in timbres)
        return float((torch.cdist(one, other).argmin(1) == torch.arange(len(notes))).float().mean())

    assert right("harmonics") > 0.9
    assert right("logmel") < 0.5
