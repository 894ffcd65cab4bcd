"""The paper's tables in miniature: random encoders, tones of two pitches, rows of every kind."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reproduce as tool
import torch
from pretraining.network import save_encoder, small_config
from reproduction.comparisons import Judged
from reproduction.judging import Pairs
from reproduction.making import Maker, _heard
from reproduction.rows import Experiment, Row
from safetensors.numpy import load_file
from transformers import HubertModel

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.bootstrap import counts_of, interval
from permgraph.evaluation.results import Prediction
from permgraph.evaluation.significance import mcnemar
from tests.evaluation import miniature as m

SECTIONS = """
[[sections]]
title = "Configurations"
rows = [
    { name = "plain", groups = "none" },
    { name = "aligned" },
    { name = "random", matcher = "random" },
    { name = "cnn+all", groups = "cnn+all", mode = "untied-qkv", runs = 1, shares = [0.5] },
    { name = "untrained", untrained = true, runs = 1, shares = [0.5] },
]

[[sections]]
title = "Changes"
candidates = true
rows = [
    { name = "repair", repair = true, runs = 1, shares = [0.5] },
    { name = "by correlation", matched = true, runs = 1, shares = [0.9, 0.5] },
    { name = "re-matched", rounds = 2, runs = 1, shares = [0.5] },
]

[[sections]]
title = "One start"
pairs = "shared"
rows = [{ name = "plain", groups = "none" }, { name = "aligned" }]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tones as a task of speech and one of music, three pairs of encoders with random weights, an experiment."""
    root = tmp_path_factory.mktemp("reproduce")
    m.tones(root, {"train": 12, "valid": 6, "test": 10})
    task = m.task(root).read_text()
    (root / "of-music.toml").write_text(task)
    (root / "of-speech.toml").write_text(task.replace("music", "speech"))
    threads = torch.get_num_threads()
    for seed, name in enumerate(
        ("speech-0", "music-0", "speech-1", "music-1", "speech-shared", "music-shared")
    ):
        torch.manual_seed(seed)
        recipe = {"settings": {"seed": seed, "init": -1}}
        save_encoder(HubertModel(small_config(16, 2, 8)), root / name, recipe, False, False)
    tasks = [str(root / f"of-{domain}.toml") for domain in ("speech", "music")]
    (root / "rows.toml").write_text(
        f'tasks = {tasks}\nhead = "ridge"\n[calibrate]\nspeech = ["tones.csv"]\nmusic = ["tones.csv"]\n'
        f'[where]\nsplit = "train"\n[row]\nseconds = 2.0\nclip = 0.25\n{SECTIONS}'
    )
    yield root
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_rows_of_every_kind_are_made_judged_and_told(folder: Path, tmp_path: Path) -> None:
    a, b = ([str(folder / f"{name}-{run}") for run in (0, 1)] for name in ("speech", "music"))
    shared = ["--shared-a", str(folder / "speech-shared"), "--shared-b", str(folder / "music-shared")]
    page, out = tmp_path / "results.md", tmp_path / "out"
    arguments = ["--a", *a, "--b", *b, *shared, "--data", str(folder), "-o", str(out), "--page", str(page)]
    arguments += ["--rows", str(folder / "rows.toml")]
    assert tool.main(arguments) == 0
    rows = list(csv.DictReader(page.with_suffix(".csv").read_text().splitlines()))
    names = {row["encoder"] for row in rows if not row["encoder"].startswith("log-mel")}
    three = {f"{name} {share}" for name in ("plain", "aligned", "random") for share in (0.9, 0.7, 0.5)}
    shares = {f"{name}' {share}" for name in ("plain", "aligned") for share in (0.9, 0.7, 0.5)}
    alone = {
        "cnn+all 0.5",
        "untrained 0.5",
        "repair 0.5",
        "by correlation 0.9",
        "by correlation 0.5",
        "re-matched 0.5",
    }
    assert names == {"speech", "music", "side by side", "speech'", "music'"} | three | shares | alone
    text = page.read_text()
    assert "| aligned 0.5 | plain 0.5 | speech |" in text and "| aligned' 0.5 | plain' 0.5 | all |" in text
    assert "repair 0.5, 1 run |" in text and "The best there is **" in text
    assert "### cnn+all" in text and "attention output" in text
    left = text.partition("## What is left of the parents")[2].partition("##")[0]
    assert all(f"| {name} |" in left for name in three)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert tool.main(arguments) == 0  # goes on from what is there
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == made
    assert page.read_text() == text


def test_what_a_row_says_is_what_is_merged(folder: Path, tmp_path: Path) -> None:
    """Weights of every kind of row differ from plain interpolation and from each other; at λ = 1 all are A. These encoders
    were never trained: what matches them before training is what matches them now."""
    experiment = Experiment.load(folder / "rows.toml")
    maker = Maker(experiment, folder, tmp_path)
    a, b = folder / "speech-0", folder / "music-0"
    kinds: list[dict[str, Any]] = [
        {"name": "plain", "groups": "none"},
        {"name": "aligned"},
        {"name": "random", "matcher": "random"},
        {"name": "untrained", "untrained": True},
        {"name": "matched", "matched": True},
        {"name": "re-matched", "rounds": 3},
        {"name": "weights", "matcher": "weights"},
    ]
    found: dict[str, Any] = {}
    for kind in kinds:
        row = Row(calibrate=("speech",), seconds=2.0, clip=0.25, shares=(1.0, 0.5), **kind)
        made = maker.make(row, a, b)
        ends = [load_file(path / "model.safetensors") for path in (made[1.0], a)]
        assert all(np.allclose(ends[0][k], ends[1][k], atol=1e-6) for k in ends[0])
        half = load_file(made[0.5] / "model.safetensors")
        found[kind["name"]] = np.concatenate([half[k].ravel() for k in sorted(half)])
    names = list(found)
    for i, name in enumerate(names):
        for other in names[:i]:
            alike = {name, other} == {"aligned", "untrained"}
            assert np.allclose(found[name], found[other]) == alike, (name, other)


def test_encoders_before_training_are_those_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    """The folders hold weights that were never trained: they are made again, bit for bit."""
    from permgraph.weights.encoder import open_encoder

    maker = Maker(Experiment.load(folder / "rows.toml"), folder, tmp_path)
    encoder = open_encoder(folder / "music-1")
    before = maker._untrained(encoder)
    a, b = (e.module().state_dict() for e in (encoder, before))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _predictions(seed: int, share: float, task: str, runs: int = 2) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    return [
        Prediction(
            task,
            "speech",
            "x",
            str(run),
            "0",
            "ridge",
            "",
            f"clip{i:02}",
            f"s{i // 2}",
            "a",
            "a",
            int(rng.random() < share),
        )
        for run in range(runs)
        for i in range(60)
    ]


def test_means_and_differences_are_those_of_the_counts() -> None:
    better, worse = (_predictions(k, share, "t") for k, share in ((0, 0.9), (1, 0.5)))
    all_ = [replace(p, encoder="first") for p in better] + [replace(p, encoder="second") for p in worse]
    judged = Judged.of(all_, {"t": "m.csv"})
    spread = judged.difference("first", "second", ["t"])
    one, other = counts_of(better), counts_of(worse)
    assert spread.value == pytest.approx(one.values.mean() - other.values.mean())
    assert judged.mean("first", ["t"]).value == pytest.approx(one.values.mean())
    assert spread.low > 0 and judged.p("first", "second", ["t"]) < 1e-3
    assert judged.difference("first", "first", ["t"]) == replace(spread, value=0.0, low=0.0, high=0.0)
    alone = [p for p in all_ if p.run == "0"]
    flags = [sorted((p.item, p.correct) for p in alone if p.encoder == e) for e in ("first", "second")]
    near = interval(*(counts_of([p for p in alone if p.encoder == e]) for e in ("first", "second")))
    spread = Judged.of(alone, {"t": "m.csv"}).difference("first", "second", ["t"])
    assert (spread.value, spread.low, spread.high) == pytest.approx(
        (near.value, near.low, near.high), abs=0.02
    )
    pairs = [(x, y) for (_, x), (_, y) in zip(*flags, strict=True)]
    p = mcnemar(sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)).p
    assert Judged.of(alone, {"t": "m.csv"}).p("first", "second", ["t"]) == pytest.approx(p)


def test_tasks_on_the_same_recordings_are_drawn_together() -> None:
    """One task twice tells no more than once; two tasks on other recordings tell more."""
    first = [replace(p, encoder="first", task=t) for t in ("t", "u") for p in _predictions(0, 0.7, "t", 1)]
    second = [replace(p, encoder="second", task=t) for t in ("t", "u") for p in _predictions(1, 0.5, "t", 1)]
    widths = {}
    for other in ("m.csv", "n.csv"):
        judged = Judged.of([*first, *second], {"t": "m.csv", "u": other})
        spread = judged.difference("first", "second", ["t", "u"])
        widths[other] = spread.high - spread.low
    once = Judged.of([*first, *second], {"t": "m.csv", "u": "m.csv"}).difference("first", "second", ["t"])
    assert widths["m.csv"] == pytest.approx(once.high - once.low)
    assert widths["n.csv"] < 0.85 * widths["m.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[row]", "[rows]"), "unknown part 'rows'"),
        (('matcher = "random"', 'matcher = "randon"'), "no matcher 'randon'"),
        (('name = "untrained"', 'name = "plain"'), "two rows are named 'plain 0.5'"),
        (("untrained = true", "untrained = 1"), "untrained: expected true or false"),
        (("rounds = 2", "round = 2"), "unknown key of a row 'round'. Did you mean rounds"),
        (('pairs = "shared"', 'pairs = "share"'), "Did you mean shared"),
        (("shares = [0.9, 0.5]", "shares = [9]"), "numbers from 0 to 1"),
        (("rounds = 2", 'calibrate = ["birds"]'), "calibrate: 'birds'"),
        (("rounds = 2", "rounds = 0"), "rounds is one at least"),
    ],
)
def test_mistakes_in_rows_are_explained(
    folder: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (folder / "rows.toml").read_text()
    assert change[0] in text
    (tmp_path / "rows.toml").write_text(text.replace(change[0], change[1], 1))
    with pytest.raises((FileError, UsageError), match=message.replace("[", r"\[")):
        Experiment.load(tmp_path / "rows.toml")


def test_the_rows_that_are_shipped() -> None:
    """The paper's configurations at its three weights, and every row that it lacks."""
    experiment = Experiment.load(tool.ROWS)
    names = {name for section in experiment.sections for *_, name in section.names()}
    for row in (
        "plain",
        "cnn",
        "cnn+ff_only",
        "ffn+attn",
        "aligned",
        "cnn+all",
        "one-sided",
        "all",
        "random",
        "untrained",
    ):
        assert {f"{row} {share:g}" for share in (0.9, 0.7, 0.5)} <= names
    for row in ("plain", "aligned"):
        assert {f"{row} {share / 10:g}" for share in range(1, 10)} <= names
    assert {
        "10 s 0.5",
        "speech only 0.5",
        "repair 0.5",
        "re-matched 0.5",
        "weights 0.5",
        "aligned' 0.5",
    } <= names


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (["x-0", "x-1"], ["y-0"], "2 encoders for A and 1 for B"),
        (["x-0", "z-1"], ["y-0", "y-1"], "named alike but for a number"),
        (["x-0"], ["other/x-0"], "both named x-0"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(a: list[str], b: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pairs(tool._paired([Path(x) for x in a], [Path(x) for x in b])).parents()


def test_a_clip_that_two_tasks_judge_counts_once() -> None:
    """One task twice tells no more than once, and a clip that each row wins once tells nothing."""
    first = [replace(p, encoder="first", task=t) for t in ("t", "u") for p in _predictions(0, 0.9, "t", 1)]
    second = [replace(p, encoder="second", task=t) for t in ("t", "u") for p in _predictions(1, 0.4, "t", 1)]
    once = Judged.of([*first, *second], {"t": "m.csv", "u": "m.csv"})
    apart = Judged.of([*first, *second], {"t": "m.csv", "u": "n.csv"})
    assert once.p("first", "second", ["t", "u"]) == once.p("first", "second", ["t"])
    assert apart.p("first", "second", ["t", "u"]) < once.p("first", "second", ["t"])
    turned = [replace(p, task={"t": "u", "u": "t"}[p.task], encoder="second") for p in first]
    other = [replace(p, correct=1 - p.correct) if p.task == "t" else p for p in first]
    swapped = [replace(p, correct=1 - p.correct) if p.task == "t" else p for p in turned]
    none = Judged.of([*other, *swapped], {"t": "m.csv", "u": "m.csv"})
    assert none.p("first", "second", ["t", "u"]) == 1.0


def test_runs_are_paired_by_number() -> None:
    """Run 2 of one row with run 2 of the other, also where one of them has a run 11."""
    made = [p for k in range(12) for p in (replace(q, run=str(k)) for q in _predictions(k, 0.5, "t", 1))]
    first = [replace(p, encoder="first") for p in made]
    second = [replace(p, encoder="second") for p in made if p.run != "11"]
    found = Judged.of([*first, *second], {"t": "m.csv"}).difference("first", "second", ["t"])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_what_is_there_is_taken_only_for_the_same_audio_and_configuration(
    folder: Path, tmp_path: Path
) -> None:
    experiment = Experiment.load(folder / "rows.toml")
    row = Row(name="aligned", calibrate=("speech",), seconds=2.0, clip=0.25, shares=(0.5,))
    here = tmp_path / "data"
    shutil.copytree(folder, here)
    a, b = here / "speech-0", here / "music-0"

    def key(data: Path = here) -> str:
        _heard.cache_clear()
        return Maker(experiment, data, tmp_path / "out")._key(row, a, b)

    before = key()
    assert key(folder) == before
    for audio in here.rglob("*.wav"):
        audio.write_bytes(audio.read_bytes()[:-4] + b"\1\2\3\4")
    other = key()
    assert other != before
    settings = b / "preprocessor_config.json"
    settings.write_text('{"sampling_rate": 16000, "do_normalize": true}')
    assert key() not in (before, other)
