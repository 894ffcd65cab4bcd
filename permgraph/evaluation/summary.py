"""From predictions to one number per encoder and task, beside chance and the strongest log-mel baseline."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.bootstrap import counts_of, interval
from permgraph.evaluation.dataset import Dataset
from permgraph.evaluation.logmel import NAME
from permgraph.evaluation.results import Prediction, Result
from permgraph.evaluation.task import sign

# tasks.csv has three digits: 0.328 and 21 of 64 are the same, and 0.562 and 9 of 16, half a digit away in float64
ROUNDING = 0.0005 + 1e-9


def is_above(difference: float, margin: float = 0.0) -> bool:
    """Whether an encoder is above a baseline: by more than a margin and what rounding may have taken from the baseline."""
    return difference > margin + ROUNDING


def results_of(
    dataset: Dataset, data: Path, predictions: Sequence[Prediction], choices: Mapping[tuple[str, str], str]
) -> list[Result]:
    task = dataset.task
    chance = _chance(dataset)
    rows = []
    for name in dict.fromkeys(p.encoder for p in predictions if p.task == task.name):
        mine = [p for p in predictions if p.task == task.name and p.encoder == name]
        counts = counts_of(mine)
        between = interval(counts, word=task.cluster)
        rows.append(
            Result(
                task.name,
                task.domain,
                name,
                mine[0].head,
                task.metric,
                between.value,
                between.low,
                between.high,
                between.unit,
                len(counts.clusters),
                chance,
                choice=choices[task.name, name],
            )
        )
    if (quoted := quoted_baseline(dataset, data)) is not None:
        nan = float("nan")
        rows.append(
            Result(
                task.name,
                task.domain,
                f"{NAME} (tasks.csv)",
                "quoted",
                task.metric,
                quoted,
                nan,
                nan,
                "",
                0,
                chance,
            )
        )
    better = sign(task.metric)
    strongest = max(better * row.value for row in rows if row.encoder.startswith(NAME))
    return [
        row
        if row.encoder.startswith(NAME)
        else replace(row, gate="above" if is_above(better * row.value - strongest, task.gate) else "below")
        for row in sorted(rows, key=lambda row: not row.encoder.startswith(NAME))
    ]


def _chance(dataset: Dataset) -> float:
    """Accuracy of the commonest label of train, over all rounds; the word error rate of empty texts."""
    if dataset.task.transcribes:
        return 1.0
    labels = dataset.labels()
    right = total = 0
    for part in dataset.rounds:
        (common, _), *_ = Counter(sorted(labels[i] for i in part.train)).most_common(1)
        right += sum(labels[i] == common for i in part.test)
        total += len(part.test)
    return right / total


def quoted_baseline(dataset: Dataset, data: Path) -> float | None:
    """The log-mel accuracy that tasks.csv in the data folder states of exactly these clips and labels, when it does.
    Raises FileError."""
    path, task = data / "tasks.csv", dataset.task
    # a word error rate is no accuracy
    if not path.is_file() or not task.split or task.only or task.transcribes:
        return None
    with open(path, newline="", encoding="utf-8-sig") as stream:
        for row in csv.DictReader(stream):
            if _is_of(dataset, row):
                try:
                    value = float(row["logmel_lr_test_acc"])
                except (KeyError, ValueError, TypeError) as error:
                    raise FileError(f"{path}: no logmel_lr_test_acc for {task.name}: {error!r}.") from error
                if not 0 <= value <= 1:
                    raise FileError(
                        f"{path}: logmel_lr_test_acc {value:g} of {task.name} is not between 0 and 1."
                    )
                return value
    return None


def _is_of(dataset: Dataset, row: Mapping[str, str | None]) -> bool:
    """Whether a row of tasks.csv is of this task: of DATASET/manifest.csv, by its columns and metric.

    A task that skips clips of labels that train lacks has other clips, unless the row counts the same labels.
    """
    task = dataset.task
    manifest = Path(row.get("dataset") or "") / "manifest.csv"
    metric = (row.get("metric") or "accuracy").strip().lower()  # as the number's column says
    of = (manifest, row.get("label_column"), row.get("split_column"), metric)
    if of != (Path(task.manifest), task.label, task.split, task.metric):
        return False
    return task.unseen != "skip" or row.get("classes") == str(len(set(dataset.labels())))


def notes_of(dataset: Dataset, results: Sequence[Result]) -> list[str]:
    task = dataset.task
    below = [r.encoder for r in results if r.task == task.name and r.gate == "below"]
    gate = [f"the strongest log-mel baseline is not beaten by {', '.join(below)}"] if below else []
    return [*dataset.notes, *([task.note.rstrip(".")] if task.note else []), *gate]
