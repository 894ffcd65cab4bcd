"""Scores of tables: Eq. 6 by hand, what it refuses, and tables of clips."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import permgraph as pg
from permgraph.errors import FileError, UsageError
from permgraph.evaluation.curves import Curves, curves
from permgraph.evaluation.names import less_is_better
from permgraph.evaluation.significance import holm, mcnemar
from permgraph.evaluation.tables import Table, load_table
from tests.command import run

LONG = """task,domain,encoder,metric,value
ks,speech,FBANK,accuracy,40
ks,speech,A,accuracy,90
ks,speech,B,accuracy,70
ks,speech,M,accuracy,80
asr,speech,FBANK,wer,30
asr,speech,A,wer,10
asr,speech,B,wer,20
asr,speech,M,wer,15
genre,music,FBANK,accuracy,50
genre,music,A,accuracy,60
genre,music,B,accuracy,75
genre,music,M,accuracy,80
"""


def write(tmp_path: Path, text: str, name: str = "results.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_eq_6_by_hand(tmp_path: Path) -> None:
    made = pg.score(write(tmp_path, LONG), ["A", "B"])
    speech = [(80 - 40) / (90 - 40), (30 - 15) / (30 - 10)]
    music = (80 - 50) / (75 - 50)
    assert made.scores["M", "speech"] == pytest.approx(1000 * np.mean(speech))
    assert made.scores["M", "music"] == pytest.approx(1000 * music)
    assert made.scores["M", "all"] == pytest.approx(1000 * np.mean([*speech, music]))
    assert made.scores["A", "speech"] == pytest.approx(1000)
    assert not made.refused
    assert "Less is better: asr" in made.text()


def test_units_do_not_matter(tmp_path: Path) -> None:
    """A column in percent and the same as a share give one score; so do errors and 100 - errors."""
    percent = "encoder,x,y WER\nFBANK,40,30\nA,90,10\nM,80,15\n"
    share = "encoder,x,y\nFBANK,0.4,70\nA,0.9,90\nM,0.8,85\n"
    one, other = (pg.score(write(tmp_path, text, f"{len(text)}.csv"), ["A"]) for text in (percent, share))
    assert one.scores == pytest.approx(other.scores)


def test_a_task_whose_best_parent_is_not_above_the_baseline_is_refused(tmp_path: Path) -> None:
    """Its fraction would be huge, or of the wrong sign."""
    text = LONG.replace("genre,music,FBANK,accuracy,50", "genre,music,FBANK,accuracy,75")
    made = pg.score(write(tmp_path, text), ["A", "B"])
    assert "not above the log-mel baseline" in made.refused["genre"]
    assert "genre has no score: the best parent (75) is not above the log-mel baseline (75)" in made.text()
    assert ("M", "music") not in made.scores
    assert made.counted["all"] == ("ks", "asr")
    errors = LONG.replace("asr,speech,FBANK,wer,30", "asr,speech,FBANK,wer,9")
    assert list(pg.score(write(tmp_path, errors), ["A", "B"]).refused) == ["asr"]


def test_columns_are_known_by_the_names_of_tasks(tmp_path: Path) -> None:
    """ASR is a word error rate, unless its column says otherwise; domains are those of the tasks."""
    text = "model,KS,ASR,ESC-50 (acc),GenreID\nFBANK,40,30,20,20\nA,90,10,60,60\nM,80,15,50,40\n"
    made = pg.score(write(tmp_path, text), ["A"])
    assert made.counted == {
        "speech": ("KS", "ASR"),
        "environment": ("ESC-50 (acc)",),
        "music": ("GenreID",),
        "all": ("KS", "ASR", "ESC-50 (acc)", "GenreID"),
    }
    assert made.scores["M", "speech"] == pytest.approx(1000 * np.mean([0.8, 0.75]))
    upward = "model,ASR ↑\nFBANK,30\nA,90\nM,60\n"
    assert pg.score(write(tmp_path, upward), ["A"]).scores["M", "all"] == pytest.approx(500)


def test_rows_of_seeds_and_runs_are_averaged(tmp_path: Path) -> None:
    rows = ["FBANK,x,,,0", "A,x,,,1", "M,x,0,0,0.2", "M,x,0,1,0.4", "M,x,1,0,0.9"]
    made = pg.score(write(tmp_path, "\n".join(["encoder,task,run,seed,value", *rows])), ["A"])
    assert made.scores["M", "all"] == pytest.approx(1000 * np.mean([0.3, 0.9]))


def test_the_merged_encoder_is_no_parent(tmp_path: Path) -> None:
    """Were it one, its own best task would count 1000."""
    made = pg.score(write(tmp_path, LONG), ["A", "B"])
    assert made.scores["M", "music"] > 1000
    free = pg.score(write(tmp_path, LONG))
    assert free.scores["M", "music"] == pytest.approx(1000)
    assert "No parents were named" in free.text()


def test_the_strongest_of_several_baselines_counts(tmp_path: Path) -> None:
    text = "encoder,x\nlog-mel (ridge),40\nlog-mel (logistic),60\nA,90\nM,75\n"
    assert pg.score(write(tmp_path, text), ["A"]).scores["M", "all"] == pytest.approx(500)


def test_an_encoder_that_lacks_a_task_gets_no_score_over_it(tmp_path: Path) -> None:
    made = pg.score(write(tmp_path, "encoder,x,y\nFBANK,1,1\nA,3,3\nM,2,\n"), ["A"])
    assert ("M", "all") not in made.scores
    assert "M has no score for all: the table lacks y" in made.text()
    lacking = pg.score(write(tmp_path, "encoder,x,y\nFBANK,1,\nA,3,3\nM,2,2\n"), ["A"])
    assert lacking.refused == {"y": "the table lacks it for FBANK"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder,x\nA,3\nM,2\n", "needs the log-mel baseline"),
        ("encoder,x\nFBANK,1\nA,3 %\n", r"line 3: x is '3 %', not a number"),
        ("encoder,x\nFBANK,1\nA,nan\n", r"line 3: x is 'nan'"),
        ("encoder,x\nFBANK,1\nA,3\nA,4\n", r"line 4: A is here twice"),
        ("encoder,x\nFBANK,1\nA,3,4\n", r"line 3: has not as many fields"),
        ("encoder,x,x\nFBANK,1,2\n", "named twice"),
        ("encoder,x\n", "holds no rows"),
        ("encoder\nFBANK\n", "a table has the columns"),
        ("encoder,task,item\nFBANK,x,1\n", "a table has the columns"),
        ("encoder,task,value\nFBANK,x,1\nFBANK,x,2\n", r"line 3: FBANK on x is here twice"),
        ("encoder,task,value,domain\nFBANK,x,1,s\nA,x,2,m\n", "two domains"),
        ("task,encoder,item,correct\nx,A,1,yes\n", "not 0 or 1"),
        ("task,encoder,item,correct\nx,A,1,1\nx,A,1,0\n", r"line 3: A is judged on 1 in .*line 2 too"),
        ("task,encoder,item,correct\nx,A,1,1\nx,B,2,0\n", "not judged on the same clips"),
        ("task,encoder,item,correct,cluster\nx,A,1,1,s\nx,B,1,0,t\n", "two clusters"),
        (
            "task,encoder,item,correct,label,predicted\nx,A,1,0,s,s\n",
            r"line 2: correct is 0, but label is 's'",
        ),
        (
            "task,encoder,item,correct,label,predicted\nx,A,1,1,s,t\n",
            r"line 2: correct is 1, but label is 's'",
        ),
        ("encoder,task,value,metric\nFBANK,x,1,f1\nA,x,2,wer\n", r"line 3: x has two metrics, f1 and wer"),
        ("encoder,x\nFBANK,1\nA,3\nA ,4\n", r"line 4: A is here twice"),
        ("encoder,task,value\nFBANK,x,1\nFBANK ,x,2\n", r"line 3: FBANK on x is here twice"),
        ("task,encoder,item,correct\nx,A,1,1\nx,A ,1,0\n", r"line 3: A is judged on 1 in"),
        ("encoder,x,x \nFBANK,1,2\n", "named twice"),
    ],
)
def test_a_mistaken_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        pg.score(write(tmp_path, text))


def test_a_name_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, LONG)
    for words in (dict(parents=["a"]), dict(baseline=["fbanks"]), dict(lower=["Genre"])):
        with pytest.raises(UsageError, match=r"Did you mean|not in the table"):
            pg.score(path, **words)
    with pytest.raises(UsageError, match="cannot be a parent and the baseline"):
        pg.score(path, ["A"], ["A"])


def clips(tmp_path: Path, right: dict[str, np.ndarray], folds: int = 1, clusters: int = 40) -> Path:
    """right: encoder → (seeds, clips)."""
    path = tmp_path / "predictions.csv"
    with open(path, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["task", "domain", "encoder", "seed", "fold", "item", "cluster", "correct"])
        for encoder, values in right.items():
            for seed, row in enumerate(values):
                for i, flag in enumerate(row):
                    table.writerow(["x", "speech", encoder, seed, i % folds, i, i % clusters, int(flag)])
    return path


def test_clips_give_differences_tests_and_holm(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    right = {name: rng.random((1, 300)) < p for name, p in (("log-mel", 0.4), ("A", 0.8), ("M", 0.6))}
    made = pg.score(clips(tmp_path, right, folds=5), ["A"])
    pairs = [("M", "A"), ("A", "log-mel"), ("M", "log-mel")]
    assert [(c.first, c.second) for c in made.comparisons] == pairs
    expected = []
    for c in made.comparisons:
        a, b = right[c.first][0], right[c.second][0]
        expected.append(mcnemar(int((a & ~b).sum()), int((b & ~a).sum())).p)
        assert c.p == pytest.approx(expected[-1])
        assert c.difference.value == pytest.approx(a.mean() - b.mean())
        assert c.difference.low < c.difference.value < c.difference.high
        assert c.difference.unit == "40 clusters"
    assert [c.holm for c in made.comparisons] == pytest.approx(holm(expected))
    scale = right["A"].mean() - right["log-mel"].mean()
    assert made.scores["M", "all"] == pytest.approx(
        1000 * (right["M"].mean() - right["log-mel"].mean()) / scale
    )


def test_more_seeds_do_not_count_clips_again(tmp_path: Path) -> None:
    """Five copies of one probe are one probe."""
    rng = np.random.default_rng(4)
    right = {name: rng.random((1, 80)) < p for name, p in (("log-mel", 0.3), ("A", 0.6), ("M", 0.5))}
    once = pg.score(clips(tmp_path, right), ["A"]).comparisons
    copies = {name: np.repeat(row, 1 if name == "log-mel" else 5, axis=0) for name, row in right.items()}
    again = pg.score(clips(tmp_path, copies), ["A"]).comparisons
    assert [c.only_first for c in again] == pytest.approx([c.only_first for c in once])
    assert all(c.p >= d.p for c, d in zip(again, once, strict=True))


def test_a_table_of_numbers_says_that_it_has_no_significance(tmp_path: Path) -> None:
    made = pg.score(write(tmp_path, LONG), ["A", "B"])
    assert not made.comparisons
    assert "no significance" in made.text()


ERRORS = (
    "asr-wer",
    "asr_WER",
    "EER",
    "EER (%)",
    "PR (PER)",
    "WER (test-clean)",
    "word error rate",
    "loss ↓",
    "ASR",
)
OTHERS = (
    "tone-per-clip",
    "words-per-minute",
    "error-detection",
    "wer-ist-das",
    "ASR ↑",
    "ASR (accuracy)",
    "KS",
    "power",
)


@pytest.mark.parametrize("name", [*ERRORS, *OTHERS])
def test_the_name_of_a_task_counts_only_where_no_metric_is_given(tmp_path: Path, name: str) -> None:
    """Of a name the last word: those before it may be English. A metric decides alone."""
    assert less_is_better(name) == (name in ERRORS)
    for metric, errors in (
        ("accuracy", False),
        ("wer", True),
        ("WER (%)", True),
        ("accuracy per clip", False),
    ):
        assert less_is_better(name, metric) == errors
        rows = [f"{encoder},{name},{metric},{value}" for encoder, value in (("FBANK", 1), ("A", 3), ("M", 2))]
        made = pg.score(write(tmp_path, "\n".join(["encoder,task,metric,value", *rows])), ["A"])
        assert bool(made.refused) == errors


def test_clips_beside_results_say_what_they_count(tmp_path: Path) -> None:
    """A task of a misleading name has one score, by its numbers and by its clips; a row without clips is told."""
    rows = [
        f"clip-per,{e},{i},{int(i < n)}" for e, n in (("FBANK", 2), ("A", 8), ("M", 5)) for i in range(10)
    ]
    write(tmp_path, "\n".join(["task,encoder,item,correct", *rows]), "predictions.csv")
    numbers = "encoder,task,value\nFBANK,clip-per,0.2\nA,clip-per,0.8\nM,clip-per,0.5\n"
    both = [pg.score(path, ["A"]) for path in (write(tmp_path, numbers), tmp_path / "predictions.csv")]
    assert both[0].scores == both[1].scores == pytest.approx({("A", "all"): 1000, ("M", "all"): 500})
    assert not any("No test" in note for note in both[0].notes)
    more = pg.score(write(tmp_path, numbers + "N,clip-per,0.4\n"), ["A"])
    assert "No test of N on clip-per: predictions.csv has no clips of it." in more.notes
    assert {c.first for c in more.comparisons} == {"A", "M"}


WEIGHTED = "encoder,ks,loss\nmfcc,0.5,9\nFBANK,0.3,9\nA,0.8,2\nB,0.7,3\nM-0.9,0.75,2.5\nM-0.5,0.6,4\n"


def test_curves_are_of_the_tasks_and_the_baseline_that_are_named(tmp_path: Path) -> None:
    table = load_table(write(tmp_path, WEIGHTED))
    (drawn,) = curves(table, ["A", "B"], ["mfcc"], ["loss"])
    assert (drawn.tasks, drawn.baseline) == (("ks",), ("mfcc", 0.5))
    assert drawn.families == {"M": ((0.0, 0.7), (0.5, 0.6), (0.9, 0.75), (1.0, 0.8))}
    with pytest.raises(UsageError, match="tasks where more is better"):
        curves(table, ["A", "B"], lower=["ks", "loss"])
    for words in (dict(baseline=["mfc"]), dict(lower=["los"]), dict(parents=["C"])):
        with pytest.raises(UsageError, match="not in the table"):
            curves(table, **words)


def test_curves_of_another_pair_end_at_its_own_parents(tmp_path: Path) -> None:
    """aligned' 0.5 is a merge of A' and B'; where these are not in the table it has no ends."""
    primes = "M' 0.9,0.4,1\nM' 0.5,0.3,1\n"
    (drawn,) = curves(load_table(write(tmp_path, WEIGHTED + primes)), ["A", "B"], lower=["loss"])
    assert drawn.families["M'"] == ((0.5, 0.3), (0.9, 0.4))
    own = f"{WEIGHTED}{primes}A',0.45,1\nB',0.2,1\n"
    (drawn,) = curves(load_table(write(tmp_path, own)), ["A", "B"], lower=["loss"])
    assert drawn.families["M'"] == ((0.0, 0.2), (0.5, 0.3), (0.9, 0.4), (1.0, 0.45))
    assert drawn.families["M"] == ((0.0, 0.7), (0.5, 0.6), (0.9, 0.75), (1.0, 0.8))


@pytest.mark.parametrize("other", ["M-0.90", "M_0.9", "M 0.900"])
def test_two_rows_for_one_point_are_refused(tmp_path: Path, other: str) -> None:
    """One would hide the other."""
    table = load_table(write(tmp_path, f"{WEIGHTED}{other},0.1,1\n"))
    with pytest.raises(UsageError, match=rf"M-0\.9 and {other} are both M at the weight 0\.9"):
        curves(table, ["A", "B"])


def test_the_command_draws_by_the_same_options_as_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def recorded(table: Table, *options: object) -> list[Curves]:
        given.append(options)
        return curves(table, ["A", "B"], ["mfcc"], ["loss"])

    monkeypatch.setattr("permgraph.evaluation.curves.curves", recorded)
    monkeypatch.setattr("permgraph.reporting.figures.weights.draw", lambda panels, folder, force: [])
    path, options = write(tmp_path, WEIGHTED), ("--parents", "A,B", "--baseline", "mfcc", "--lower", "loss")
    run("score", path, *options, "--figures", tmp_path / "figures")
    assert given == [(["A", "B"], ["mfcc"], ["loss"])]
