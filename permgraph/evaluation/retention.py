"""The label-free screen: how much of a parent's layers is left in a merged encoder.

Ridge regression predicts every frame of a parent's layer from the same frame of the same layer of the merged encoder.
R² on clips that it was not fitted on, all channels together: 1 is all of it, 0 is what the mean alone explains, and
less than 0 is a prediction worse than that. Nothing is stored per frame: sums of products are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.features import Array, FrozenEncoder
from permgraph.inputs.clips import BadAudio
from permgraph.inputs.sources import shown

PENALTIES = tuple(10.0**k for k in range(-8, 2))  # times the mean variance of the merged encoder's channels

Floats = NDArray[np.float64]


class Sums:
    """Of the rows of x (n, d) and y (n, e): what a regression of y on x needs, in float64."""

    def __init__(self, d: int, e: int) -> None:
        self.count, self.yy = 0, 0.0
        self.x, self.y = np.zeros(d), np.zeros(e)
        self.xx, self.xy = np.zeros((d, d)), np.zeros((d, e))

    def add(self, x: Array, y: Array) -> None:
        a, b = x.astype(np.float64), y.astype(np.float64)
        self.count += len(a)
        self.x += a.sum(axis=0)
        self.y += b.sum(axis=0)
        self.xx += a.T @ a
        self.xy += a.T @ b
        self.yy += float((b * b).sum())


def r_squared(fit: Sums, choose: Sums, judge: Sums) -> float:
    """Of the regression fitted on the first sums, its penalty chosen on the second, on the third. NaN where the
    judged rows do not vary."""
    mean_x, mean_y = fit.x / fit.count, fit.y / fit.count
    within = fit.xx - fit.count * np.outer(mean_x, mean_x)
    across = fit.xy - fit.count * np.outer(mean_x, mean_y)
    values, vectors = np.linalg.eigh(within)
    scale = max(float(values.mean()), 0.0)
    if scale == 0:
        return _explained(judge, np.zeros_like(across), mean_x, mean_y)
    projected = vectors.T @ across
    every = [vectors @ (projected / (np.maximum(values, 0) + p * scale)[:, None]) for p in PENALTIES]
    best = max(every, key=lambda weights: _explained(choose, weights, mean_x, mean_y))
    return _explained(judge, best, mean_x, mean_y)


def _explained(sums: Sums, weights: Floats, mean_x: Floats, mean_y: Floats) -> float:
    """1 - |y - ŷ|² / |y - mean of y|² over the rows of the sums."""
    n = sums.count
    offset = mean_y - mean_x @ weights  # ŷ = x W + offset
    error = (
        sums.yy
        - 2 * float((sums.xy * weights).sum() + sums.y @ offset)
        + float(((sums.xx @ weights) * weights).sum() + 2 * (sums.x @ weights) @ offset + n * offset @ offset)
    )
    total = sums.yy - float(sums.y @ sums.y) / n
    return 1 - error / total if total > 1e-12 * max(sums.yy, 1e-300) else float("nan")


def retained(
    merged: FrozenEncoder,
    parents: Sequence[FrozenEncoder],
    fit: Sequence[Path],
    choose: Sequence[Path],
    judge: Sequence[Path],
) -> list[list[float]]:
    """R² per layer, for every parent in turn. The three lists are audio files and may not overlap.

    Raises UsageError (encoders of other depth or frame rate, overlapping lists), FileError (bad audio, no audio).
    """
    lists = {"fit": set(fit), "choose": set(choose), "judge": set(judge)}
    if sum(map(len, lists.values())) > len(set.union(*lists.values())):
        raise UsageError("the clips that fit, choose and judge a regression must not overlap.")
    for name, files in lists.items():
        if not files:
            raise FileError(f"no clips to {name} the regression.")
    sums = {part: _sums(merged, parents, sorted(files)) for part, files in lists.items()}
    return [
        [r_squared(*(sums[part][i][k] for part in lists)) for k in range(len(sums["fit"][i]))]
        for i in range(len(parents))
    ]


def _sums(merged: FrozenEncoder, parents: Sequence[FrozenEncoder], files: Iterable[Path]) -> list[list[Sums]]:
    """Per parent and layer, over all frames of the files."""
    found: list[list[Sums]] = [[] for _ in parents]
    for path in files:
        try:
            pieces = [list(model.of_file(path)) for model in (merged, *parents)]
        except BadAudio as error:
            raise FileError(f"{shown(path)}: {error}.") from error
        for parent, layers, theirs in zip(parents, found, pieces[1:], strict=True):
            if len(pieces[0]) != len(theirs):
                raise UsageError(f"{merged.name} and {parent.name} take {shown(path)} in other pieces.")
            for x, y in zip(pieces[0], theirs, strict=True):
                if x.shape[:2] != y.shape[:2]:
                    raise UsageError(
                        f"{merged.name} gives {x.shape[0]} layers of {x.shape[1]} frames for {shown(path)}, "
                        f"{parent.name} {y.shape[0]} of {y.shape[1]}: layers and frames cannot be paired."
                    )
                if not layers:
                    layers += [Sums(x.shape[2], y.shape[2]) for _ in x]
                for sums, a, b in zip(layers, x, y, strict=True):
                    sums.add(a, b)
    return found
