"""Tables of results as `score` takes them: one number per encoder and task, or one row per clip.

clips   task, encoder, item, correct (0 or 1); run, seed, fold, cluster, domain where there are any; errors and words
        where a transcript is judged: the task's number is its word error rate
long    task, encoder, value; domain, metric where there are any
wide    the encoder's name first, then a column of numbers per task; an empty cell is a task that was not run
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.names import domain_of, less_is_better
from permgraph.evaluation.results import PREDICTIONS, RESULTS, Prediction, read_table

CLIPS = ("task", "encoder", "item", "correct")
LONG = ("task", "encoder", "value")
_NAMES = ("task", "encoder", "domain", "metric")  # of which blanks about them are no part

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
    columns, rows = _without_blanks(path, *read_table(path))
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


def _without_blanks(path: Path, columns: Sequence[str], rows: Rows) -> tuple[list[str], Rows]:
    """Names without blanks about them, which would make another encoder or task. Texts of clips keep theirs."""
    names = {column: column.strip() for column in columns}
    if len(set(names.values())) < len(names):
        raise FileError(f"{path}: a column is named twice, but for blanks: {', '.join(names.values())}.")
    clean = [
        (where, {names[k]: v.strip() if names[k] in _NAMES else v for k, v in row.items()})
        for where, row in rows
    ]
    return list(names.values()), clean


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
        _refuse_contradiction(p, where, told="predicted" in row)
        key = (p.task, p.encoder, p.run, p.seed, p.item)
        if key in seen:
            raise FileError(
                f"{where}: {p.encoder} is judged on {p.item} in {seen[key]} too: a clip is tested once per run and seed."
            )
        seen[key] = where
        found.append(p)
    return _same_clips(found)


def _refuse_contradiction(p: Prediction, where: str, told: bool) -> None:
    """Refuse a row that says two things of its clip; `told`: there is a column of what was predicted."""
    if p.errors and not p.words:
        raise FileError(f"{where}: {p.errors} errors of no words.")
    if p.errors and p.correct:
        raise FileError(f"{where}: correct is 1, with {p.errors} errors.")
    if told and p.label and (p.label == p.predicted) != bool(p.correct):
        raise FileError(
            f"{where}: correct is {p.correct}, but label is {p.label!r} and predicted is {p.predicted!r}."
        )


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
    metrics: dict[str, str] = {}
    for where, row in rows:
        if not (row["encoder"] and row["task"]):
            raise FileError(f"{where}: encoder or task is empty.")
        metric = row.get("metric", "")
        other = metrics.setdefault(row["task"], metric) if metric else ""
        if other.lower() != metric.lower():
            raise FileError(f"{where}: {row['task']} has two metrics, {other} and {metric}.")
        run, seed = row.get("run", ""), row.get("seed", "")
        seeds = values.setdefault((row["encoder"], row["task"]), {}).setdefault(run, {})
        if seed in seeds:
            raise FileError(
                f"{where}: {row['encoder']} on {row['task']} is here twice, with the same run and seed."
            )
        seeds[seed] = _number(row["value"], where, "value")
        domain = row.get("domain") or domain_of(row["task"])
        if domains.setdefault(row["task"], domain) != domain:
            raise FileError(f"{where}: {row['task']} has two domains, {domains[row['task']]} and {domain}.")
    means = {
        key: _mean([_mean(list(seeds.values())) for seeds in runs.values()]) for key, runs in values.items()
    }
    lower = frozenset(task for task in domains if less_is_better(task, metrics.get(task, "")))
    return Table(means, domains, lower)


def _with_clips(table: Table, path: Path) -> Table:
    """The predictions that `evaluate` wrote beside its results. Raises FileError when they are of other results."""
    beside = path.parent / PREDICTIONS
    if path.name != RESULTS or not beside.is_file():
        return table
    of_clips = load_table(beside)
    for key, value in of_clips.values.items():
        if key not in table.values or abs(table.values[key] - value) > 1e-9:
            raise FileError(f"{beside}: {' on '.join(key)} is not as in {path}: they are of two evaluations.")
    lower = of_clips.lower | (table.lower - set(of_clips.tasks))  # what a clip counts, its rows say
    return replace(table, lower=lower, clips=of_clips.clips)


def _wide(columns: Sequence[str], rows: Rows) -> Table:
    name, *tasks = columns
    values: dict[tuple[str, str], float] = {}
    seen = set()
    for where, row in rows:
        encoder = row[name].strip()
        if not encoder or encoder in seen:
            raise FileError(
                f"{where}: {encoder or 'the first column'} is {'here twice' if encoder else 'empty'}."
            )
        seen.add(encoder)
        for task in tasks:
            if row[task].strip():
                values[encoder, task] = _number(row[task], where, task)
    lower = frozenset(task for task in tasks if less_is_better(task))
    return Table(values, {task: domain_of(task) for task in tasks}, lower)


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise FileError(f"{where}: {column} is {text!r}, not a number.")
    return value
