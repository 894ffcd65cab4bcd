"""Confidence intervals by a bootstrap that draws clusters (speakers, recordings), pre-training runs and seeds.

Clips of one speaker are alike; drawing clips one by one would make intervals too narrow. For a difference both encoders
are judged on the same draw of clusters, and runs and seeds are drawn for each by itself: seeds within drawn runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import UsageError
from permgraph.evaluation.results import Prediction

FEWEST = 8  # clusters: of fewer, the quantiles of a bootstrap say nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """What is counted in every clip, (runs · seeds, clips): 1 where it is right, or its word errors; the run of every row;
    the cluster of every clip; what the count is out of: 1, or the words of its transcript; the clips.

    A rate is a sum of counts over the sum of sizes, never a mean of rates of clips.
    """

    values: Floats
    runs: tuple[str, ...]
    clusters: tuple[str, ...]
    sizes: tuple[int, ...]
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interval:
    """`unit` says what was drawn: "12 speakers", or clips, where there are too few clusters."""

    value: float
    low: float
    high: float
    unit: str


def interval(
    first: Counts,
    second: Counts | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    word: str = "",
) -> Interval:
    """Of the rate of `first` (accuracy, word error rate), or of first - second on the same clips. Percentiles of the resamples.

    With fewer than eight clusters clips are drawn, and the unit says so. `word` is what a cluster is called.
    """
    if second is not None and (second.clusters, second.sizes) != (first.clusters, first.sizes):
        raise UsageError("a paired bootstrap needs the same clips in the same order.")
    if first.values.shape[1] == 0:
        raise UsageError("no clips to draw from.")
    names, cluster = np.unique(np.array(first.clusters), return_inverse=True)
    clips = first.values.shape[1]
    unit = f"{len(names)} {word or 'cluster'}{'s' if len(names) > 1 else ''}"
    if len(names) == clips:
        unit = f"{clips} clips"
    elif len(names) < FEWEST:
        unit, cluster = f"{clips} clips of {unit}", np.arange(clips)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(cluster, weights=first.sizes)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    totals = drawn @ sizes
    values = [_draws(side, cluster, drawn, rng) / totals for side in (first, second) if side is not None]
    difference = values[0] - values[1] if len(values) == 2 else values[0]
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    value = _mean(first) - (_mean(second) if second is not None else 0.0)
    return Interval(value, float(low), float(high), unit)


def counts_of(predictions: Sequence[Prediction]) -> Counts:
    """The predictions of one encoder on one task as a table; clips in a fixed order."""
    items = sorted({(p.item, p.cluster or p.item, p.words or 1) for p in predictions})
    column = {item: k for k, (item, *_) in enumerate(items)}
    rows = sorted({(p.run, p.seed) for p in predictions}, key=lambda row: [(len(x), x) for x in row])
    values = np.full((len(rows), len(items)), np.nan)
    for p in predictions:
        values[rows.index((p.run, p.seed)), column[p.item]] = p.errors if p.words else p.correct
    assert np.isfinite(values).all()
    names, clusters, sizes = zip(*items, strict=True)
    return Counts(values, tuple(run for run, _ in rows), clusters, sizes, names)


def _mean(side: Counts) -> float:
    """The rate over clips; its mean over the seeds of each run, then over runs."""
    return float(_weights(side.runs).mean(axis=0) @ (side.values.sum(axis=1) / sum(side.sizes)))


def _weights(runs: Sequence[str]) -> Floats:
    """(runs, rows): one over the number of seeds where a row is of the run."""
    names = sorted(set(runs))
    member = np.array([[run == name for run in runs] for name in names], dtype=np.float64)
    return np.asarray(member / member.sum(axis=1, keepdims=True))


def _draws(
    side: Counts, cluster: NDArray[np.intp], drawn: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """The count in every resample, (resamples,), averaged over drawn runs and seeds."""
    sums = np.stack([np.bincount(cluster, weights=row) for row in side.values])  # (rows, clusters)
    names = sorted(set(side.runs))
    members = [[i for i, run in enumerate(side.runs) if run == name] for name in names]
    weight = np.zeros((len(drawn), len(side.runs)))
    at = np.arange(len(drawn))
    for _ in names:
        chosen = rng.integers(len(names), size=len(drawn))
        for number, rows in enumerate(members):
            here = at[chosen == number]
            for _ in rows:
                np.add.at(weight, (here, rng.choice(rows, size=len(here))), 1 / (len(rows) * len(names)))
    return np.asarray(((weight @ sums) * drawn).sum(axis=1))
