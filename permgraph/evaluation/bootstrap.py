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
class Right:
    """Which clips an encoder got right: (runs · seeds, clips), the run of every row, the cluster of every clip."""

    values: Floats
    runs: tuple[str, ...]
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """`unit` says what was drawn: "12 speakers", or clips, where there are too few clusters."""

    value: float
    low: float
    high: float
    unit: str


def interval(
    first: Right,
    second: Right | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    word: str = "",
) -> Interval:
    """Of the accuracy of `first`, or of first - second on the same clips. Percentiles of the resamples.

    With fewer than eight clusters clips are drawn, and the unit says so. `word` is what a cluster is called.
    """
    if second is not None and second.clusters != first.clusters:
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
    sizes = np.bincount(cluster)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    totals = drawn @ sizes
    values = [_draws(side, cluster, drawn, rng) / totals for side in (first, second) if side is not None]
    difference = values[0] - values[1] if len(values) == 2 else values[0]
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    value = _mean(first) - (_mean(second) if second is not None else 0.0)
    return Interval(value, float(low), float(high), unit)


def right_of(predictions: Sequence[Prediction]) -> Right:
    """The predictions of one encoder on one task as a table of right and wrong; clips in a fixed order."""
    items = sorted({(p.item, p.cluster or p.item) for p in predictions})
    column = {item: k for k, (item, _) in enumerate(items)}
    rows = sorted({(p.run, p.seed) for p in predictions})
    values = np.full((len(rows), len(items)), np.nan)
    for p in predictions:
        values[rows.index((p.run, p.seed)), column[p.item]] = p.correct
    assert np.isfinite(values).all()
    return Right(values, tuple(run for run, _ in rows), tuple(cluster for _, cluster in items))


def _mean(side: Right) -> float:
    """Over clips, then over the seeds of each run, then over runs."""
    return float(_weights(side.runs).mean(axis=0) @ side.values.mean(axis=1))


def _weights(runs: Sequence[str]) -> Floats:
    """(runs, rows): one over the number of seeds where a row is of the run."""
    names = sorted(set(runs))
    member = np.array([[run == name for run in runs] for name in names], dtype=np.float64)
    return np.asarray(member / member.sum(axis=1, keepdims=True))


def _draws(
    side: Right, cluster: NDArray[np.intp], drawn: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Number of right clips in every resample, (resamples,), averaged over drawn runs and seeds."""
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
