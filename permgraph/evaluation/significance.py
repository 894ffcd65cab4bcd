"""Tests between two encoders on the same clips: McNemar's, over folds and seeds, and Holm's correction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import UsageError

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """`first` clips are right in the first encoder only, `second` in the second only; two-sided exact p."""

    first: int
    second: int
    p: float


def mcnemar(first: int, second: int) -> McNemar:
    """The exact test (binomial, two-sided) of discordant counts; p = 1 where nothing differs.

    https://doi.org/10.1007/BF02295996
    """
    from scipy.stats import binomtest

    total = first + second
    p = float(binomtest(first, total, 0.5).pvalue) if total else 1.0
    return McNemar(first, second, p)


def mcnemar_over_folds(folds: Iterable[tuple[Flags, Flags]]) -> McNemar:
    """Discordant counts added up over folds, each clip tested once; (right in first, right in second) per fold."""
    first = second = 0
    for a, b in folds:
        if a.shape != b.shape:
            raise UsageError(f"McNemar's test needs the same clips: {a.shape} and {b.shape}.")
        first += int((a & ~b).sum())
        second += int((b & ~a).sum())
    return mcnemar(first, second)


def combine_seeds(values: Sequence[float]) -> float:
    """One p of several that judge the same clips with other seeds: valid whatever their dependence.

    K/k times the k-th smallest of K, for k = half of K rounded up (Rüger). Adding up the counts of all seeds would
    count every clip K times.
    """
    ordered = sorted(values)
    if not ordered:
        raise UsageError("no p-value to combine.")
    k = (len(ordered) + 1) // 2
    return min(1.0, len(ordered) / k * ordered[k - 1])


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: the chance of any false finding in the table is bounded by them.

    https://www.jstor.org/stable/4615733
    """
    p = np.asarray(values, dtype=np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise UsageError("p-values lie between 0 and 1.")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return [float(x) for x in adjusted]
