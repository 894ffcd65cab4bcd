"""Evaluate and score, from Python and from the command line, on what can be learned and what cannot."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.errors import FileError, UsageError
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.features import FrozenEncoder, encoder_features, side_by_side
from permgraph.evaluation.results import Evaluation, Prediction, Result, Retained, write_table
from permgraph.evaluation.subjects import subjects_of
from permgraph.evaluation.summary import is_above, quoted_baseline, results_of
from permgraph.evaluation.task import load_task
from permgraph.weights.encoder import open_encoder
from tests.command import run
from tests.evaluation import miniature as m

COUNTS = {"train": 24, "valid": 8, "test": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("data")
    m.tones(where, COUNTS)
    for seed, name in enumerate(("a", "b", "merged", "again")):
        m.encoder(where / name, seed)
    (where / "easy.toml").write_text(
        m.task(where, cluster="speaker", disjoint=["speaker"], head="ridge").read_text()
    )
    (where / "folds.toml").write_text(m.task(where, split=None, fold="fold", head="ridge").read_text())
    # labels that the audio does not tell
    rows = list(csv.DictReader((where / "tones.csv").read_text().splitlines()))
    m.manifest(
        where / "noise.csv", [{**r, "note": f"note{(i // 3 + i // 7) % 2}"} for i, r in enumerate(rows)]
    )
    (where / "noise.toml").write_text(m.task(where, manifest="noise.csv", head="ridge").read_text())
    return where


def test_pitches_are_told_and_beside_the_baseline(data: Path, tmp_path: Path) -> None:
    made = pg.evaluate([data / "a", data / "b"], [data / "easy.toml"], data, cache=tmp_path / "cache")
    by_name = {r.encoder: r for r in made.results}
    assert {"a", "b", "log-mel (ridge)"} <= set(by_name)
    for row in made.results:
        assert row.value == 1.0 and row.clips == COUNTS["test"] and row.chance == 0.5
    assert by_name["a"].unit == "8 speakers"
    assert by_name["a"].gate == "below"  # equal to log-mel is not above it
    assert "the strongest log-mel baseline is not beaten by a, b" in made.text()
    mine = [p for p in made.predictions if p.encoder == "a"]
    assert sorted(p.item for p in mine) == sorted(f"audio/test_{i}.wav" for i in range(COUNTS["test"]))
    assert all(p.correct == (p.label == p.predicted) for p in mine)


def test_labels_that_audio_does_not_tell_are_not_told(data: Path) -> None:
    made = pg.evaluate([data / "a"], [data / "noise.toml"], data)
    assert all(r.value < 0.9 for r in made.results)


def test_every_fold_is_tested_once(data: Path) -> None:
    made = pg.evaluate([data / "a"], [data / "folds.toml"], data)
    mine = [p for p in made.predictions if p.encoder == "a"]
    assert len(mine) == len({p.item for p in mine}) == sum(COUNTS.values())
    assert {p.fold for p in mine} == {"0", "1", "2"}


def test_runs_and_seeds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("permgraph.evaluation.heads.STEPS", 100)
    encoders = {"ours": [data / "a", data / "again"], "b": data / "b"}
    made = pg.evaluate(encoders, [data / "noise.toml"], data, head="linear", seeds=2)
    keys = {(p.encoder, p.run, p.seed) for p in made.predictions if not p.encoder.startswith("log-mel")}
    assert keys == {("ours", r, s) for r in "01" for s in "01"} | {("b", "0", "0"), ("b", "0", "1")}
    ours = next(r for r in made.results if r.encoder == "ours")
    mine = [p.correct for p in made.predictions if p.encoder == "ours"]
    assert ours.value == pytest.approx(sum(mine) / len(mine))
    assert ours.clips == COUNTS["test"]


def test_encoders_side_by_side_are_one_with_the_features_of_both(data: Path, tmp_path: Path) -> None:
    a, b = data / "a", data / "b"
    made = pg.evaluate([a, b, f"both={a}+{b}"], [data / "noise.toml"], data, cache=tmp_path, parents=["a"])
    alone, other, both = (
        [p.predicted for p in made.predictions if p.encoder == name] for name in ("a", "b", "both")
    )
    assert both not in (alone, other) and len(both) == len(alone)
    assert {r.encoder for r in made.retained} == {"b"}  # the screen is of one encoder
    frozen = [FrozenEncoder(open_encoder(path)) for path in (a, b)]
    files = [data / "audio" / f"test_{i}.wav" for i in range(3)]
    joined = side_by_side(frozen, files, tmp_path)
    parts = [encoder_features(one, files, tmp_path) for one in frozen]
    for deviations in (False, True):
        halves = [part.rows(files, True) for part in parts]
        width = halves[0].shape[-1] // 2
        want = [h[..., :width] for h in halves] + ([h[..., width:] for h in halves] if deviations else [])
        assert (joined.rows(files, deviations) == np.concatenate(want, axis=-1)).all()


def test_encoders_side_by_side_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    m.encoder(tmp_path / "deep", 3, layers=3)
    beside = f"x={data / 'a'}+{tmp_path / 'deep'}"
    with pytest.raises(UsageError, match="as many layers as each other: a 3, deep 4"):
        pg.evaluate([beside], [data / "easy.toml"], data)
    with pytest.raises(UsageError, match="side by side are no parent"):
        pg.evaluate([beside], [data / "easy.toml"], data, parents=["x"])
    strange = data / "a+b"
    m.encoder(strange, 0)
    assert [s.name for s in subjects_of([strange])] == ["a+b"]  # a path that is there is one path


def test_what_is_saved_scores_the_same(data: Path, tmp_path: Path) -> None:
    made = pg.evaluate(
        [data / "a", data / "b", data / "merged"], [data / "noise.toml"], data, parents=["a", "b"]
    )
    folder = made.save(tmp_path / "out")
    of_clips = pg.score(folder / "predictions.csv", ["a", "b"])
    of_numbers = pg.score(folder / "results.csv", ["a", "b"])
    assert of_clips.scores == pytest.approx(of_numbers.scores)
    assert of_clips.refused.keys() == of_numbers.refused.keys()
    assert of_clips.comparisons == of_numbers.comparisons != ()
    text = (folder / "results.csv").read_text()
    (folder / "numbers.csv").write_text(text)
    assert not pg.score(folder / "numbers.csv", ["a", "b"]).comparisons
    row = next(r for r in made.results if r.encoder == "merged")
    (folder / "results.csv").write_text(text.replace(f",{row.value},", ",0.123,"))
    with pytest.raises(FileError, match="they are of two evaluations"):
        pg.score(folder / "results.csv", ["a", "b"])
    rows = list(csv.DictReader((folder / "retained.csv").read_text().splitlines()))
    assert {(r["encoder"], r["parent"]) for r in rows} == {("merged", "a"), ("merged", "b")}
    assert len(rows) == 2 * (m.SMALL.num_hidden_layers + 1)


def test_a_baseline_of_tasks_csv_is_quoted_and_counts(data: Path, tmp_path: Path) -> None:
    header = "dataset,label_column,split_column,logmel_lr_test_acc\n"
    where = tmp_path / "data"
    m.tones(where / "tones", COUNTS)
    (where / "tones" / "tones.csv").rename(where / "tones" / "manifest.csv")
    task = m.task(where, manifest="tones/manifest.csv", head="ridge")
    (where / "tasks.csv").write_text(header + "tones,note,split,0.97\ntones,speaker,split,0.1\n")
    made = pg.evaluate([data / "a"], [task], where)
    quoted = next(r for r in made.results if r.encoder == "log-mel (tasks.csv)")
    assert (quoted.value, quoted.unit) == (0.97, "")
    (where / "tasks.csv").write_text(header + "tones,note,split,97\n")
    with pytest.raises(FileError, match="not between 0 and 1"):
        pg.evaluate([data / "a"], [task], where)


def test_a_baseline_of_other_clips_is_not_quoted(tmp_path: Path) -> None:
    """tasks.csv speaks of manifest.csv, whole, by its columns and its metric."""
    folder = tmp_path / "tones"
    rows = m.tones(folder, COUNTS)
    for name in ("manifest.csv", "hard.csv"):
        m.manifest(folder / name, rows)
    m.manifest(folder / "more.csv", [*rows[:-1], {**rows[-1], "note": "note9"}])

    def quoted(row: str = "tones,note,split,accuracy,2,0.9", **fields: object) -> float | None:
        header = "dataset,label_column,split_column,metric,classes,logmel_lr_test_acc"
        (tmp_path / "tasks.csv").write_text(f"{header}\n{row}\n")
        task = load_task(m.task(tmp_path, **({"manifest": "tones/manifest.csv"} | fields)))
        return quoted_baseline(load_dataset(task, tmp_path), tmp_path)

    assert quoted() == quoted("tones,note,split,,,0.9") == 0.9
    assert quoted(manifest="tones/hard.csv") is quoted(only=["note0", "note1"]) is None
    assert quoted("tones,note,split,f1,2,0.9") is quoted("tones,note,fold,accuracy,2,0.9") is None
    assert quoted("tones,speaker,split,accuracy,2,0.9") is quoted("other,note,split,accuracy,2,0.9") is None
    assert quoted("tones,note,,accuracy,2,0.9", split=None, fold="fold") is None
    (folder / "more.csv").rename(folder / "manifest.csv")  # of one clip the label is in test alone
    assert quoted(unseen="skip") == 0.9
    assert quoted("tones,note,split,accuracy,3,0.9", unseen="skip") is None
    assert quoted("tones,note,split,accuracy,,0.9", unseen="skip") is None


@pytest.mark.parametrize("name", ["A ", " A", os.fsdecode(b"f\xfcr")])
def test_a_name_that_a_table_would_change_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"(has blanks about it|is not UTF-8)\. Write NAME=PATH"):
        subjects_of({name: "somewhere"})


def test_mistakes_in_encoders_are_told_before_any_audio_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: object) -> None:
        raise AssertionError("audio is read")

    monkeypatch.setattr("permgraph.evaluation.probing.logmel_features", read)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((data / "a" / "config.json").read_text())
    for given, told in (
        (dict(encoders=[data / "a", data / "none"]), "none"),
        (dict(encoders=[data / "a", tmp_path / "bare"]), "bare"),
        (dict(encoders=[data / "a"], device="abacus"), "--device abacus"),
        (dict(encoders=[data / "a"], model_class="HubertForCTC"), "lm_head"),
    ):
        with pytest.raises((FileError, UsageError), match=told):
            pg.evaluate(**{"tasks": [data / "easy.toml"], "data": data} | given)  # type: ignore[arg-type]


def test_what_rounding_took_from_the_baseline_is_no_gain(data: Path, tmp_path: Path) -> None:
    """As many right as the baseline is never above it, one more always is, and the verdicts of all tools are one."""
    for clips in range(1, 400):
        for right in range(clips):
            quoted = float(f"{right / clips:.3f}")
            assert not is_above(right / clips - quoted) and is_above((right + 1) / clips - quoted)
    assert not is_above(0.1, 0.1) and is_above(0.11, 0.1)

    where = tmp_path / "data"
    m.tones(where / "tones", COUNTS)
    (where / "tones" / "tones.csv").rename(where / "tones" / "manifest.csv")
    dataset = load_dataset(load_task(m.task(where, manifest="tones/manifest.csv", head="ridge")), where)
    rest = ("ridge", "", "0", "c", "x", "y")
    mine = [
        Prediction("tones", "music", "a", "0", "0", *rest[:2], str(i), *rest[3:], int(i < 9))
        for i in range(16)
    ]
    floor = [replace(p, encoder="log-mel (ridge)", correct=0) for p in mine]
    header = "dataset,label_column,split_column,logmel_lr_test_acc\n"
    for text, expected in (
        ("0.562", "below"),
        ("0.563", "below"),
        ("0.561", "above"),
    ):  # 9 of 16 are 0.5625
        (where / "tasks.csv").write_text(f"{header}tones,note,split,{text}\n")
        choices = {("tones", name): "" for name in ("a", "log-mel (ridge)")}
        found = {r.encoder: r.gate for r in results_of(dataset, where, [*floor, *mine], choices)}
        assert found["a"] == expected, text
        table = tmp_path / "results.csv"
        table.write_text(f"task,encoder,value\ntones,log-mel (tasks.csv),{text}\ntones,a,0.5625\n")
        assert bool(pg.score(table).refused) == (expected == "below")


def test_one_recording_in_two_splits_under_two_names_is_refused(data: Path, tmp_path: Path) -> None:
    m.tones(tmp_path, COUNTS)
    (tmp_path / "audio/test_3.wav").write_bytes((tmp_path / "audio/train_5.wav").read_bytes())
    task = m.task(tmp_path, head="ridge")
    with pytest.raises(
        FileError, match=r"line 37: test_3\.wav is in test and has the content of train_5\.wav"
    ):
        pg.evaluate([data / "a"], [task], tmp_path)


def test_clips_that_begin_and_end_with_silence_are_compared_whole(data: Path, tmp_path: Path) -> None:
    m.tones(tmp_path, COUNTS)
    for i, name in enumerate(("train_4", "train_5", "train_6")):
        clip = np.zeros(6 * 16_000)
        clip[40_000:56_000] = 0.1 * np.random.default_rng(i).standard_normal(16_000)
        soundfile.write(tmp_path / f"audio/{name}.wav", clip, 16_000)
    (tmp_path / "audio/test_3.wav").write_bytes((tmp_path / "audio/train_6.wav").read_bytes())
    task = m.task(tmp_path, head="ridge")
    with pytest.raises(FileError, match=r"test_3\.wav is in test and has the content of train_6\.wav"):
        pg.evaluate([data / "a"], [task], tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(tasks=["fsdd"]), "no such task"),
        (dict(tasks=[]), "one task"),
        (dict(head="svm"), "no such head"),
        (dict(seeds=0), "one seed"),
        (dict(parents=["c"]), "no such encoder"),
        (dict(device="abacus"), "--device abacus"),
        (dict(encoders=[]), "no encoder"),
        (dict(encoders=["log-mel=a"]), "not an encoder's"),
        (dict(encoders=["x=a", "x=a"]), "given twice"),
        (dict(encoders=["x=a+b", "x=b+a"]), "given twice"),
        (dict(encoders=["x=a+a"]), "beside itself"),
    ],
)
def test_what_names_nothing_is_refused(data: Path, words: dict[str, object], message: str) -> None:
    args = {"encoders": [data / "a"], "tasks": [data / "easy.toml"], "data": data, **words}
    with pytest.raises(UsageError, match=message):
        pg.evaluate(**args)


def test_a_single_name_is_not_taken_for_its_letters(data: Path) -> None:
    made = pg.evaluate({"merged": data / "a", "aa": data / "b"}, str(data / "noise.toml"), data, parents="aa")
    assert {r.parent for r in made.retained} == {"aa"}
    assert pg.evaluate(data / "a", data / "noise.toml", data).results[-1].encoder == "a"


@pytest.mark.slow
def test_nothing_needs_the_extra_to_be_imported() -> None:
    code = """
import importlib, pkgutil, sys
sys.modules.update({"sklearn": None, "statsmodels": None, "jiwer": None})
import permgraph, permgraph.cli, permgraph.evaluation
for module in pkgutil.walk_packages(permgraph.evaluation.__path__, "permgraph.evaluation."):
    importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_encoders_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    m.encoder(tmp_path / "a", seed=9)
    with pytest.raises(UsageError, match="are both named a"):
        pg.evaluate([data / "a", tmp_path / "a"], [data / "easy.toml"], data)


def test_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    names = [f"A={data / 'a'}", f"B={data / 'b'}", data / "merged"]
    run("evaluate", *names, "--tasks", data / "noise.toml", "--data", data, "--parents", "A,B", "-o", out)
    said = capsys.readouterr()
    assert "log-mel (ridge)" in said.out and "R² of a parent's layers" in said.out
    assert "permgraph score" in said.err
    run("score", out / "predictions.csv", "--parents", "A,B", "--json")
    made = json.loads(capsys.readouterr().out)
    assert {c["second"] for c in made["comparisons"]} >= {"A", "B"}
    again = ("evaluate", *names, "--tasks", data / "noise.toml", "--data", data, "-o", out, "--json")
    run(*again, code=3)
    assert "--force" in capsys.readouterr().err
    run(*again, "--force")
    assert not (out / "retained.csv").exists()  # of the evaluation before
    assert {r["encoder"] for r in json.loads(capsys.readouterr().out)["results"]} >= {"A", "B", "merged"}
    run("score", out / "results.csv", "--parents", "A,C", code=2)
    assert "--parents C: not in the table" in capsys.readouterr().err
    run("evaluate", data / "a", "--tasks", "nothing", "--data", data, code=2)
    run("score", tmp_path / "none.csv", code=3)


def test_without_scikit_learn_the_baseline_says_what_it_lacks(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sklearn" else find(name, *rest)
    )
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    made = pg.evaluate([data / "a"], [data / "easy.toml"], data)
    assert any("logistic regression needs pip install 'permgraph[evaluate]'" in note for note in made.notes)
    assert [r.encoder for r in made.results] == ["log-mel (ridge)", "a"]
    with pytest.raises(UsageError, match=r"pip install 'permgraph\[evaluate\]'"):
        pg.evaluate([data / "a"], [data / "easy.toml"], data, head="logistic")


@pytest.mark.slow
@pytest.mark.skipif(not m.DATA.is_dir(), reason="the audio of ../shared/data is not here")
def test_the_demo_encoders_on_real_speech(tmp_path: Path) -> None:
    """The encoders beat chance by far, and our log-mel is as good as the quoted one within its interval."""
    a, _ = demo_models()
    made = pg.evaluate([a], ["emodb-emotion"], m.DATA, head="ridge", cache=tmp_path)
    by_name = {r.encoder: r for r in made.results}
    assert by_name["encoder_a"].low > by_name["encoder_a"].chance
    quoted = by_name["log-mel (tasks.csv)"].value
    assert quoted == pytest.approx(by_name["log-mel (logistic)"].value, abs=0.1)
    assert load_task("emodb-emotion").cluster == "speaker"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many layers, tasks and long names there are; no encoder is lost."""
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["log-mel (logistic-plain)", "hubert-base-ls960", "merged-0.90-cnn+ffn+attn", "MERT-v1-95M"]
    rows, predictions, screen = [], [], []
    for task in ("ks", "phil-pitch-class"):
        for k, name in enumerate(names):
            gate = "" if name.startswith("log-mel") else "above"
            numbers = (0.5 + k / 10, 0.4, 0.6)
            rows.append(
                Result(task, "speech", name, "logistic", "accuracy", *numbers, "12 speakers", 64, 0.1, gate)
            )
            for i in range(10):
                where = (task, "speech", name, "0", "0", "ridge", "0", f"{i}.wav", f"c{i % 8}", "x")
                right = i < 5 + k
                predictions.append(Prediction(*where, "x" if right else "y", int(right)))
        screen += [Retained(task, names[2], names[1], layer, 0.9) for layer in range(25)]
    made = Evaluation(tuple(rows), tuple(predictions), tuple(screen), ("a note " * 30,))
    assert max(map(len, made.text().splitlines())) <= columns
    assert all(name in made.text() for name in names)
    write_table(tmp_path / "predictions.csv", Prediction, predictions)
    scores = pg.score(tmp_path / "predictions.csv", [names[1]]).text()
    assert max(map(len, scores.splitlines())) <= columns and f"{names[2]} - {names[1]}" in scores
