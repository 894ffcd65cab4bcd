"""N:M sparsity: of every M neighbouring weights that one output sums over, N are kept, those of the largest magnitude.

Mishra et al., Accelerating sparse deep neural networks (https://arxiv.org/abs/2104.08378). A *stripe* is a block of M
neighbouring coordinates of the axis that is summed over, beginning at a multiple of M.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import UsageError

Array = NDArray[Any]
WIDEST = 64  # weights of a stripe


@dataclass(frozen=True)
class Pattern:
    """`kept` of every `of` neighbours."""

    kept: int
    of: int

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """From "2:4". Raises UsageError."""
        match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
        found = cls(int(match[1]), int(match[2])) if match else None
        if found is None or not 0 < found.kept < found.of <= WIDEST:
            raise UsageError(
                f"--pattern {text}: write N:M, N of every M neighbours are kept, 0 < N < M ≤ {WIDEST}: 2:4, say."
            )
        return found

    def magnitude(self, stripes: Array, axis: int) -> Array:
        """Magnitude that is kept of each stripe; its M weights, all of them ≥ 0, lie on `axis`, which the result lacks."""
        largest = np.partition(stripes, self.of - self.kept, axis=axis)
        kept: Array = largest.take(range(self.of - self.kept, self.of), axis=axis).sum(
            axis=axis, dtype=np.float64
        )
        return kept

    def kept_of(self, weights: Array, axis: int) -> float:
        """Magnitude that is kept of a tensor, summed over `axis`, whose length M divides."""
        along = np.abs(np.moveaxis(weights, axis, -1))
        return float(self.magnitude(along.reshape(*along.shape[:-1], -1, self.of), -1).sum())

    def most_of(self, weights: Array, axis: int) -> float:
        """What no order of `axis` can exceed: the largest N of every M weights of a row, wherever in the row they are."""
        along = np.abs(np.moveaxis(weights, axis, -1))
        left_out = along.shape[-1] * (self.of - self.kept) // self.of
        return float(np.partition(along, left_out, axis=-1)[..., left_out:].sum(dtype=np.float64))
