"""Speech recognition from the folder of a data set to the score: errors are counted, and fewer of them are better."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import permgraph as pg
from permgraph.errors import FileError, UsageError
from permgraph.evaluation import ctc
from permgraph.evaluation.dataset import load_dataset
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
    assert "for the transcript does not train" in text and "for the transcript keeps the errors" in text
    assert "tones.csv,line14:10frames,151needed" in "".join(text.split())  # a long folder may break the name
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
    task = manifest(tmp_path / "set", FEW, manifest="set/manifest.csv")
    (tmp_path / "set" / "tones.csv").rename(tmp_path / "set" / "manifest.csv")
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


def test_tasks_of_classes_beside_it_are_judged_as_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same clips, of one manifest."""
    monkeypatch.setattr(ctc, "STEPS", 5)
    monkeypatch.setattr(ctc, "EVERY", 5)
    texts = manifest(tmp_path, FEW).rename(tmp_path / "texts.toml")
    classes = m.task(tmp_path, label="text", head="ridge").rename(tmp_path / "classes.toml")
    both = pg.evaluate(data / "A", [texts, classes], tmp_path)
    for task in (texts, classes):
        alone = pg.evaluate(data / "A", task, tmp_path)
        assert [r for r in both.results if r.task == task.stem] == list(alone.results) != []
        assert [p for p in both.predictions if p.task == task.stem] == list(alone.predictions)
        assert all((p.words > 0) == (task is texts) for p in alone.predictions)
    assert {r.metric for r in both.results} == {"wer", "accuracy"}
    made = pg.score(both.save(tmp_path / "out") / "results.csv")
    assert {c.task for c in made.comparisons if c.p is None} == {"texts"}
    assert "Less is better: texts." in made.notes
