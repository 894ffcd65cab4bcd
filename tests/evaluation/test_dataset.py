"""Manifests: what is right is laid out as it says, and every mistake is refused with the row that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.task import load_task, task_names
from tests.evaluation import miniature as m

Rows = list[dict[str, str]]
COUNTS = {"train": 20, "valid": 4, "test": 6}


def load(folder: Path, **fields: object):
    return load_dataset(load_task(m.task(folder, **fields)), folder)


def silent_files(folder: Path, counts: dict[str, int]) -> Rows:
    """Rows whose files are there, and empty: a manifest is checked before any audio is read."""
    rows = []
    (folder / "audio").mkdir(exist_ok=True)
    for split, count in counts.items():
        for i in range(count):
            name = f"audio/{split}_{i}.wav"
            (folder / name).touch()
            row = {"path": name, "note": f"note{i % 2}", "speaker": f"{split}{i // 2}"}
            rows.append({**row, "split": split, "fold": str(i % 3)})
    m.manifest(folder / "tones.csv", rows)
    return rows


def test_splits_are_those_of_the_manifest(tmp_path: Path) -> None:
    silent_files(tmp_path, COUNTS)
    made = load(tmp_path, cluster="speaker", disjoint=["speaker"])
    (only,) = made.rounds
    for name, count in COUNTS.items():
        rows = [made.rows[i] for i in getattr(only, name)]
        assert len(rows) == count
        assert {row.values["split"] for row in rows} == {name}
    assert not made.notes


def test_folds_test_every_clip_once_and_never_choose_on_it(tmp_path: Path) -> None:
    silent_files(tmp_path, {"train": 30})
    made = load(tmp_path, split=None, fold="fold", cluster="speaker")
    assert [part.fold for part in made.rounds] == ["0", "1", "2"]
    assert sorted(i for part in made.rounds for i in part.test) == list(range(30))
    for part in made.rounds:
        assert len({*part.train, *part.valid, *part.test}) == 30
        assert len(part.train) + len(part.valid) + len(part.test) == 30
        assert part.valid
        assert {made.rows[i].values["fold"] for i in part.test} == {part.fold}


@pytest.mark.parametrize("fields", [{"cluster": "speaker"}, {"disjoint": ["speaker"]}])
def test_without_valid_rows_whole_speakers_of_train_choose(tmp_path: Path, fields: dict[str, object]) -> None:
    silent_files(tmp_path, {"train": 20, "test": 4})
    made = load(tmp_path, **fields)
    (only,) = made.rounds
    train, valid = ({made.rows[i].values["speaker"] for i in part} for part in (only.train, only.valid))
    assert valid and not train & valid
    assert "of train choose" in made.notes[0]


def test_of_few_speakers_clips_of_train_choose(tmp_path: Path) -> None:
    rows = silent_files(tmp_path, {"train": 20, "test": 4})
    m.manifest(tmp_path / "tones.csv", [{**row, "speaker": row["split"]} for row in rows])
    (only,) = load(tmp_path, cluster="speaker").rounds
    assert (len(only.train), len(only.valid)) == (16, 4)


def test_labels_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    rows = silent_files(tmp_path, COUNTS)
    rows[-1]["note"] = "note9"  # in test alone
    m.manifest(tmp_path / "tones.csv", rows)
    made = load(tmp_path, unseen="skip")
    assert len(made.rows) == len(rows) - 1
    assert made.notes == ("1 clip left out: train has no clip of the same label",)
    assert load(tmp_path, only=["note0", "note1"]).notes == ("1 clip of other labels left out",)
    with pytest.raises(FileError, match=r"no clip has the note 'note7'"):
        load(tmp_path, only=["note0", "note7"])


def test_rows_of_skipped_splits_take_no_part(tmp_path: Path) -> None:
    rows = silent_files(tmp_path, COUNTS)
    m.manifest(tmp_path / "tones.csv", [*rows, {**rows[0], "path": "nowhere.wav", "split": "other"}])
    assert len(load(tmp_path, skip=["other"]).rows) == len(rows)


def changed(number: int, **values: str) -> Callable[[Rows], None]:
    return lambda rows: rows[number].update(values)


MISTAKES: dict[str, tuple[Callable[[Rows], None], str]] = {
    "speaker in train and test": (
        changed(-1, speaker="train0"),
        r"line 31: speaker train0 is in test, and in train in .*line 2",
    ),
    "missing file": (changed(3, path="audio/none.wav"), r"line 5: .*none\.wav: no such file"),
    "a folder is no file": (changed(3, path="audio"), r"line 5: .*audio: no such file"),
    "a file twice": (
        changed(4, path="audio/test_0.wav"),
        r"line 26: audio/test_0.wav stands in .*line 6 too",
    ),
    "a file twice, written otherwise": (changed(4, path="./audio/test_0.wav"), r"line 26: .* line 6 too"),
    "empty label": (changed(0, note=""), r"line 2: note is empty"),
    "blank label": (changed(0, note=" "), r"line 2: note is empty"),
    "blanks about a label": (changed(0, note="note0 "), r"line 2: note has blanks about it: 'note0 '"),
    "empty path": (changed(1, path=""), r"line 3: path is empty"),
    "unknown split": (changed(2, split="tran"), r"line 4: split is 'tran', not train.* Did you mean train"),
    "empty split name": (changed(2, split=""), r"line 4: split is empty"),
    "label unknown to train": (changed(-1, note="note2"), r"line 31: note 'note2' is unknown"),
    "one label": (lambda rows: [r.update(note="x") for r in rows], r"train has one note only"),
    "no test": (lambda rows: rows.__delitem__(slice(24, None)), r"the split test is empty"),
    "no train": (lambda rows: rows.__delitem__(slice(0, 20)), r"the split train is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistaken_manifest_is_refused(tmp_path: Path, mistake: str) -> None:
    rows = silent_files(tmp_path, COUNTS)
    change, message = MISTAKES[mistake]
    load(tmp_path, disjoint=["speaker"])  # as it is, it is right
    change(rows)
    m.manifest(tmp_path / "tones.csv", rows)
    with pytest.raises(FileError, match=message):
        load(tmp_path, disjoint=["speaker"])


def test_a_speaker_in_two_folds_is_refused(tmp_path: Path) -> None:
    silent_files(tmp_path, {"train": 30})
    with pytest.raises(FileError, match=r"speaker train0 is in 1, and in 0"):
        load(tmp_path, split=None, fold="fold", disjoint=["speaker"])


def test_one_fold_is_refused(tmp_path: Path) -> None:
    rows = silent_files(tmp_path, {"train": 30})
    m.manifest(tmp_path / "tones.csv", [{**row, "fold": "1"} for row in rows])
    with pytest.raises(FileError, match="has 1 fold;"):
        load(tmp_path, split=None, fold="fold")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,note\na.wav,x\n", r"no column 'split'"),
        ("path,Note,split\na.wav,x,train\n", r"no column 'note', .* Did you mean Note"),
        ("path,note,split\na.wav,x\n", r"line 2: has not as many fields"),
        ("path,note,split\na.wav,x,train,more\n", r"line 2: has not as many fields"),
        ("path,note,note,split\n", "named twice"),
        ("", "no column"),
        (None, "cannot read"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "tones.csv").write_text(text)
    with pytest.raises(FileError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["note", "speaker", "fold"])
def test_a_number_that_is_written_in_two_ways_is_refused(tmp_path: Path, name: str) -> None:
    rows = silent_files(tmp_path, {"train": 30})
    numbers = [{**row, name: str(i % 3)} for i, row in enumerate(rows)]
    fields = dict(split=None, fold="fold", cluster="speaker")
    for other in ("1.0", "1."):
        mixed = [{**row, name: other if i == 28 else row[name]} for i, row in enumerate(numbers)]
        m.manifest(tmp_path / "tones.csv", mixed)
        with pytest.raises(
            FileError, match=rf"line 30: {name} is '{other}', and '1' in .*, line 3: one number"
        ):
            load(tmp_path, **fields)
    for one, other in (("1", "2"), ("1.0", "2.0"), ("3.1", "3.10"), ("1", "01")):  # as chapters, say
        m.manifest(
            tmp_path / "tones.csv", [{**r, name: (one, other)[i // 2 % 2]} for i, r in enumerate(rows)]
        )
        load(tmp_path, **fields)


def test_a_manifest_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = silent_files(tmp_path, COUNTS)
    text = m.manifest(
        tmp_path / "tones.csv", [{**r, "note": r["note"].replace("note1", "für")} for r in rows]
    )
    whole = text.read_text(encoding="utf-8")
    for encoding in ("utf-8", "utf-8-sig"):
        text.write_text(whole, encoding=encoding)
        assert "für" in load(tmp_path).labels()
    text.write_text(whole, encoding="latin-1")
    with pytest.raises(FileError, match=r"tones\.csv, line 3: not UTF-8; save the manifest as UTF-8"):
        load(tmp_path)
    text.write_text(whole, encoding="utf-16")
    with pytest.raises(FileError, match=r"line 1: not UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "note"}, r"unknown field 'labels'. Did you mean label"),
        ({"label": None}, "label is missing"),
        ({"manifest": None}, "either manifest or layout"),
        ({"fold": "fold"}, "either split or fold"),
        ({"head": "lineal"}, r"head = 'lineal'. Did you mean linear"),
        ({"metric": "f1"}, "metric = 'f1'"),
        ({"unseen": "drop"}, "unseen = 'drop'"),
        ({"disjoint": "speaker"}, "disjoint: expected a list of strings"),
        ({"layout": "esc50", "manifest": None}, r"layout = 'esc50'. Did you mean esc-50"),
        ({"split": None, "fold": "fold", "unseen": "skip"}, "go with a split column"),
    ],
)
def test_a_mistaken_task_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(FileError, match=message):
        load_task(m.task(tmp_path, **fields))


def test_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean fsdd-digit"):
        load_task("fsdd-digits")


@pytest.mark.parametrize("name", task_names())
def test_the_tasks_of_the_package_read(name: str) -> None:
    assert load_task(name).domain in ("speech", "music", "environment")


OURS = [name for name in task_names() if load_task(name).manifest]


@pytest.mark.skipif(not m.DATA.is_dir(), reason="the audio of ../shared/data is not here")
@pytest.mark.parametrize("name", OURS)
def test_the_tasks_of_real_data_pass_the_checks(name: str) -> None:
    made = load_dataset(load_task(name), m.DATA)
    assert all(part.train and part.valid and part.test for part in made.rounds)
