"""Sums: n, Σx and Σx² of every channel, about a shift. For numpy and torch alike: the algebra needs no more.

A variance is a difference of large numbers, so the sums are of x less a shift near its mean. Sums about one shift
become sums about another by algebra alone, so batches, shards and ranks simply add.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from permgraph.tolerances import DEAD, ROUNDING


@dataclass(frozen=True)
class Sums:
    """float64 arrays of one shape, numpy or torch.

    n       samples counted in
    shift   what was subtracted from every sample
    sum     Σ(x - shift)
    square  Σ(x - shift)²
    """

    n: int
    shift: Any
    sum: Any
    square: Any

    @classmethod
    def of(cls, x: Any) -> Sums:
        """Of samples (samples, channels) in float64, about their mean."""
        shift = x.mean(0)
        x = x - shift
        return cls(len(x), shift, x.sum(0), (x * x).sum(0))

    def about(self, shift: Any) -> Sums:
        """The same about another shift."""
        step = self.shift - shift
        total = self.sum + self.n * step
        return replace(self, shift=shift, sum=total, square=self.square + step * (self.sum + total))

    def __add__(self, other: Sums) -> Sums:
        """Over both sets of samples, about this one's shift; about the other's when this one is empty."""
        if not self.n or not other.n:
            return self if self.n else other
        moved = other.about(self.shift)
        return Sums(self.n + other.n, self.shift, self.sum + moved.sum, self.square + moved.square)

    def mean(self) -> Any:
        return self.shift + self.sum / max(self.n, 1)

    def variance(self) -> Any:
        n = max(self.n, 1)
        return (self.square / n - (self.sum / n) ** 2).clip(0)

    def dead(self) -> Any:
        """Channels whose spread is no more than rounding: of their own float32 value, or of these sums."""
        rounding = (DEAD * self.mean()) ** 2 + ROUNDING * self.square / max(self.n, 1)
        return self.variance() <= rounding
