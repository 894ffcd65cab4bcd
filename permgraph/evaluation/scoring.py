"""Score a table: Eq. 6 per domain, and which differences between encoders are more than chance.

Eq. 6 is the score of ML-SUPERB (https://arxiv.org/abs/2305.10615): 1000 times the mean over tasks of
(s - s_FBANK) / (s_best - s_FBANK). Here s_best is the best parent's. Log-mel is 0 and the best parent of every task
1000. Where the best parent is not above log-mel the fraction means nothing, and the task is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from permgraph.errors import FileError, UsageError, nearest
from permgraph.evaluation.bootstrap import Interval, counts_of, interval
from permgraph.evaluation.results import Prediction, between
from permgraph.evaluation.significance import McNemar, combine_seeds, holm, mcnemar_over_folds
from permgraph.evaluation.subjects import listed
from permgraph.evaluation.summary import is_above
from permgraph.evaluation.tables import Table, load_table
from permgraph.ir.notebook import html_table
from permgraph.reporting.columns import paragraphs, table

BASELINES = ("log-mel", "logmel", "fbank")
ALL = "all"


@dataclass(frozen=True)
class Comparison:
    """first - second on one task: the difference with its interval, McNemar's test, and Holm's p over the table.

    With several runs or seeds the counts are means over the pairs tested. The test is of clips that are right or wrong: of a
    word error rate there is none, and its four fields are None.
    """

    task: str
    first: str
    second: str
    difference: Interval
    only_first: float | None
    only_second: float | None
    p: float | None
    holm: float | None


@dataclass(frozen=True, repr=False)
class Scores:
    """scores: (encoder, domain or "all") → Eq. 6; `counted`: the tasks of each; `refused`: task → why it has none."""

    scores: Mapping[tuple[str, str], float]
    counted: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        counts = f"scores: {len(self.scores)}, refused tasks: {len(self.refused)}, comparisons: {len(self.comparisons)}"
        return f"Scores({counts})"

    def _repr_html_(self) -> str:
        if not self.scores:
            rows = [(c.task, *_cells(c)) for c in self.comparisons]
            return html_table(repr(self), ("task", *_HEAD), rows, len(rows))
        domains, encoders = list(self.counted), list(dict.fromkeys(e for e, _ in self.scores))
        found = [
            (e, *(f"{self.scores[e, d]:.0f}" if (e, d) in self.scores else "" for d in domains))
            for e in encoders
        ]
        return html_table(repr(self), ("encoder", *domains), found, len(found))

    def text(self) -> str:
        """The tables, for a terminal or a file."""
        domains = list(self.counted)
        parts = []
        if domains:
            head = ("encoder", *(f"{d} ({len(self.counted[d])})" for d in domains))
            rows = [
                (e, *(f"{self.scores[e, d]:.0f}" if (e, d) in self.scores else "-" for d in domains))
                for e in dict.fromkeys(encoder for encoder, _ in self.scores)
            ]
            lines = table([head, *rows], right=range(1, len(head)))
            parts.append("\n".join(["Score (Eq. 6), by domain (tasks):", *lines]))
        if self.refused:
            parts.append(
                "\n".join(paragraphs(f"{task} has no score: {why}." for task, why in self.refused.items()))
            )
        for task in dict.fromkeys(c.task for c in self.comparisons):
            mine = [c for c in self.comparisons if c.task == task]
            lines = table([_HEAD, *map(_cells, mine)], right=range(1, len(_HEAD)))
            parts.append("\n".join([f"{task}, drawn: {mine[0].difference.unit}", *lines]))
        if self.notes:
            parts.append("\n".join(paragraphs(self.notes)))
        return "\n\n".join(parts)


_HEAD = ("first - second", "difference", "95 % interval", "only 1st", "2nd", "p", "p (Holm)")


def _cells(c: Comparison) -> tuple[str, ...]:
    d = c.difference
    shown = ((c.only_first, "g"), (c.only_second, "g"), (c.p, ".2g"), (c.holm, ".2g"))
    test = ("-" if value is None else format(value, form) for value, form in shown)
    return (f"{c.first} - {c.second}", f"{d.value:+.3f}", between(d.low, d.high), *test)


def score(
    results: str | Path | Table,
    parents: Sequence[str] = (),
    baseline: Sequence[str] = (),
    lower: Sequence[str] = (),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Scores:
    """Score a table of results. See `permgraph.score`."""
    known = results if isinstance(results, Table) else load_table(results)
    floors = floors_of(known, baseline)
    chosen = named(parents, known.encoders, "--parents")
    errors = {*named(lower, known.tasks, "--lower"), *known.lower}
    if both := set(floors) & set(chosen):
        raise UsageError(f"{both.pop()} cannot be a parent and the baseline.")
    others = [name for name in known.encoders if name not in floors]
    notes = [] if chosen else ["No parents were named: the best encoder of each task stands for them."]
    notes += [f"Less is better: {', '.join(sorted(errors))}."] if errors else []
    if not others:
        raise UsageError("the table holds the baseline alone.")
    word = "parent" if chosen else "encoder"
    scale, refused = _scales(known, chosen or others, floors, errors, word)
    scores, counted, lacking = _scores(known, others, scale)
    comparisons = _compare(known, others, chosen, floors, errors, resamples, seed) if known.clips else ()
    if untested := sorted({c.task for c in comparisons if c.p is None}):
        notes.append(
            f"McNemar's test is of clips that are right or wrong: of {', '.join(untested)}, a word error rate, the intervals tell. "
            "A difference below 0 is for the first."
        )
    for name, tasks in _untested(known, others).items():
        notes.append(f"No test of {name} on {', '.join(tasks)}: predictions.csv has no clips of it.")
    if not known.clips:
        notes.append("A table of numbers has no significance: that needs predictions.csv, a row per clip.")
    return Scores(scores, counted, refused, tuple(comparisons), (*notes, *lacking))


def is_baseline(name: str) -> bool:
    """Whether a row is a log-mel baseline, by its name."""
    return name.lower().startswith(BASELINES)


def floors_of(table: Table, baseline: Sequence[str] = ()) -> list[str]:
    """The rows that are the baseline: those named, else those whose name says so. Raises UsageError."""
    chosen = named(baseline, table.encoders, "--baseline")
    return chosen or [name for name in table.encoders if is_baseline(name)]


def named(names: Sequence[str], known: Sequence[str], option: str) -> list[str]:
    """Names that the table has, each once. Raises UsageError."""
    names = listed(names)
    for name in names:
        if name not in known:
            raise UsageError(
                f"{option} {name}: not in the table.{nearest(name, known)} It has: {', '.join(known)}."
            )
    return list(dict.fromkeys(names))


def _untested(table: Table, encoders: Sequence[str]) -> dict[str, list[str]]:
    """Encoder → tasks of which a table with clips has its number alone."""
    judged = {(p.encoder, p.task) for p in table.clips}
    found: dict[str, list[str]] = {}
    for name, task in table.values if judged else ():
        if name in encoders and (name, task) not in judged:
            found.setdefault(name, []).append(task)
    return found


def _scales(
    table: Table, best_of: Sequence[str], floors: Sequence[str], errors: set[str], word: str
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Task → (baseline, best parent); and the tasks without a scale, with the reason.

    Of several baselines the strongest counts.
    """
    if not floors:
        raise FileError(
            f"Eq. 6 needs the log-mel baseline, and no row is named {' or '.join(BASELINES)}. Name it: --baseline ROW. "
            f"The table has: {', '.join(table.encoders)}."
        )
    scale, refused = {}, {}
    for task in table.tasks:
        sign = -1 if task in errors else 1
        low = [table.values[name, task] for name in floors if (name, task) in table.values]
        high = [table.values[name, task] for name in best_of if (name, task) in table.values]
        if not low or len(high) < len(best_of):
            missing = [n for n in (*(floors if not low else ()), *best_of) if (n, task) not in table.values]
            refused[task] = f"the table lacks it for {', '.join(missing)}"
            continue
        floor, best = max(low, key=lambda v: sign * v), max(high, key=lambda v: sign * v)
        if not is_above(sign * (best - floor)):
            beyond = " by more than rounding" if sign * (best - floor) > 0 else ""
            side = "below" if task in errors else "above"
            refused[task] = (
                f"the best {word} ({best:g}) is not {side} the log-mel baseline ({floor:g}){beyond}"
            )
            continue
        scale[task] = floor, best
    return scale, refused


def _scores(
    table: Table, encoders: Sequence[str], scale: Mapping[str, tuple[float, float]]
) -> tuple[dict[tuple[str, str], float], dict[str, tuple[str, ...]], list[str]]:
    """Eq. 6 per encoder and domain, the tasks of each domain, and notes on encoders that lack a task."""
    domains = [d for d in dict.fromkeys(table.domains[task] for task in scale) if d]
    counted = {d: tuple(t for t in scale if table.domains[t] == d) for d in domains}
    if scale:
        counted[ALL] = tuple(scale)
    if len(domains) == 1 and counted[domains[0]] == counted[ALL]:
        del counted[domains[0]]
    found: dict[tuple[str, str], float] = {}
    notes = []
    for encoder in encoders:
        for domain, tasks in counted.items():
            missing = [t for t in tasks if (encoder, t) not in table.values]
            if missing:
                notes.append(f"{encoder} has no score for {domain}: the table lacks {', '.join(missing)}.")
                continue
            shares = [
                (table.values[encoder, task] - scale[task][0]) / (scale[task][1] - scale[task][0])
                for task in tasks
            ]
            found[encoder, domain] = 1000 * sum(shares) / len(shares)
    return found, counted, notes


def _compare(
    table: Table,
    others: Sequence[str],
    parents: Sequence[str],
    floors: Sequence[str],
    errors: set[str],
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Every encoder with every parent, and with the strongest baseline of the task."""
    found = []
    for task in table.tasks:
        of = {e: [p for p in table.clips if p.task == task and p.encoder == e] for e in table.encoders}
        pairs = [(e, p) for e in others if e not in parents for p in parents]
        best = min if task in errors else max
        strongest = best((f for f in floors if of[f]), key=lambda f: table.values[f, task], default=None)
        pairs += [(e, strongest) for e in others if strongest is not None]
        for first, second in pairs:
            if of[first] and of[second]:
                spread = interval(counts_of(of[first]), counts_of(of[second]), resamples=resamples, seed=seed)
                only_first, only_second, p = _tested(of[first], of[second])
                found.append(Comparison(task, first, second, spread, only_first, only_second, p, None))
    adjusted = iter(holm([c.p for c in found if c.p is not None]))
    return [c if c.p is None else replace(c, holm=next(adjusted)) for c in found]


def _tested(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Mean discordant counts and one p: probes of one run and seed with each other, or every pair of probes. Of texts none:
    one wrong word would count as much as ten."""
    if first[0].words:
        return None, None, None
    a, b = _probes(first), _probes(second)
    keys = [(k, k) for k in a] if a.keys() == b.keys() else list(product(a, b))
    tests: list[McNemar] = [_mcnemar(a[x], b[y]) for x, y in keys]
    only_first, only_second = np.mean([(t.first, t.second) for t in tests], axis=0)
    return float(only_first), float(only_second), combine_seeds([t.p for t in tests])


def _probes(rows: Sequence[Prediction]) -> dict[tuple[str, str], dict[str, dict[str, int]]]:
    """(run, seed) → fold → clip → right or wrong."""
    found: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    for p in rows:
        found.setdefault((p.run, p.seed), {}).setdefault(p.fold, {})[p.item] = p.correct
    return found


def _mcnemar(a: Mapping[str, Mapping[str, int]], b: Mapping[str, Mapping[str, int]]) -> McNemar:
    if {fold: set(items) for fold, items in a.items()} != {fold: set(items) for fold, items in b.items()}:
        raise FileError("two encoders have the same clips in other folds: their tests cannot be added up.")
    folds = []
    for fold, items in a.items():
        order = sorted(items)
        folds.append(tuple(np.array([side[fold][i] for i in order], dtype=bool) for side in (a, b)))
    return mcnemar_over_folds((x, y) for x, y in folds)
