"""Stages that read or write several coordinates at once by constant tables."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor

from networks.random_networks.stage import Family, Stage


def triangle(rng: Random, c: int) -> Stage:
    """One side of a matrix of pairs of channels, in any order: products, distances, or one that is not symmetric."""
    n, offset = min(c, 4), rng.choice([0, 1])
    kind = rng.choice(["products", "distances", "covariance", "ordered", "both sides"])
    at = (torch.triu_indices if rng.random() < 0.5 else torch.tril_indices)(n, n, offset)
    if kind == "both sides":
        at = (1 - torch.eye(n)).nonzero().T
    at = at[:, torch.randperm(at.shape[1], generator=torch.Generator().manual_seed(rng.randrange(99)))]
    return Stage(lambda s, x: _pairs(kind, x[..., :n])[:, :, s.at[0], s.at[1]], at.shape[1], at=at)


def _pairs(kind: str, x: Tensor) -> Tensor:
    """(b, t, c) → (b, t, c, c)"""
    one, other = x[..., :, None], x[..., None, :]
    if kind == "distances":
        return (one - other).abs()
    if kind == "covariance":
        return (x.transpose(1, 2) @ x)[:, None].expand(-1, x.shape[1], -1, -1)
    return one * (other.tanh() if kind == "ordered" else other)


def written_by_table(rng: Random, c: int) -> Stage:
    """Channels written into zeros at places of a table, each once; or summed where a place is named again."""
    size = rng.choice([c, c + 1, c + 2]) if c < 12 else c
    kind = rng.choice(["put", "copy", "scatter", "mask", "step", "sum"])
    at = torch.tensor(rng.choices(range(size), k=c) if kind == "sum" else sorted(rng.sample(range(size), c)))
    if kind in ("put", "copy", "scatter"):
        at = at[torch.randperm(c, generator=torch.Generator().manual_seed(rng.randrange(99)))]
    size = 2 * c if kind == "step" else size
    if size > 16:
        kind, size, at = "copy", c, at.argsort().argsort()
    if kind == "mask":
        at = torch.zeros(size, dtype=torch.bool).index_fill(0, at, True)
    return Stage(lambda s, x: _written(kind, s.at, x, size), size, at=at)


def _written(kind: str, at: Tensor, x: Tensor, size: int) -> Tensor:
    y: Any = x.new_zeros(*x.shape[:2], size)
    if kind == "copy":
        return y.index_copy(2, at, x)
    if kind == "sum":
        return y.index_add(2, at, x)
    if kind == "scatter":
        return y.scatter(2, at.expand(x.shape), x)
    if kind == "step":
        y[..., ::2], y[..., 1::2] = x, x.tanh()
        return y
    y[..., at] = x
    return y


ADDRESSED: dict[str, Family] = {f.__name__: f for f in (triangle, written_by_table)}
