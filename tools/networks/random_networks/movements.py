"""Stages that re-arrange, cut, join or combine channels and have no weights, or hardly any."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.random_networks.stage import Family, Stage, divisor, weight


def pointwise(rng: Random, c: int) -> Stage:
    function = rng.choice([torch.relu, torch.tanh, F.gelu, torch.sigmoid, F.silu, torch.sin])
    return Stage(lambda _, x: function(x), c)


def shuffle(rng: Random, c: int) -> Stage:
    """The channel shuffle of ShuffleNet."""
    g = divisor(rng, c)
    return Stage(lambda _, x: x.unflatten(2, (g, c // g)).transpose(2, 3).flatten(2), c)


def roll(rng: Random, c: int) -> Stage:
    by = rng.randrange(1, max(2, c))
    return Stage(lambda _, x: x.roll(by, 2), c)


def roll_blocks(rng: Random, c: int) -> Stage:
    g, axis = divisor(rng, c), rng.choice([2, 3])
    return Stage(lambda _, x: x.unflatten(2, (g, c // g)).roll(1, axis).flatten(2), c)


def flip(rng: Random, c: int) -> Stage:
    return Stage(lambda _, x: x.flip(2), c)


def split(rng: Random, c: int) -> Stage:
    """Two parts that are treated in different ways."""
    at = rng.randrange(1, c)
    return Stage(lambda _, x: torch.cat([x[..., :at].tanh(), x[..., at:].relu()], 2), c)


def drop_part(rng: Random, c: int) -> Stage:
    at = rng.randrange(1, c)
    return Stage(lambda _, x: x[..., at:] if at < c - 1 else x[..., :at], c - at if at < c - 1 else at)


def stride(rng: Random, c: int) -> Stage:
    start = rng.choice([0, 1])
    return Stage(lambda _, x: x[..., start::2], len(range(start, c, 2)))


def interleave(rng: Random, c: int) -> Stage:
    n = c // 2
    if rng.random() < 0.5:
        return Stage(lambda _, x: torch.stack([x[..., :n], x[..., n : 2 * n]], -1).flatten(2), 2 * n)
    return Stage(lambda _, x: torch.stack([x[..., :n].sin(), x[..., n : 2 * n]], 2).flatten(2), 2 * n)


def self_concatenation(rng: Random, c: int) -> Stage:
    return Stage(lambda _, x: torch.cat([x, torch.tanh(x)], 2), 2 * c) if c <= 6 else flip(rng, c)


def table(rng: Random, c: int) -> Stage:
    """Index by constants: a permutation, a choice, or with repetitions."""
    size = rng.choice([c, c, max(1, c - 1), min(12, c + 2)])
    order = rng.sample(range(c), size) if size <= c and rng.random() < 0.8 else rng.choices(range(c), k=size)
    index = torch.tensor(order)
    return Stage(lambda s, x: x[..., s.index] if size % 2 else x.index_select(2, s.index), size, index=index)


def block_table(rng: Random, c: int) -> Stage:
    """Whole blocks change places by a constant."""
    g = divisor(rng, c)
    index = torch.tensor(rng.sample(range(g), g))
    return Stage(lambda s, x: x.unflatten(2, (g, c // g))[:, :, s.index].flatten(2), c, index=index)


def repeat(rng: Random, c: int) -> Stage:
    if c > 4:
        return pointwise(rng, c)
    if rng.random() < 0.5:
        return Stage(lambda _, x: x.repeat(1, 1, 2), 2 * c)
    return Stage(lambda _, x: x.repeat_interleave(2, 2), 2 * c)


def pad(rng: Random, c: int) -> Stage:
    before, after = rng.choice([(0, 2), (1, 1), (2, 0), (0, 1)])
    return Stage(lambda _, x: F.pad(x, (before, after)), c + before + after)


def centre(rng: Random, c: int) -> Stage:
    """The mean over blocks, or inside blocks, is taken off."""
    g, axis = divisor(rng, c), rng.choice([2, 3])
    return Stage(lambda _, x: _blocks(x, g, lambda h: h - h.mean(axis, keepdim=True)), c)


def _blocks(x: Tensor, g: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.unflatten(2, (g, -1))).flatten(2)


def centre_by_repeat(rng: Random, c: int) -> Stage:
    g = divisor(rng, c)
    return Stage(lambda _, x: x - x.unflatten(2, (g, c // g)).mean(2).repeat(1, 1, g), c)


def reduction(rng: Random, c: int) -> Stage:
    """Blocks of channels become one number each, or one of each block is kept."""
    g, kind = divisor(rng, c), rng.choice(["mean", "amax", "sum", "logsumexp"])
    axis = rng.choice([2, 3])
    left = c // g if axis == 2 else g
    return Stage(lambda _, x: getattr(x.unflatten(2, (g, c // g)), kind)(axis), left)


def softmax(rng: Random, c: int) -> Stage:
    g, axis = divisor(rng, c), rng.choice([2, 3])
    axis = {1: 3, c: 2}.get(g, axis)  # over more than one, or it is always 1
    return Stage(lambda _, x: _blocks(x, g, lambda h: h.softmax(axis)), c)


def unit_length(rng: Random, c: int) -> Stage:
    g = divisor(rng, c, proper=False)
    return Stage(lambda _, x: _blocks(x, g, lambda h: F.normalize(h + 0.1, dim=3)), c)


def scale(rng: Random, c: int) -> Stage:
    """A parameter per channel, per block, or per channel of a block."""
    g = divisor(rng, c)
    shape = rng.choice([(1, c), (g, 1), (c // g,), (g, c // g)])
    return Stage(
        lambda s, x: (x.unflatten(2, (g, c // g)) * s.scale.view(s.view)).flatten(2),
        c,
        scale=weight(*shape),
        view=(g, c // g) if shape == (1, c) else shape,
    )


def against_itself(rng: Random, c: int) -> Stage:
    """x with its own channels in another order."""
    kind, g = rng.choice(["flip", "roll", "shuffle", "half"]), divisor(rng, c)
    if kind == "half" and c % 2:
        kind = "roll"
    other = {
        "flip": lambda x: x.flip(2),
        "roll": lambda x: x.roll(1, 2),
        "half": lambda x: x.roll(c // 2, 2),
        "shuffle": lambda x: x.unflatten(2, (g, c // g)).transpose(2, 3).flatten(2),
    }[kind]
    if rng.random() < 0.5:
        return Stage(lambda _, x: x + torch.tanh(other(x)), c)
    return Stage(lambda _, x: x * torch.sigmoid(other(x)), c)


def outer(rng: Random, c: int) -> Stage:
    """Products of all pairs of channels of two parts."""
    n = 2 if c < 6 else 3
    return Stage(lambda _, x: (x[..., :n, None] * x[..., None, -n:]).flatten(2), n * n)


def over_time(rng: Random, c: int) -> Stage:
    kind = rng.choice(["mean", "cumsum", "max", "pool", "average"])
    if kind in ("mean", "max"):
        return Stage(lambda _, x: x - getattr(x, "mean" if kind == "mean" else "amax")(1, keepdim=True), c)
    if kind == "cumsum":
        return Stage(lambda _, x: x.cumsum(1), c)
    pool = F.max_pool1d if kind == "pool" else F.avg_pool1d
    return Stage(lambda _, x: pool(x.transpose(1, 2), 3, 1, 1).transpose(1, 2), c)


def pool_channels(rng: Random, c: int) -> Stage:
    """Pooling along channels: neighbours matter."""
    return Stage(lambda _, x: F.max_pool1d(x, 2), c // 2)


MOVEMENTS: dict[str, Family] = {
    function.__name__: function
    for function in (
        pointwise,
        shuffle,
        roll,
        roll_blocks,
        flip,
        split,
        drop_part,
        stride,
        interleave,
        self_concatenation,
        table,
        block_table,
        repeat,
        pad,
        centre,
        centre_by_repeat,
        reduction,
        softmax,
        unit_length,
        scale,
        against_itself,
        outer,
        over_time,
        pool_channels,
    )
}
