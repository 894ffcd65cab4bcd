"""Probes on statistics over frames: what is trained on `train`, chosen on `valid`, and predicts `test`.

A head is one row of HEADS. It is given statistics over frames (clips, layers, width), standardised per layer and channel by the
statistics of train, and class numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.evaluation.extras import extra
from permgraph.evaluation.features import Array

PENALTIES = tuple(10.0**k for k in range(-4, 5))  # of ridge, times the number of clips
STRENGTHS = (0.01, 0.1, 1.0)  # of logistic regression: the inverse of its penalty
HIDDEN, RATE, BATCH, STEPS, EVERY = 256, 1e-3, 32, 1500, 50

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Features and class numbers of the three splits; `classes` of them."""

    train: Array
    y_train: Labels
    valid: Array
    y_valid: Labels
    test: Array
    classes: int

    def standardised(self) -> Parts:
        """By train's mean and deviation of every layer and channel; a constant channel becomes zero."""
        mean, deviation = self.train.mean(axis=0), self.train.std(axis=0, dtype=np.float64)
        scale = scale_of(mean, deviation)
        train, valid, test = (
            ((x - mean) * scale).astype(np.float32) for x in (self.train, self.valid, self.test)
        )
        return Parts(train, self.y_train, valid, self.y_valid, test, self.classes)


def scale_of(mean: NDArray[Any], deviation: NDArray[Any]) -> Array:
    """One over the standard deviation; 0 for a channel that is constant."""
    constant = deviation <= 1e-6 * np.abs(mean) + 1e-12
    return np.where(constant, 0, 1 / np.where(constant, 1, deviation)).astype(np.float32)


@dataclass(frozen=True)
class Predicted:
    """Class numbers of the test clips, the accuracy on valid, and what was chosen by it."""

    test: Labels
    valid_accuracy: float
    choice: str


@dataclass(frozen=True)
class Head:
    """fit: (parts, seed) → prediction.

    random      whether the seed matters
    deviations  whether it is given standard deviations over frames beside the means, as the log-mel baseline is
    """

    fit: Callable[[Parts, int], Predicted]
    random: bool
    deviations: bool
    about: str


def ridge(parts: Parts, seed: int) -> Predicted:
    """Least squares on one layer; layer and penalty by accuracy on valid, of equal ones the least squared error."""
    best: tuple[tuple[float, float], Labels, str] | None = None
    targets, wanted = (np.eye(parts.classes)[y] for y in (parts.y_train, parts.y_valid))
    offset = targets.mean(axis=0)
    for layer in range(parts.train.shape[1]):
        x = parts.train[:, layer].astype(np.float64)
        mean = x.mean(axis=0)
        x -= mean
        values, vectors = np.linalg.eigh(x.T @ x)
        projected = vectors.T @ (x.T @ (targets - offset))
        for penalty in PENALTIES:
            weights = vectors @ (projected / (np.maximum(values, 0) + penalty * len(x))[:, None])
            valid, test = ((z[:, layer] - mean) @ weights + offset for z in (parts.valid, parts.test))
            accuracy = float((valid.argmax(axis=1) == parts.y_valid).mean())
            rank = accuracy, -float(((valid - wanted) ** 2).mean())
            if best is None or rank > best[0]:
                best = rank, test.argmax(axis=1), f"layer {layer}, penalty {penalty:g}"
    assert best is not None
    return Predicted(best[1], best[0][0], best[2])


def logistic(parts: Parts, seed: int, strengths: Sequence[float] = STRENGTHS) -> Predicted:
    """Logistic regression on one layer (scikit-learn); layer and strength by accuracy on valid."""
    model: Any = extra("sklearn.linear_model").LogisticRegression
    best: tuple[float, Labels, str] | None = None
    for layer in range(parts.train.shape[1]):
        for strength in strengths:
            fitted = model(C=strength, max_iter=5000).fit(parts.train[:, layer], parts.y_train)
            accuracy = float((fitted.predict(parts.valid[:, layer]) == parts.y_valid).mean())
            if best is None or accuracy > best[0]:
                best = accuracy, fitted.predict(parts.test[:, layer]), f"layer {layer}, C {strength:g}"
    assert best is not None
    return Predicted(best[1], best[0], best[2])


def linear(parts: Parts, seed: int) -> Predicted:
    """SUPERB's utterance head: a learned weighted sum of the layers, a projection, a linear classifier.

    All of it is linear, so that it may follow the mean over frames.
    """
    return _trained(parts, seed, relu=False)


def two_layer(parts: Parts, seed: int) -> Predicted:
    """A learned weighted sum of the layers and two linear layers with a ReLU between."""
    return _trained(parts, seed, relu=True)


def _trained(parts: Parts, seed: int, relu: bool) -> Predicted:
    """Adam; the step with the best accuracy on valid (then the least loss) is kept."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    x, v, t = (torch.from_numpy(z) for z in (parts.train, parts.valid, parts.test))
    y, y_valid = torch.from_numpy(parts.y_train), torch.from_numpy(parts.y_valid)
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(
            nn.Linear(x.shape[2], HIDDEN),
            nn.ReLU() if relu else nn.Identity(),
            nn.Linear(HIDDEN, parts.classes),
        )
    mix = nn.Parameter(torch.zeros(x.shape[1]))
    optimiser = torch.optim.Adam([mix, *head.parameters()], lr=RATE)

    def logits(features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = head(torch.einsum("l,nlc->nc", torch.softmax(mix, 0), features))
        return out

    best: tuple[float, float] = (-1.0, 0.0)
    chosen = Predicted(np.zeros(len(t), np.int64), 0.0, "")
    order = torch.randperm(len(x), generator=draws)
    for step in range(1, STEPS + 1):
        if len(order) < min(BATCH, len(x)):
            order = torch.randperm(len(x), generator=draws)
        batch, order = order[:BATCH], order[BATCH:]
        optimiser.zero_grad()
        cross_entropy(logits(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % EVERY == 0:
            with torch.no_grad():
                scores = logits(v)
                accuracy = float((scores.argmax(1) == y_valid).float().mean())
                if (accuracy, -float(cross_entropy(scores, y_valid))) > best:
                    best = accuracy, -float(cross_entropy(scores, y_valid))
                    shares = ", ".join(f"{w:.2f}" for w in torch.softmax(mix, 0).tolist())
                    chosen = Predicted(
                        logits(t).argmax(1).numpy(), accuracy, f"step {step}, layers weighted {shares}"
                    )
    return chosen


HEADS = {
    "ridge": Head(ridge, False, True, "least squares on the best layer: a screen, in less than a second"),
    "logistic": Head(logistic, False, True, "logistic regression on the best layer (scikit-learn)"),
    "logistic-plain": Head(
        partial(logistic, strengths=(1.0,)),
        False,
        True,
        "the same with C = 1: nothing is chosen but the layer",
    ),
    "linear": Head(linear, True, False, "weighted sum of the layers, projection, linear classifier (SUPERB)"),
    "two-layer": Head(
        two_layer, True, False, "weighted sum of the layers, two linear layers with a ReLU between"
    ),
}

OF_METRIC = {"accuracy": tuple(HEADS), "wer": ("ctc",)}  # ctc reads frames: permgraph.evaluation.ctc
