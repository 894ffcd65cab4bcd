"""The clips of a task: read from its manifest, checked, and laid out in rounds of train, valid and test.

A mistake in a manifest makes a wrong number that looks right, so every one is refused, with the row that shows it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from permgraph.errors import FileError, nearest, reason
from permgraph.evaluation.task import SPLITS, Task
from permgraph.inputs.csv_rows import csv_rows, delimiter_of
from permgraph.inputs.sources import shown

EVERY = (
    5  # without valid rows, every fifth cluster of train (or clip, of few clusters) is held out for choices
)


@dataclass(frozen=True)
class Row:
    """One row of a manifest: where it stands ("manifest.csv, line 7"), the audio file, all columns."""

    where: str
    file: Path
    values: dict[str, str]


@dataclass(frozen=True)
class Round:
    """Indices into `Dataset.rows`: what trains, what chooses, what is judged."""

    fold: str
    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """A task with its clips. `rounds` has one entry, or one per fold; no clip is tested twice.

    notes  what was done that a reader should know: clips left out, valid taken from train
    """

    task: Task
    rows: tuple[Row, ...]
    rounds: tuple[Round, ...]
    notes: tuple[str, ...]

    def labels(self) -> list[str]:
        """Of every row: its class; or its transcript, as it is written, with one blank between words."""
        values = [row.values[self.task.label] for row in self.rows]
        return [" ".join(text.split()) for text in values] if self.task.transcribes else values

    def clusters(self) -> list[str]:
        """Of every row; a clip is its own cluster where the task names no column."""
        name = self.task.cluster
        return [row.values[name] if name else str(row.file) for row in self.rows]


def load_dataset(task: Task, data: str | Path) -> Dataset:
    """Read and check the clips of a task below the folder `data`. Raises FileError with the row at fault."""
    rows = read_rows(task, Path(data))
    _refuse_bad_rows(task, rows)
    _refuse_two_spellings(task, rows)
    rows, left_out = _with_labels(task, rows)
    if task.fold:
        rounds, notes = _folds(task, rows)
    else:
        rows, rounds, notes = _splits(task, rows)
    notes = left_out + notes
    for part in () if task.transcribes else rounds:
        _refuse_labels(task, rows, part)
    return Dataset(task, tuple(rows), tuple(rounds), tuple(notes))


def read_rows(task: Task, data: Path) -> list[Row]:
    """The rows of the manifest, or of the folder in its official layout. Raises FileError."""
    if task.layout:
        from permgraph.evaluation.layouts import read_layout

        folder = data / task.folder
        found = read_layout(task.layout, folder)
        rows = [
            Row(f"{shown(folder)}, {values['path']}", folder / values["path"], values) for values in found
        ]
        columns: Sequence[str] = list(rows[0].values) if rows else []
        where = f"layout {task.layout}"
    else:
        where = shown(data / task.manifest)
        columns, rows = _read_manifest(data / task.manifest, task.path)
    for name in task.columns:
        if name not in columns:
            raise FileError(
                f"{where}: no column {name!r}, which the task {task.name} reads.{nearest(name, columns)} "
                f"It has: {', '.join(columns) or 'nothing'}."
            )
    return rows


def _read_manifest(path: Path, audio: str) -> tuple[list[str], list[Row]]:
    try:
        stream = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        columns, found = csv_rows(stream, shown(path), delimiter_of(path.name))
        rows = [Row(where, path.parent / values.get(audio, ""), dict(values)) for where, values in found]
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise FileError(f"{shown(path)}, line {line}: not UTF-8; save the manifest as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise FileError(f"{shown(path)}: cannot read: {reason(error)}.") from error
    return columns, rows


def _skipped(task: Task, row: Row) -> bool:
    return bool(task.split) and row.values[task.split] in task.skip


def _refuse_bad_rows(task: Task, rows: Sequence[Row]) -> None:
    """Refuse empty cells, blanks about them, files named twice and files that are not there."""
    seen: dict[str, Row] = {}
    for row in rows:
        if _skipped(task, row):
            continue
        for name in task.columns:
            value = row.values[name]
            if not value or value != value.strip():
                what = "is empty" if not value.strip() else f"has blanks about it: {value!r}"
                raise FileError(f"{row.where}: {name} {what}.")
        if not row.file.is_file():
            raise FileError(f"{row.where}: {shown(row.file)}: no such file.")
        real = str(row.file.resolve())
        if real in seen:
            raise FileError(f"{row.where}: {row.values[task.path]} stands in {seen[real].where} too.")
        seen[real] = row


def _refuse_two_spellings(task: Task, rows: Sequence[Row]) -> None:
    """Refuse 1 beside 1.0, which tools write into columns with gaps: two labels, folds or speakers where there is one."""
    texts = (task.path, task.split, task.label if task.transcribes else "")
    for name in (name for name in task.columns if name not in texts):
        first: dict[str, Row] = {}
        for row in (row for row in rows if not _skipped(task, row)):
            value = row.values[name]
            whole = re.fullmatch(r"(-?[0-9]+)\.0*", value)
            other = first.setdefault(whole[1] if whole else value, row)
            if (earlier := other.values[name]) != value:
                raise FileError(
                    f"{row.where}: {name} is {value!r}, and {earlier!r} in {other.where}: one number, written in two ways."
                )


def _with_labels(task: Task, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows whose label takes part. Raises FileError for a label that no row has."""
    if not task.only:
        return rows, []
    present = {row.values[task.label] for row in rows}
    for label in task.only:
        if label not in present:
            raise FileError(f"{task.name}: no clip has the {task.label} {label!r}.{nearest(label, present)}")
    kept = [row for row in rows if row.values[task.label] in task.only]
    return kept, [f"{clips(len(rows) - len(kept))} of other labels left out"] if len(kept) < len(rows) else []


def clips(count: int) -> str:
    return f"{count} clip{'s' if count != 1 else ''}"


def _splits(task: Task, rows: list[Row]) -> tuple[list[Row], list[Round], list[str]]:
    for row in rows:
        value = row.values[task.split]
        if value not in (*SPLITS, *task.skip):
            raise FileError(
                f"{row.where}: {task.split} is {value!r}, not {', '.join(SPLITS)}.{nearest(value, SPLITS)} "
                "A value whose rows take no part is named in the task's skip."
            )
    notes = []
    rows = [row for row in rows if row.values[task.split] not in task.skip]
    if task.unseen == "skip":
        known = {row.values[task.label] for row in rows if row.values[task.split] == "train"}
        kept = [row for row in rows if row.values[task.label] in known]
        if len(kept) < len(rows):
            notes.append(f"{clips(len(rows) - len(kept))} left out: train has no clip of the same label")
        rows = kept
    _refuse_shared(task, rows, [row.values[task.split] for row in rows])
    train, valid, test = ([i for i, r in enumerate(rows) if r.values[task.split] == s] for s in SPLITS)
    _refuse_empty(task, "", train, test)
    if not valid:
        train, valid = _hold_out(task, rows, train)
        chosen = f"{clips(len(valid))} of train {'choose' if len(valid) != 1 else 'chooses'} instead"
        notes.append(f"no valid clips: {chosen}")
    return rows, [Round("", tuple(train), tuple(valid), tuple(test))], notes


def _folds(task: Task, rows: list[Row]) -> tuple[list[Round], list[str]]:
    names = sorted({row.values[task.fold] for row in rows}, key=lambda n: (len(n), n))
    if len(names) < 2:
        raise FileError(
            f"{task.name}: {task.fold} has {len(names)} fold{'s' if not names else ''}; cross-validation needs two or more."
        )
    _refuse_shared(task, rows, [row.values[task.fold] for row in rows])
    rounds = []
    for name in names:
        test = [i for i, row in enumerate(rows) if row.values[task.fold] == name]
        train, valid = _hold_out(task, rows, [i for i, r in enumerate(rows) if r.values[task.fold] != name])
        _refuse_empty(task, f" of fold {name}", train, test)
        rounds.append(Round(name, tuple(train), tuple(valid), tuple(test)))
    return rounds, [f"{len(names)} folds; a fifth of each round's train chooses"]


def _hold_out(task: Task, rows: Sequence[Row], train: Sequence[int]) -> tuple[list[int], list[int]]:
    """Every fifth cluster of train; of fewer clusters, or labels that would be lost, every fifth clip of a label."""
    name = task.cluster or next(iter(task.disjoint), "")
    if name:
        clusters = sorted({rows[i].values[name] for i in train})
        held = set(clusters[EVERY - 1 :: EVERY])
        kept = [i for i in train if rows[i].values[name] not in held]
        if held and {_class(task, rows[i]) for i in kept} == {_class(task, rows[i]) for i in train}:
            return kept, [i for i in train if rows[i].values[name] in held]
    by_label: dict[str, list[int]] = {}
    for i in train:
        by_label.setdefault(_class(task, rows[i]), []).append(i)
    valid = sorted(i for same in by_label.values() for i in same[EVERY - 1 :: EVERY])
    if not valid:
        raise FileError(
            f"{task.name}: no valid clips, and {'no label has' if not task.transcribes else 'there are not'} {EVERY} clips in "
            "train from which one could be held out."
        )
    return [i for i in train if i not in set(valid)], valid


def _class(task: Task, row: Row) -> str:
    """Texts are of one class: no clip needs another with the same."""
    return "" if task.transcribes else row.values[task.label]


def _refuse_shared(task: Task, rows: Sequence[Row], parts: Sequence[str]) -> None:
    """Refuse a speaker (or whatever `disjoint` names) that is in two splits."""
    for name in task.disjoint:
        first: dict[str, tuple[str, Row]] = {}
        for row, part in zip(rows, parts, strict=True):
            other, earlier = first.setdefault(row.values[name], (part, row))
            if other != part:
                raise FileError(
                    f"{row.where}: {name} {row.values[name]} is in {part}, and in {other} in {earlier.where}. "
                    f"The task {task.name} needs every {name} in one split."
                )


def _refuse_empty(task: Task, which: str, train: Sequence[int], test: Sequence[int]) -> None:
    for name, part in (("train", train), ("test", test)):
        if not part:
            raise FileError(f"{task.name}: the split {name}{which} is empty.")


def _refuse_labels(task: Task, rows: Sequence[Row], part: Round) -> None:
    known = {rows[i].values[task.label] for i in part.train}
    where = f" (fold {part.fold})" if part.fold else ""
    if len(known) < 2:
        raise FileError(f"{task.name}{where}: train has one {task.label} only; there is nothing to predict.")
    for i in (*part.valid, *part.test):
        if (label := rows[i].values[task.label]) not in known:
            raise FileError(
                f"{rows[i].where}: {task.label} {label!r} is unknown: no clip of train has it{where}."
                f'{nearest(label, known)} With unseen = "skip" such clips are left out and counted.'
            )


def files_of(datasets: Iterable[Dataset]) -> list[Path]:
    """Every audio file of the data sets, once, in a fixed order."""
    return sorted(set(_files(datasets)))


def _files(datasets: Iterable[Dataset]) -> Iterator[Path]:
    for dataset in datasets:
        yield from (row.file for row in dataset.rows)
