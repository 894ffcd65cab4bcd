"""Tables of results as `score` takes them: one number per encoder and task, or one row per clip.

clips   task, encoder, item, correct (0 or 1); run, seed, fold, cluster, domain where there are any; errors and words
        where a transcript is judged: the task's number is its word error rate
long    task, encoder, value; domain, metric where there are any
wide    the encoder's name first, then a column of numbers per task; an empty cell is a task that was not run
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.results import PREDICTIONS, RESULTS, Prediction, read_table
from permgraph.evaluation.task import Task, load_task, task_names

CLIPS = ("task", "encoder", "item", "correct")
LONG = ("task", "encoder", "value")
_ERROR = re.compile(r"(?<![a-z])(wer|cer|per|eer|der|error)(?![a-z])|↓", re.I)

Rows = Sequence[tuple[str, Mapping[str, str]]]


@dataclass(frozen=True)
class Table:
    """values: (encoder, task) → number; domains: task → domain, "" where none is known; `lower`: tasks whose metric
    is an error; `clips`: the predictions, of a table of clips."""

    values: Mapping[tuple[str, str], float]
    domains: Mapping[str, str]
    lower: frozenset[str]
    clips: tuple[Prediction, ...] = ()

    @property
    def encoders(self) -> list[str]:
        return list(dict.fromkeys(encoder for encoder, _ in self.values))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for _, task in self.values))


def load_table(path: str | Path) -> Table:
    """Read a table of any of the three kinds. Raises FileError, which names the row."""
    path = Path(path)
    columns, rows = read_table(path)
    if set(CLIPS) <= set(columns):
        return table_of_clips(_clips(rows))
    if set(LONG) <= set(columns):
        return _with_clips(_long(rows), path)
    if {"item", "correct"} & set(columns) or len(columns) < 2:
        raise FileError(
            f"{path}: a table has the columns {', '.join(CLIPS)}; or {', '.join(LONG)}; or the encoder first and a "
            f"column of numbers per task. This one has: {', '.join(columns)}."
        )
    return _wide(columns, rows)


def table_of_clips(clips: Sequence[Prediction]) -> Table:
    """Accuracy or word error rate per encoder and task: over clips, then the seeds of a run, then runs."""
    probes: dict[tuple[str, str], dict[str, dict[str, list[Prediction]]]] = {}
    for p in clips:
        runs = probes.setdefault((p.encoder, p.task), {})
        runs.setdefault(p.run, {}).setdefault(p.seed, []).append(p)
    values = {
        key: _mean([_mean([_rate(x) for x in seeds.values()]) for seeds in runs.values()])
        for key, runs in probes.items()
    }
    lower = frozenset(p.task for p in clips if p.words)
    return Table(values, {p.task: p.domain for p in clips}, lower, tuple(clips))


def _rate(clips: Sequence[Prediction]) -> float:
    """The share of clips that are right; of transcripts, wrong words over words."""
    if words := sum(p.words for p in clips):
        return sum(p.errors for p in clips) / words
    return sum(p.correct for p in clips) / len(clips)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _clips(rows: Rows) -> list[Prediction]:
    found: list[Prediction] = []
    seen: dict[tuple[str, ...], str] = {}
    for where, row in rows:
        if row["correct"] not in ("0", "1"):
            raise FileError(f"{where}: correct is {row['correct']!r}, not 0 or 1.")
        for name in ("task", "encoder", "item"):
            if not row[name]:
                raise FileError(f"{where}: {name} is empty.")
        text = {
            name: row.get(name, "")
            for name in ("domain", "run", "seed", "head", "fold", "cluster", "label", "predicted")
        }
        p = Prediction(
            task=row["task"],
            encoder=row["encoder"],
            item=row["item"],
            correct=int(row["correct"]),
            errors=_count(row, "errors", where),
            words=_count(row, "words", where),
            **text,
        )
        if p.errors and not p.words:
            raise FileError(f"{where}: {p.errors} errors of no words.")
        key = (p.task, p.encoder, p.run, p.seed, p.item)
        if key in seen:
            raise FileError(
                f"{where}: {p.encoder} is judged on {p.item} in {seen[key]} too: a clip is tested once per run and seed."
            )
        seen[key] = where
        found.append(p)
    return _same_clips(found)


def _count(row: Mapping[str, str], column: str, where: str) -> int:
    text = row.get(column, "") or "0"
    if not (text.isdecimal() and len(text) < 10):
        raise FileError(f"{where}: {column} is {text!r}, not a number of words.")
    return int(text)


def _same_clips(clips: list[Prediction]) -> list[Prediction]:
    """Refuse encoders that were judged on different clips of a task, and a clip in two clusters or domains or with two
    transcripts."""
    items: dict[str, dict[tuple[str, str, str], set[str]]] = {}
    fixed: dict[tuple[str, str], tuple[str, str]] = {}
    words: dict[tuple[str, str], int] = {}
    judged: dict[str, bool] = {}
    for p in clips:
        if words.setdefault((p.task, p.item), p.words) != p.words:
            raise FileError(f"{p.task}: the clip {p.item} has two numbers of words.")
        if judged.setdefault(p.task, p.words > 0) != (p.words > 0):
            raise FileError(f"{p.task}: some clips have a number of words, others none: {p.item}.")
        items.setdefault(p.task, {}).setdefault((p.encoder, p.run, p.seed), set()).add(p.item)
        if fixed.setdefault((p.task, p.item), (p.cluster, p.domain)) != (p.cluster, p.domain):
            raise FileError(f"{p.task}: the clip {p.item} has two clusters or domains.")
    for task, probes in items.items():
        (first, expected), *rest = probes.items()
        for probe, found in rest:
            if found != expected:
                item = min(found ^ expected)
                raise FileError(
                    f"{task}: {probe[0]} and {first[0]} were not judged on the same clips (run {probe[1] or '-'}, seed "
                    f"{probe[2] or '-'}): {item} is in one only."
                )
    return clips


def _long(rows: Rows) -> Table:
    values: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    domains: dict[str, str] = {}
    lower = set()
    for where, row in rows:
        if not (row["encoder"] and row["task"]):
            raise FileError(f"{where}: encoder or task is empty.")
        run, seed = row.get("run", ""), row.get("seed", "")
        seeds = values.setdefault((row["encoder"], row["task"]), {}).setdefault(run, {})
        if seed in seeds:
            raise FileError(
                f"{where}: {row['encoder']} on {row['task']} is here twice, with the same run and seed."
            )
        seeds[seed] = _number(row["value"], where, "value")
        domain = row.get("domain") or _domain(row["task"])
        if domains.setdefault(row["task"], domain) != domain:
            raise FileError(f"{where}: {row['task']} has two domains, {domains[row['task']]} and {domain}.")
        if _is_error(row["task"], row.get("metric", "")):
            lower.add(row["task"])
    means = {
        key: _mean([_mean(list(seeds.values())) for seeds in runs.values()]) for key, runs in values.items()
    }
    return Table(means, domains, frozenset(lower))


def _with_clips(table: Table, path: Path) -> Table:
    """The predictions that `evaluate` wrote beside its results. Raises FileError when they are of other results."""
    beside = path.parent / PREDICTIONS
    if path.name != RESULTS or not beside.is_file():
        return table
    of_clips = load_table(beside)
    for key, value in of_clips.values.items():
        if key not in table.values or abs(table.values[key] - value) > 1e-9:
            raise FileError(f"{beside}: {' on '.join(key)} is not as in {path}: they are of two evaluations.")
    return replace(table, clips=of_clips.clips)


def _wide(columns: Sequence[str], rows: Rows) -> Table:
    name, *tasks = columns
    values: dict[tuple[str, str], float] = {}
    seen = set()
    for where, row in rows:
        if not row[name] or row[name] in seen:
            raise FileError(
                f"{where}: {row[name] or 'the first column'} is {'here twice' if row[name] else 'empty'}."
            )
        seen.add(row[name])
        for task in tasks:
            if row[task].strip():
                values[row[name], task] = _number(row[task], where, task)
    lower = frozenset(task for task in tasks if _is_error(task, ""))
    return Table(values, {task: _domain(task) for task in tasks}, lower)


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise FileError(f"{where}: {column} is {text!r}, not a number.")
    return value


def _known(task: str) -> Task | None:
    """The task of specs/tasks that a column is named after: "ASR", "ESC-50 (acc)"."""
    name = re.split(r"[ (/↓↑]", task.strip().lower())[0]
    return load_task(name) if name in task_names() else None


def _domain(task: str) -> str:
    known = _known(task)
    return known.domain if known else ""


def _is_error(task: str, metric: str) -> bool:
    """Whether less is better: by the metric, by the task's name (WER, EER, ↓), or as specs/tasks says."""
    if "↑" in task:
        return False
    known = None if metric else _known(task)
    return any(_ERROR.search(text) for text in (task, metric, known.metric if known else ""))
