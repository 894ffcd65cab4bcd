"""Stages of equal modules side by side: experts, heads, branches that are summed, concatenated, stacked, compared."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from networks.random_networks.stage import Family, Stage, weight

Make = Callable[[], nn.Module]


def _module(rng: Random, c: int, n: int) -> Make:
    """What makes one of several equal modules from c channels to n."""
    h, kind = rng.choice([2, 3]), rng.choice(["linear", "relu", "ffn", "normed", "deep"])
    if kind in ("linear", "relu"):
        return lambda: nn.Sequential(nn.Linear(c, n), *([nn.ReLU()] if kind == "relu" else []))
    if kind == "ffn":
        return lambda: nn.Sequential(nn.Linear(c, h), nn.Tanh(), nn.Linear(h, n))
    if kind == "normed":
        return lambda: nn.Sequential(nn.LayerNorm(c), nn.Linear(c, h), nn.ReLU(), nn.Linear(h, n))
    return lambda: nn.Sequential(nn.Linear(c, h), nn.ReLU(), nn.Linear(h, 2), nn.Tanh(), nn.Linear(2, n))


def _several(rng: Random, c: int, n: int, count: int | None = None) -> nn.ModuleList:
    make = _module(rng, c, n)
    return nn.ModuleList(make() for _ in range(count or rng.choice([2, 3])))


JOINS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "sum": lambda y: torch.stack(y).sum(0),
    "chain": lambda y: sum(y[1:], y[0]),
    "mean": lambda y: torch.stack(y, 2).mean(2),
    "max": lambda y: torch.stack(y, 3).amax(3),
    "cat": lambda y: torch.cat(y, 2),
    "product": lambda y: torch.stack(y).prod(0),
    "softmax": lambda y: (torch.stack(y, 2).softmax(2) * torch.stack(y, 2)).sum(2),
    "first": lambda y: sum(y[1:], y[0]) + y[0].tanh(),
    "difference": lambda y: y[0] - sum(y[1:], torch.zeros_like(y[0])),
    "flat": lambda y: torch.stack(y, 3).flatten(2),
    "shifted": lambda y: sum(y[1:], y[0].roll(1, 2)),
}


def branches(rng: Random, c: int) -> Stage:
    name = rng.choice(list(JOINS))
    n = rng.choice([2, 3])
    e = _several(rng, c, n)
    after = torch.tanh if rng.random() < 0.5 else (lambda x: x)
    wide = n * len(e) if name in ("cat", "flat") else n
    return Stage(lambda s, x: JOINS[name]([after(m(x)) for m in s.e]), wide, e=e)


def experts_apart(rng: Random, c: int) -> Stage:
    """Experts as modules, weighted by a router of which each takes a part."""
    e = _several(rng, c, c)
    cut = rng.choice([lambda g: g.split(1, 2), lambda g: [g[..., i, None] for i in range(len(e))]])
    gate = rng.choice([lambda g: g.softmax(2), torch.sigmoid, lambda g: g * (g >= g.topk(1, 2).values)])
    return Stage(
        lambda s, x: sum(g * m(x) for g, m in zip(cut(gate(s.g(x))), s.e, strict=True)),
        c,
        e=e,
        g=nn.Linear(c, len(e)),
    )


def heads_apart(rng: Random, c: int) -> Stage:
    """Heads as modules; keys and values may be shared, by all or by two."""
    n, d, share = rng.choice([2, 4]), rng.choice([2, 3]), rng.choice([1, 1, 2, 4])
    q = nn.ModuleList(nn.Linear(c, d) for _ in range(n))
    k, v = (nn.ModuleList(nn.Linear(c, d) for _ in range(max(1, n // share))) for _ in range(2))

    def head(s: Any, x: Tensor, i: int) -> Tensor:
        j = min(i // share, len(s.k) - 1)
        return (s.q[i](x) @ s.k[j](x).mT).softmax(-1) @ s.v[j](x)

    return Stage(lambda s, x: torch.cat([head(s, x, i) for i in range(n)], 2), n * d, q=q, k=k, v=v)


def towers(rng: Random, c: int) -> Stage:
    """One list of modules, on two inputs; the second time in another order, perhaps."""
    e = _several(rng, c, 2, 3)
    order = rng.choice([(0, 1, 2), (1, 2, 0), (0, 1)])
    return Stage(
        lambda s, x: torch.cat(
            [sum(m(x).tanh() for m in s.e), sum(s.e[i](x.flip(1)).sigmoid() for i in order)], 2
        ),
        4,
        e=e,
    )


def parts_apart(rng: Random, c: int) -> Stage:
    """A module for each part of the channels, or each with a scale out of one tensor."""
    if c % 2 == 0 and rng.random() < 0.5:
        e = _several(rng, c // 2, 2, 2)
        return Stage(
            lambda s, x: torch.cat([m(t) for m, t in zip(s.e, x.chunk(2, 2), strict=True)], 2), 4, e=e
        )
    e = _several(rng, c, 2, 3)
    return Stage(
        lambda s, x: sum(w * m(x) for w, m in zip(s.w.unbind(0), s.e, strict=True)), 2, e=e, w=weight(3, 2)
    )


def convolutions_apart(rng: Random, c: int) -> Stage:
    """Convolutions of which some have equal kernels, concatenated or added."""
    kernels, n = rng.choice([(3, 3), (1, 3, 3), (1, 1, 1), (3, 1)]), rng.choice([2, 3])
    depth = rng.choice([1, 2])
    join = rng.choice(["cat", "sum"])

    def make(k: int) -> nn.Module:
        first = nn.Conv1d(c, n, k, padding=k // 2)
        more = [nn.ReLU(), nn.Conv1d(n, 2, 1)] if depth == 2 else [nn.BatchNorm1d(n), nn.ReLU()]
        return nn.Sequential(first, *more)

    e = nn.ModuleList(map(make, kernels))
    out = 2 if depth == 2 else n

    def compute(s: Any, x: Tensor) -> Tensor:
        parts = [m(x.transpose(1, 2)) for m in s.e]
        return (torch.cat(parts, 1) if join == "cat" else torch.stack(parts).sum(0)).transpose(1, 2)

    return Stage(compute, out * len(e) if join == "cat" else out, e=e)


def nested(rng: Random, c: int) -> Stage:
    """Branches of branches."""

    def inner() -> nn.Module:
        return nn.ModuleList(make() for _ in range(2))

    make = _module(rng, c, 2)
    e = nn.ModuleList(inner() for _ in range(2))
    last = rng.choice(["sum", "cat"])
    return Stage(
        lambda s, x: JOINS[last]([sum(m(x).tanh() for m in part).sigmoid() for part in s.e]),
        4 if last == "cat" else 2,
        e=e,
    )


BRANCHES: dict[str, Family] = {
    function.__name__: function
    for function in (
        branches,
        experts_apart,
        heads_apart,
        towers,
        parts_apart,
        convolutions_apart,
        nested,
    )
}
