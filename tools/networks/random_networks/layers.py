"""Stages with weights: linear maps, convolutions, norms, attention, gates, recurrences, shared matrices."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.random_networks.stage import Family, Stage, divisor, weight, wide

TIME = 4


def linear(rng: Random, c: int) -> Stage:
    n = wide(rng, rng.choice([1, 2, 3]))
    return Stage(lambda s, x: s.f(x), n, f=nn.Linear(c, n, bias=rng.random() < 0.7))


def feed_forward(rng: Random, c: int) -> Stage:
    n = wide(rng)
    return Stage(lambda s, x: s.b(torch.relu(s.a(x))), c, a=nn.Linear(c, n), b=nn.Linear(n, c))


def applied_twice(rng: Random, c: int) -> Stage:
    """One matrix, its output fed to itself."""
    return Stage(lambda s, x: s.f(torch.tanh(s.f(x))), c, f=nn.Linear(c, c))


def shared_by_blocks(rng: Random, c: int) -> Stage:
    """One layer for every block of channels."""
    g = divisor(rng, c)
    n = rng.choice([c // g, 2, 3])
    return Stage(lambda s, x: s.f(x.unflatten(2, (g, c // g))).flatten(2), g * n, f=nn.Linear(c // g, n))


def shared_across_blocks(rng: Random, c: int) -> Stage:
    """One layer mixes the blocks, the same for every channel inside them (an MLP-Mixer)."""
    g = divisor(rng, c)
    f = nn.Linear(g, g)
    return Stage(
        lambda s, x: s.f(x.unflatten(2, (g, c // g)).transpose(2, 3)).transpose(2, 3).flatten(2), c, f=f
    )


def shared_module(rng: Random, c: int) -> Stage:
    """One module used on both halves, or on x and on what comes out of it."""
    if c % 2:
        return Stage(lambda s, x: x + s.n(s.n(x)), c, n=nn.LayerNorm(c))
    f = nn.Sequential(nn.Linear(c // 2, 3), nn.Tanh(), nn.Linear(3, c // 2))
    return Stage(lambda s, x: torch.cat([s.f(x[..., : c // 2]), s.f(x[..., c // 2 :])], 2), c, f=f)


def tied_autoencoder(rng: Random, c: int) -> Stage:
    w = weight(wide(rng), c)
    return Stage(lambda s, x: torch.tanh(x @ s.w.T) @ s.w, c, w=w)


def per_block_weights(rng: Random, c: int) -> Stage:
    """A matrix for each block, by einsum or by bmm."""
    g, n = divisor(rng, c), rng.choice([2, 3])
    w = weight(g, c // g, n)
    if rng.random() < 0.5:
        return Stage(
            lambda s, x: torch.einsum("bthd,hde->bthe", x.unflatten(2, (g, c // g)), s.w).flatten(2),
            g * n,
            w=w,
        )
    return Stage(
        lambda s, x: (x.unflatten(2, (g, c // g)).unsqueeze(3) @ s.w).squeeze(3).flatten(2), g * n, w=w
    )


def three_way(rng: Random, c: int) -> Stage:
    """einsum over a tensor of three axes: x by x."""
    n = rng.choice([2, 3, 4])
    return Stage(lambda s, x: torch.einsum("bti,oij,btj->bto", x, s.w, x), n, w=weight(n, c, c))


def bilinear(rng: Random, c: int) -> Stage:
    n = rng.choice([2, 3, 4])
    return Stage(lambda s, x: s.f(x, torch.tanh(x)), n, f=nn.Bilinear(c, c, n))


def convolution(rng: Random, c: int) -> Stage:
    kind = rng.choice(["plain", "grouped", "depthwise", "transposed"])
    g = {"plain": 1, "grouped": divisor(rng, c), "depthwise": c, "transposed": divisor(rng, c, False)}[kind]
    n = g * rng.choice([1, 2, 3] if g <= 4 else [1])
    make = nn.ConvTranspose1d if kind == "transposed" else nn.Conv1d
    k = rng.choice([1, 3])
    conv = make(c, n, k, padding=k // 2, groups=g, bias=rng.random() < 0.6)
    return Stage(lambda s, x: s.f(x.transpose(1, 2)).transpose(1, 2), n, f=conv)


def convolution_2d(rng: Random, c: int) -> Stage:
    g = divisor(rng, c, proper=False)
    n = g * rng.choice([1, 2] if g <= 4 else [1])
    conv = nn.Conv2d(c, n, 3, padding=1, groups=g)
    pool = rng.choice([lambda x: x, lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: F.max_pool2d(x, 3, 1, 1)])
    return Stage(
        lambda s, x: pool(s.f(x.transpose(1, 2).unflatten(2, (2, -1)))).flatten(2).transpose(1, 2), n, f=conv
    )


def weight_norm(rng: Random, c: int) -> Stage:
    n = wide(rng)
    return Stage(lambda s, x: s.f(x), n, f=nn.utils.parametrizations.weight_norm(nn.Linear(c, n)))


def norm(rng: Random, c: int) -> Stage:
    kind = rng.choice(["layer", "group", "batch", "instance", "rms", "group", "plain group"])
    if kind in ("layer", "rms"):
        return Stage(lambda s, x: s.f(x), c, f=nn.LayerNorm(c) if kind == "layer" else nn.RMSNorm(c))
    g = divisor(rng, c)
    f = {
        "group": lambda: nn.GroupNorm(g, c),
        "plain group": lambda: nn.GroupNorm(g, c, affine=False),
        "batch": lambda: nn.BatchNorm1d(c),
        "instance": lambda: nn.InstanceNorm1d(c, affine=True, track_running_stats=True),
    }[kind]()
    return Stage(lambda s, x: s.f(x.transpose(1, 2)).transpose(1, 2), c, f=f)


def block_norm(rng: Random, c: int) -> Stage:
    """A norm inside each block, its scale shared by the blocks."""
    g = divisor(rng, c)
    return Stage(lambda s, x: s.f(x.unflatten(2, (g, c // g))).flatten(2), c, f=nn.LayerNorm(c // g))


def gate(rng: Random, c: int) -> Stage:
    n, kind = wide(rng), rng.choice(["glu", "chunk", "pair", "late", "strided"])
    if kind == "pair":
        a, b = nn.Linear(c, n), nn.Linear(c, n)
        return Stage(lambda s, x: s.a(x) * torch.sigmoid(s.b(x)), n, a=a, b=b)
    f = nn.Linear(c, 2 * n)
    cut = {
        "glu": lambda h: F.glu(h, 2),
        "chunk": lambda h: h.chunk(2, 2)[0] * h.chunk(2, 2)[1].tanh(),
        "late": lambda h: h[..., n:] * F.silu(h[..., :n]),
        "strided": lambda h: h[..., ::2] * h[..., 1::2].sigmoid(),
    }[kind]
    return Stage(lambda s, x: cut(s.f(x)), n, f=f)


def squeeze_excite(rng: Random, c: int) -> Stage:
    a, b = nn.Linear(c, 3), nn.Linear(3, c)
    return Stage(lambda s, x: x * torch.sigmoid(s.b(torch.relu(s.a(x.mean(1)))))[:, None], c, a=a, b=b)


def _attend(heads: int, *parts: Tensor) -> Tensor:
    q, k, v = (h.unflatten(2, (heads, -1)).transpose(1, 2) for h in parts)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attention(rng: Random, c: int) -> Stage:
    h, d, e = rng.choice([1, 2, 3]), rng.choice([2, 3]), rng.choice([2, 3])
    if rng.random() < 0.3:
        f = nn.Linear(c, 3 * h * d)
        if rng.random() < 0.5:
            return Stage(lambda s, x: _attend(h, *s.f(x).chunk(3, 2)), h * d, f=f)
        return Stage(
            lambda s, x: _attend(h, *(p.flatten(2) for p in s.f(x).unflatten(2, (h, 3, d)).unbind(3))),
            h * d,
            f=f,
        )
    q, k, v = nn.Linear(c, h * d), nn.Linear(c, h * d), nn.Linear(c, h * e)
    return Stage(lambda s, x: _attend(h, s.q(x), s.k(x), s.v(x)), h * e, q=q, k=k, v=v)


def grouped_query(rng: Random, c: int) -> Stage:
    """Two query heads share one key head."""
    h, d = rng.choice([1, 2]), 2
    q, k, v = nn.Linear(c, 2 * h * d), nn.Linear(c, h * d), nn.Linear(c, h * d)

    def spread(x: Tensor) -> Tensor:
        return x.unflatten(2, (h, 1, d)).expand(-1, -1, -1, 2, -1).flatten(2)

    return Stage(
        lambda s, x: _attend(2 * h, s.q(x), spread(s.k(x)), spread(s.v(x))), 2 * h * d, q=q, k=k, v=v
    )


def multihead_attention(rng: Random, c: int) -> Stage:
    f = nn.MultiheadAttention(c, divisor(rng, c), batch_first=True)
    return Stage(lambda s, x: s.f(x, x, x, need_weights=False)[0], c, f=f)


def channel_attention(rng: Random, c: int) -> Stage:
    """Attention between channels inside a head (XCiT)."""
    g = divisor(rng, c)
    return Stage(
        lambda s, x: _across(*(p.unflatten(2, (g, -1)) for p in s.f(x).chunk(3, 2))), c, f=nn.Linear(c, 3 * c)
    )


def _across(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    score = torch.einsum("bthd,bthe->bhde", q, k).softmax(-1)
    return torch.einsum("bhde,bthe->bthd", score, v).flatten(2)


def recurrence(rng: Random, c: int) -> Stage:
    n, both = rng.choice([2, 3, 4]), rng.random() < 0.3
    make = rng.choice([nn.RNN, nn.GRU, nn.LSTM])
    f = make(c, n, rng.choice([1, 1, 2]), batch_first=True, bidirectional=both)
    return Stage(lambda s, x: s.f(x)[0], n * (1 + both), f=f)


def token_mixing(rng: Random, c: int) -> Stage:
    return Stage(lambda s, x: s.f(x.transpose(1, 2)).transpose(1, 2), c, f=nn.Linear(TIME, TIME))


def positions(rng: Random, c: int) -> Stage:
    """A learned table of positions is added, looked up by a constant."""
    index = torch.arange(TIME)
    return Stage(lambda s, x: x + s.f(s.index), c, f=nn.Embedding(TIME, c), index=index)


def codebook(rng: Random, c: int) -> Stage:
    """Soft assignment to the rows of a table that is read again."""
    n = rng.choice([2, 3, 4])
    return Stage(lambda s, x: (x @ s.w.T).softmax(2) @ s.w, c, w=weight(n, c))


def dynamic_blocks(rng: Random, c: int) -> Stage:
    """A weight made by the network: x decides how blocks are mixed."""
    g = divisor(rng, c)
    f = nn.Linear(c, g * g)
    return Stage(
        lambda s, x: (s.f(x).unflatten(2, (g, g)).softmax(3) @ x.unflatten(2, (g, c // g))).flatten(2), c, f=f
    )


def prelu(rng: Random, c: int) -> Stage:
    return Stage(lambda s, x: s.f(x.transpose(1, 2)).transpose(1, 2), c, f=nn.PReLU(c))


LAYERS: dict[str, Family] = {
    function.__name__: function
    for function in (
        linear,
        feed_forward,
        applied_twice,
        shared_by_blocks,
        shared_across_blocks,
        shared_module,
        tied_autoencoder,
        per_block_weights,
        three_way,
        bilinear,
        convolution,
        convolution_2d,
        weight_norm,
        norm,
        block_norm,
        gate,
        squeeze_excite,
        attention,
        grouped_query,
        multihead_attention,
        channel_attention,
        recurrence,
        token_mixing,
        positions,
        codebook,
        dynamic_blocks,
        prelu,
    )
}
