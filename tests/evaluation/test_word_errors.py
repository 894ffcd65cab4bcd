"""Word error rates in verdicts, scores and tables: fewer errors are better, and words are counted, not clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import permgraph as pg
from permgraph.errors import FileError
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.results import Evaluation, Prediction, Result, write_table
from permgraph.evaluation.summary import results_of
from permgraph.evaluation.task import load_task
from tests.evaluation import miniature as m


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


def test_fewer_errors_are_better_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = m.speech(tmp_path, {"train": 4, "valid": 2, "test": 2})
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
        replace(p, task="ks", correct=int(i % 7 < k), predicted="x" if i % 7 < k else "y", errors=0, words=0)
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
        (["A,1,1,2,3"], r"line 2: correct is 1, with 2 errors"),
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
