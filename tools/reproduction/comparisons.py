"""Means over the tasks of a domain, and differences between two rows of a table, with intervals and tests.

A bootstrap draws clusters (speakers, recordings) and pre-training runs. Tasks on the same recordings share the draw, and
so do rows that are made of the same runs: run 1 of a merge is a merge of run 1 of the parents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from permgraph.evaluation.bootstrap import FEWEST, Counts, Floats, Interval, counts_of
from permgraph.evaluation.results import Prediction
from permgraph.evaluation.significance import combine_seeds, mcnemar_over_folds

RESAMPLES = 2000

Table = Mapping[str, Counts]  # task → the counts of one row


@dataclass(frozen=True)
class Judged:
    """Predictions by row and task. `source`: task → the manifest whose recordings it judges."""

    counts: Mapping[str, Table]
    source: Mapping[str, str]

    @staticmethod
    def of(predictions: Sequence[Prediction], source: Mapping[str, str]) -> Judged:
        parts: dict[str, dict[str, list[Prediction]]] = {}
        for p in predictions:
            parts.setdefault(p.encoder, {}).setdefault(p.task, []).append(p)
        counts = {row: {task: counts_of(found) for task, found in of.items()} for row, of in parts.items()}
        return Judged(counts, source)

    def mean(self, row: str, tasks: Sequence[str]) -> Interval:
        """Of the accuracy over tasks."""
        return self._interval({task: self.counts[row][task].values for task in tasks}, row, tasks)

    def difference(self, first: str, second: str, tasks: Sequence[str]) -> Interval:
        """Of the means over tasks, first - second, on the runs that both have."""
        one, other = self.counts[first], self.counts[second]
        values = {}
        for task in tasks:
            runs = min(len(one[task].values), len(other[task].values))
            values[task] = one[task].values[:runs] - other[task].values[:runs]
        return self._interval(values, first, tasks)

    def p(self, first: str, second: str, tasks: Sequence[str]) -> float:
        """McNemar's test of the clips of all tasks together, its runs combined by Rüger's rule.

        A clip that several tasks judge counts once, for the row that is right in more of them.
        """
        one, other = self.counts[first], self.counts[second]
        runs = min(len(side[task].values) for side in (one, other) for task in tasks)
        tests = []
        for run in range(runs):
            gains: Counter[tuple[str, str]] = Counter()
            for task in tasks:
                gain = one[task].values[run] - other[task].values[run]
                for item, value in zip(one[task].items, gain, strict=True):
                    gains[self.source[task], item] += round(value)
            total = np.array(list(gains.values()))
            tests.append(mcnemar_over_folds([(total > 0, total < 0)]).p)
        return combine_seeds(tests)

    def _interval(self, values: Mapping[str, Floats], row: str, tasks: Sequence[str]) -> Interval:
        """values: task → (runs, clips), in the clusters of the row."""
        rng = np.random.default_rng(0)
        runs = min(len(values[task]) for task in tasks)
        drawn_runs = rng.multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES) / runs
        total, point = np.zeros(RESAMPLES), 0.0
        for source in dict.fromkeys(self.source[task] for task in tasks):
            here = [task for task in tasks if self.source[task] == source]
            names = {task: _clusters(self.counts[row][task]) for task in here}
            every = sorted({name for of in names.values() for name in of})
            column = {name: k for k, name in enumerate(every)}
            drawn = rng.multinomial(len(every), np.full(len(every), 1 / len(every)), size=RESAMPLES)
            for task in here:
                at = np.array([column[name] for name in names[task]])
                sums = np.stack(
                    [np.bincount(at, weights=v, minlength=len(every)) for v in values[task][:runs]]
                )
                sizes = np.maximum(drawn @ np.bincount(at, minlength=len(every)), 1)
                total += ((drawn_runs @ sums) * drawn).sum(axis=1) / sizes
                point += float(values[task][:runs].mean())
        low, high = np.quantile(total / len(tasks), [0.025, 0.975])
        return Interval(point / len(tasks), float(low), float(high), f"{runs} runs")


def _clusters(counts: Counts) -> list[str]:
    """A name for every clip; the clip's own where clusters are too few to draw from."""
    if len({*counts.clusters}) >= FEWEST:
        return list(counts.clusters)
    return [f"{cluster} {k}" for k, cluster in enumerate(counts.clusters)]
