"""Stages that select by value, order units in each slice of a weight, or put together again what was cut."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from networks.random_networks.stage import Family, Stage, divisor, weight


def experts(rng: Random, c: int) -> Stage:
    """Fused experts: all of them, weighted, or the best of each token."""
    e, n = rng.choice([2, 3]), rng.choice([2, 3])
    parts = {"router": nn.Linear(c, e), "up": weight(e, c, n), "bias": weight(e, n), "down": weight(e, n, c)}
    return Stage(_all_experts if rng.random() < 0.5 else _best_expert, c, **parts)


def _all_experts(s: Any, x: Tensor) -> Tensor:
    h = torch.relu(torch.einsum("bti,ein->bten", x, s.up) + s.bias)
    return torch.einsum("bten,enc,bte->btc", h, s.down, s.router(x).softmax(2))


def _best_expert(s: Any, x: Tensor) -> Tensor:
    best = s.router(x).argmax(2)
    h = torch.relu(torch.einsum("bti,btin->btn", x, s.up[best]) + s.bias[best])
    return torch.einsum("btn,btnc->btc", h, s.down[best])


def per_head_scale(rng: Random, c: int) -> Stage:
    """A scale for every channel of every block, after a norm inside the block: of more than one, or it is always 1."""
    g = divisor(rng, c)
    g = 1 if g == c else g
    return Stage(
        lambda s, x: (torch.tanh(x.unflatten(2, (g, c // g)).softmax(3)) * s.scale).flatten(2),
        c,
        scale=weight(g, c // g),
    )


def winners(rng: Random, c: int) -> Stage:
    """The largest channels, by a threshold, by an index, or themselves in their order."""
    k, kind = max(1, c // 2), rng.choice(["threshold", "scatter", "gather", "sort", "median"])
    if kind == "gather":
        return Stage(lambda _, x: x.tanh().gather(2, x.topk(k, 2).indices), k)
    compute = {
        "threshold": lambda _, x: x * (x >= x.topk(k, 2).values[..., -1:]),
        "scatter": lambda _, x: torch.zeros_like(x).scatter(2, x.topk(k, 2).indices, x.topk(k, 2).values),
        "sort": lambda _, x: x.sort(2).values,
        "median": lambda _, x: x - x.median(2, keepdim=True).values,
    }[kind]
    return Stage(compute, c)


def codewords(rng: Random, c: int) -> Stage:
    """The nearest row of a table."""
    n = rng.choice([2, 3, 4])
    return Stage(lambda s, x: s.w[torch.cdist(x, s.w).argmin(2)] + 0.1 * x, c, w=weight(n, c))


def stacked_layers(rng: Random, c: int) -> Stage:
    """Layers whose weights are slices of one parameter."""
    n = rng.choice([2, 3])
    return Stage(_layers, c, up=weight(2, c, n), down=weight(2, n, c))


def _layers(s: Any, x: Tensor) -> Tensor:
    for up, down in zip(s.up, s.down.unbind(0), strict=True):
        x = x + torch.tanh(x @ up) @ down
    return x


def whole_kernel(rng: Random, c: int) -> Stage:
    """Channels as the width of an image, and a kernel that spans it."""
    n = rng.choice([2, 3, 4])
    return Stage(lambda s, x: s.f(x[:, None])[..., 0].transpose(1, 2), n, f=nn.Conv2d(1, n, (1, c)))


def put_together(rng: Random, c: int) -> Stage:
    """Cut, and joined in another order; or with one part a step later."""
    at, shifted = rng.randrange(1, c), rng.random() < 0.4
    if shifted:
        return Stage(lambda _, x: torch.cat([x[..., at:], x.roll(1, 1)[..., :at]], 2), c)
    return Stage(lambda _, x: torch.cat([x[..., at:], x[..., :at]], 2), c)


CHOICES: dict[str, Family] = {
    function.__name__: function
    for function in (
        experts,
        per_head_scale,
        winners,
        codewords,
        stacked_layers,
        whole_kernel,
        put_together,
    )
}
