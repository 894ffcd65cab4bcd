"""Speech recognition from the folder of a data set to the score: errors are counted, and fewer of them are better."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import permgraph as pg
from permgraph.errors import FileError, UsageError
from permgraph.evaluation import ctc
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.results import Evaluation, Prediction, Result, write_table
from permgraph.evaluation.summary import results_of
from permgraph.evaluation.task import load_task
from permgraph.evaluation.transcripts import error_rates, word_errors
from tests.command import run
from tests.evaluation import miniature as m

pytest.importorskip("jiwer")

COUNTS = {"train": 60, "valid": 10, "test": 20}


@pytest.fixture(scope="module", autouse=True)
def quick() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(UNITS=32, BATCH=16, STEPS=75, EVERY=25, RATE=1e-2).items():
            patch.setattr(ctc, name, value)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = m.speech(tmp_path_factory.mktemp("speech"), COUNTS)
    m.encoder(where / "A")
    return where


def edit_distance(one: list[str], other: list[str]) -> int:
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return int(table[-1, -1])


def test_word_errors_are_the_edit_distance_and_the_rate_is_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        tuple(" ".join(rng.choice(list("abc"), rng.integers(least, 7))) for least in (1, 0))
        for _ in range(200)
    ]
    errors = [word_errors(*pair) for pair in pairs]
    assert errors == [edit_distance(a.split(), b.split()) for a, b in pairs]
    words = [len(a.split()) for a, _ in pairs]
    texts, hypotheses = zip(*pairs, strict=True)
    rate, of_characters = error_rates(texts, hypotheses)
    assert rate == pytest.approx(sum(errors) / sum(words))
    assert abs(rate - np.mean(np.array(errors) / words)) > 0.01  # not a mean over clips
    letters = sum(edit_distance(list(a), list(b)) for a, b in pairs)
    assert of_characters == pytest.approx(letters / sum(map(len, texts)))
    assert word_errors("Yes, Sir", "yes sir") == 2  # case and punctuation count


def test_from_the_folder_to_the_score(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run("evaluate", data / "A", "--tasks", "asr", "--data", data, "-o", out)
    said = capsys.readouterr().out
    assert "asr (speech): wer (less is better) on 20 clips, drawn: 20 clips of 2 speakers" in said
    assert "an empty text has 1.000" in said and "chance" not in said
    assert "taken as they are written" in said and "ABCD" in said
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    for row in rows:
        wanted, found = row["label"].split(), row["predicted"].split()
        assert (int(row["words"]), int(row["errors"])) == (len(wanted), edit_distance(wanted, found))
        assert int(row["correct"]) == (wanted == found)
    results = {r["encoder"]: r for r in csv.DictReader((out / "results.csv").read_text().splitlines())}
    assert set(results) == {"log-mel (ctc)", "A"}
    for name, result in results.items():
        mine = [row for row in rows if row["encoder"] == name]
        assert len(mine) == COUNTS["test"]
        assert float(result["value"]) == pytest.approx(
            sum(int(row["errors"]) for row in mine) / sum(int(row["words"]) for row in mine)
        )
        assert (result["metric"], result["head"]) == ("wer", "ctc")
    assert float(results["log-mel (ctc)"]["value"]) < 0.2  # tones are told
    assert len(list((out / "features").glob("*.frames"))) == 2
    assert not list((out / "features").glob("*.npy"))  # of whole clips nothing is asked
    run("score", out / "results.csv", "--json")
    made = json.loads(capsys.readouterr().out)
    (comparison,) = made["comparisons"]
    assert comparison["p"] is None and comparison["holm"] is None and comparison["only_first"] is None
    assert "Less is better: asr." in made["notes"]


def test_the_same_seed_gives_the_same_tables(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc, "STEPS", 10)
    monkeypatch.setattr(ctc, "EVERY", 5)
    one, same = (pg.evaluate(data / "A", "asr", data, cache=tmp_path, seeds=2) for _ in range(2))
    assert one.predictions == same.predictions and one.results == same.results
    assert {(p.encoder, p.seed) for p in one.predictions} == {
        (encoder, seed) for encoder in ("log-mel (ctc)", "A") for seed in "01"
    }


def judged(errors: dict[str, list[int]], words: list[int]) -> list[Prediction]:
    """errors: encoder → of every clip."""
    rest = ("0", "0", "ctc", "")
    return [
        Prediction(
            "asr",
            "speech",
            encoder,
            *rest,
            f"{i}.wav",
            f"s{i % 10}",
            "x",
            "y",
            int(not wrong),
            wrong,
            words[i],
        )
        for encoder, every in errors.items()
        for i, wrong in enumerate(every)
    ]


def several() -> list[Prediction]:
    """log-mel is the worst, A the best, M between; all clips have an error, so no clip is ever right."""
    rng = np.random.default_rng(1)
    words = [int(n) for n in rng.integers(5, 40, size=50)]
    rates = {"log-mel (ctc)": 0.8, "log-mel (other)": 0.7, "A": 0.2, "B": 0.5, "M": 0.3}
    return judged({k: [1 + int(rate * n) for n in words] for k, rate in rates.items()}, words)


def test_fewer_errors_are_better_everywhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(load_task("asr"), data)
    rows = several()
    choices = {("asr", p.encoder): "" for p in rows}

    def verdicts() -> dict[str, str]:
        return {r.encoder: r.gate for r in results_of(dataset, data, rows, choices) if r.gate}

    assert verdicts() == {"A": "above", "B": "above", "M": "above"}
    worse = [replace(p, encoder="A") for p in rows if p.encoder == "log-mel (ctc)"]
    rows = [*(p for p in rows if p.encoder != "A"), *worse]
    assert verdicts()["A"] == "below"  # than the strongest baseline, which has the fewest errors
    monkeypatch.setattr("permgraph.evaluation.task.LOWER", ())  # as if more were better
    assert verdicts() == {"A": "below", "B": "below", "M": "below"}


def test_the_score_of_errors(tmp_path: Path) -> None:
    rows = several()
    write_table(tmp_path / "predictions.csv", Prediction, rows)
    made = pg.score(tmp_path / "predictions.csv", ["A", "B"])

    def rate(encoder: str) -> float:
        mine = [p for p in rows if p.encoder == encoder]
        return sum(p.errors for p in mine) / sum(p.words for p in mine)

    floor = rate("log-mel (other)")
    share = (floor - rate("M")) / (floor - rate("A"))
    assert made.scores["M", "all"] == pytest.approx(1000 * share)
    assert made.scores["A", "all"] == pytest.approx(1000) and not made.refused
    beside = {(c.first, c.second): c for c in made.comparisons}
    assert ("M", "log-mel (other)") in beside and ("M", "log-mel (ctc)") not in beside
    c = beside["M", "A"]
    assert c.difference.value == pytest.approx(rate("M") - rate("A"))
    assert 0 < c.difference.low < c.difference.value < c.difference.high
    assert (c.p, c.holm, c.only_first, c.only_second) == (None,) * 4
    assert "McNemar's test is of clips that are right or wrong" in made.text()
    refused = pg.score(tmp_path / "predictions.csv", ["log-mel (ctc)"], ["log-mel (other)"]).refused
    assert "(0.8" in refused["asr"] and "is not below the log-mel baseline" in refused["asr"]


def test_tests_of_classes_are_corrected_for_among_themselves(tmp_path: Path) -> None:
    """A task without a test adds nothing to Holm's correction."""
    texts = several()
    classes = [
        replace(p, task="ks", correct=int(i % 7 < k), errors=0, words=0)
        for k, encoder in ((2, "log-mel (ctc)"), (2, "log-mel (other)"), (6, "A"), (5, "B"), (4, "M"))
        for i, p in enumerate(p for p in texts if p.encoder == encoder)
    ]
    found = {}
    for name, rows in (("both", [*texts, *classes]), ("classes", classes)):
        write_table(tmp_path / f"{name}.csv", Prediction, rows)
        found[name] = pg.score(tmp_path / f"{name}.csv", ["A", "B"])
    alone = found["classes"].comparisons
    assert [c for c in found["both"].comparisons if c.task == "ks"] == list(alone) != []
    assert all(c.holm is not None for c in alone)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["A,1,1,-2,3"], r"line 2: errors is '-2', not a number of words"),
        (["A,1,1,0,two"], r"line 2: words is 'two', not a number of words"),
        (["A,1,0,2,"], r"line 2: 2 errors of no words"),
        (["A,1,0,2,3", "B,1,0,2,4"], r"the clip 1 has two numbers of words"),
        (["A,1,0,2,3", "A,2,0,,"], r"some clips have a number of words, others none: 2"),
    ],
)
def test_a_mistaken_table_of_errors_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "predictions.csv"
    head = "task,encoder,item,correct,errors,words"
    path.write_text("\n".join([head, *(f"asr,{row}" for row in rows)]))
    with pytest.raises(FileError, match=message):
        pg.score(path)


def test_a_verdict_on_errors_is_not_called_above(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("ctc", "wer", 0.3, 0.2, 0.4, "12 speakers", 20, 1.0)
    rows = [Result("asr", "speech", name, *rest, gate) for name, gate in (("A", "above"), ("B", "below"))]
    lines = Evaluation(tuple(rows), ()).text().splitlines()
    assert next(line for line in lines if line.startswith("A ")).endswith(" better")
    assert next(line for line in lines if line.startswith("B ")).endswith(" not better")


def manifest(where: Path, texts: dict[str, list[str]], **fields: object) -> Path:
    """A task of texts: split → what is said; clips are tones of what was said, where that is A, B, C, D or a blank."""
    rng = np.random.default_rng(0)
    rows = []
    for split, every in texts.items():
        for i, text in enumerate(every):
            (where / "audio").mkdir(exist_ok=True)
            name = f"audio/{split}{i}.wav"
            m.said(where / name, "".join(c if c in m.PITCHES else " " for c in text[:2]) or "A", rng)
            rows.append({"path": name, "text": text, "speaker": f"{split}{i}", "split": split})
    m.manifest(where / "tones.csv", rows)
    return m.task(where, **{"label": "text", "head": "ctc", "metric": "wer", **fields})


FEW = {"train": ["A", "B", "AB", "C D"] * 3, "valid": ["A", "B"], "test": ["AB", "B"]}


def test_clips_that_are_too_short_for_their_text_are_told_and_do_not_train(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc, "STEPS", 5)
    monkeypatch.setattr(ctc, "EVERY", 5)
    long = "ABCD " * 30 + "A"
    task = manifest(tmp_path, {**FEW, "train": [*FEW["train"], long], "test": [*FEW["test"], long]})
    made = pg.evaluate(data / "A", task, tmp_path)
    text = " ".join(made.text().split())
    for name in ("log-mel", "A"):
        assert f"tones: {name}: 1 clip of train with fewer frames than CTC needs" in text
        assert f"tones: {name}: 1 clip of test with fewer frames" in text
    assert "tones.csv, line 14: 10 frames, 151 needed" in text
    assert sum(p.encoder == "A" for p in made.predictions) == 3  # judged all the same
    assert all(np.isfinite(r.value) for r in made.results)
    with pytest.raises(
        FileError, match=r"tones: log-mel \(ctc\) gives every clip of train fewer frames than CTC"
    ):
        pg.evaluate(data / "A", manifest(tmp_path, {**FEW, "train": [long, long]}), tmp_path)


def test_characters_that_train_lacks_are_told_and_count_as_errors(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc, "STEPS", 5)
    monkeypatch.setattr(ctc, "EVERY", 5)
    task = manifest(tmp_path, {**FEW, "test": ["AB", "a", "é  B"]})
    made = pg.evaluate(data / "A", task, tmp_path)
    text = " ".join(made.text().split())
    assert "2 clips of valid and test have characters that no transcript of train has (aé)" in text
    assert "The first is" in text and "line 17" in text
    mine = [p for p in made.predictions if p.encoder == "A"]
    assert next(p for p in mine if p.label == "a").errors >= 1
    assert next(p for p in mine if p.label.startswith("é")).label == "é B"  # one blank between words


def test_without_valid_rows_speakers_of_train_choose_whatever_they_say(tmp_path: Path) -> None:
    texts = {"train": [f"A{'B' * i}" for i in range(20)], "test": ["D"]}
    for fields in (dict(cluster="speaker"), {}):
        task = load_task(manifest(tmp_path, texts, **fields))
        made = load_dataset(task, tmp_path)
        (only,) = made.rounds
        assert (len(only.train), len(only.valid), len(only.test)) == (16, 4, 1)
    folds = load_task(manifest(tmp_path, {"train": ["A"] * 12}, split=None, fold="speaker"))
    assert len(load_dataset(folds, tmp_path).rounds) == 12


def test_an_accuracy_of_tasks_csv_is_no_word_error_rate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc, "STEPS", 5)
    monkeypatch.setattr(ctc, "EVERY", 5)
    (tmp_path / "set").mkdir()
    task = manifest(tmp_path / "set", FEW, manifest="set/tones.csv")
    (tmp_path / "tasks.csv").write_text(
        "dataset,label_column,split_column,logmel_lr_test_acc\nset,text,split,0.9\n"
    )
    assert {r.encoder for r in pg.evaluate(data / "A", task, tmp_path).results} == {"log-mel (ctc)", "A"}


@pytest.mark.parametrize("text", ["", " ", " A"])
def test_an_empty_transcript_is_refused_with_its_row(tmp_path: Path, text: str) -> None:
    task = manifest(tmp_path, {**FEW, "test": ["A", text]})
    with pytest.raises(FileError, match=r"line 17: text (is empty|has blanks about it)"):
        load_dataset(load_task(task), tmp_path)


def test_a_transcript_that_librispeech_lacks_is_refused(tmp_path: Path) -> None:
    m.speech(tmp_path, dict.fromkeys(COUNTS, 4))
    (file,) = tmp_path.rglob("21-7.trans.txt")
    lines = file.read_text().splitlines()
    for text, told in (
        ("\n".join(lines[:-1]), r"21-7-0001\.flac: no \*\.trans\.txt beside it has its transcript"),
        ("\n".join([lines[0], "21-7-0001"]), r"21-7-0001\.flac: transcript is empty"),
    ):
        file.write_text(text)
        with pytest.raises(FileError, match=told):
            load_dataset(load_task("asr"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(head="linear"), r"head = 'linear'. Known with metric = 'wer': ctc"),
        (dict(metric="accuracy"), r"head = 'ctc'. Known with metric = 'accuracy': ridge, "),
        (dict(metric="cer"), r"metric = 'cer'.*Known: accuracy, wer"),
        (dict(unseen="skip"), r"are for classes; with metric = \"wer\" the label is a text"),
        (dict(only=["A"]), r"are for classes"),
    ],
)
def test_a_mistaken_task_of_texts_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    task = m.task(tmp_path, **{"label": "text", "head": "ctc", "metric": "wer", **fields})
    with pytest.raises(FileError, match=message):
        load_task(task)


def test_a_head_of_another_metric_is_refused(data: Path) -> None:
    for head, tasks in (("ridge", ["asr"]), ("ctc", ["ks"])):
        with pytest.raises(UsageError, match=rf"--head {head}: {tasks[0]} is judged by (wer|accuracy)"):
            pg.evaluate(data / "A", tasks, data, head=head)
    with pytest.raises(UsageError, match=r"no such head\..* There are: .*two-layer, ctc"):
        pg.evaluate(data / "A", ["asr"], data, head="cct")


def test_without_jiwer_it_says_what_to_install_before_any_audio_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    run("evaluate", data / "A", "--tasks", "asr", "--data", tmp_path / "none", "-o", tmp_path / "o", code=2)
    assert "jiwer is not installed: pip install 'permgraph[evaluate]'" in capsys.readouterr().err
