"""The gate, in miniature: tones of two pitches, random encoders."""

from __future__ import annotations

from pathlib import Path

import gate as tool
import pytest
import torch
from gate import Gate, Verdict, judge, page, passes
from pretraining.network import save_encoder, small_config
from transformers import HubertModel

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.bootstrap import Interval
from permgraph.evaluation.task import load_task
from tests.evaluation import miniature as m

RECIPE = {
    "settings": {
        "steps": 3,
        "batch": 2,
        "seconds": 0.5,
        "seed": 1,
        "init": -1,
        "targets": ["mfcc"],
        "vectors": [],
    },
    "result": {"loss": 2.0, "accuracy": 0.5, "chance": 0.1, "error": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of tones, a gate, and a speech and a music encoder with random weights."""
    root = tmp_path_factory.mktemp("gate")
    m.tones(root, {"train": 12, "valid": 6, "test": 10})
    task = m.task(root)
    (root / "gate.toml").write_text(
        f'head = "ridge"\nbaselines = ["ridge", "tasks.csv"]\n[tasks]\nspeech = ["{task}"]\nmusic = ["{task}"]\n'
    )
    threads = torch.get_num_threads()
    for seed, name in enumerate(("speech-0", "music-0")):
        torch.manual_seed(seed)
        save_encoder(HubertModel(small_config(16, 2, 8)), root / name, RECIPE, True, False)
    yield root
    torch.set_num_threads(threads)


def verdict(above: float, gain: float) -> Verdict:
    spread = (Interval(x, x - 0.1, x + 0.1, "10 clips") for x in (above, gain))
    return Verdict(
        "t",
        10,
        Interval(0.5 + above, 0, 1, "10 clips"),
        "log-mel (ridge)",
        0.5,
        0.6,
        next(spread),
        0.4,
        0.4 + gain,
        next(spread),
        (0.4, 0.4 + gain),
    )


@pytest.mark.parametrize(
    ("above", "gain", "expected"),
    [
        ([1, 1, 1, -1], [1, 1, 1, 1], (True, True)),
        ([1, 1, -1, -1], [1, 1, 1, -1], (False, True)),  # half is not most
        ([0, 0, 1, 1], [1, 1, 0, 0], (False, False)),  # as good is not above
        ([0.001, 0.001, 0.001, 1], [1, 1, 1, 1], (False, True)),  # nor is what rounding gives
        ([1, 1, 1, 1], [-1, -1, -1, 1], (True, False)),
    ],
)
def test_most_tasks_are_more_than_half(above, gain, expected):
    assert passes([verdict(a / 10, g / 10) for a, g in zip(above, gain, strict=True)]) == expected


def test_an_encoder_is_judged_on_its_own_domain_layer_by_layer(folder):
    gate = Gate.load(folder / "gate.toml")
    (found,) = judge(folder / "music-0", gate, folder, folder / "features")
    assert found.task == "tones" and found.clips == 10 and len(found.layers) == 3
    assert found.first == found.layers[0]
    assert found.deeper in found.layers[1:], "valid chose one of them"
    assert found.gain.value == pytest.approx(found.deeper - found.first)
    assert found.above.value == pytest.approx(found.value.value - found.base)
    assert found.base == 1.0, "two tones are no difficulty for log-mel"
    text = page({folder / "music-0": [found]}, gate, "command")
    assert "| music-0 | 0 of 1 |" in text and "failed" in text and "3 steps of 2 crops" in text


def test_mistakes_are_explained(folder, tmp_path):
    (tmp_path / "gate.toml").write_text('head = "ridge"')
    with pytest.raises(FileError, match="baselines is missing"):
        Gate.load(tmp_path / "gate.toml")
    (tmp_path / "gate.toml").write_text('head = "ridge"\nbaselines = ["rigde"]\n[tasks]\nmusic = ["tones"]\n')
    with pytest.raises(FileError, match=r"baselines: rigde\. Did you mean ridge"):
        Gate.load(tmp_path / "gate.toml")
    (tmp_path / "gate.toml").write_text('head = "ridge"\nbaseline = ["ridge"]\n')
    with pytest.raises(FileError, match=r"unknown key 'baseline'\. Did you mean baselines"):
        Gate.load(tmp_path / "gate.toml")
    with pytest.raises(UsageError, match="does not begin with one of speech, music"):
        Gate.load(folder / "gate.toml").domain(Path("noise-0"))


def test_the_gate_that_is_shipped_names_tasks_of_its_domains():
    gate = Gate.load(tool.GATE)
    for domain, names in gate.tasks.items():
        assert {load_task(name).domain for name in names} == {domain}
