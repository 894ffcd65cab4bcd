"""Networks that keep equal parts as separate modules: heads, experts, branches, streams. Their groups are counted by hand.

`SIDE_BY_SIDE[name]` is (a network, the (size, copies) of its groups); the input is (2, 4, 5), and the output is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Orders = list[tuple[int, int]]
SHAPE = (2, 4, 5)
L = nn.Linear


class Net(nn.Module):
    """`compute` reads the parts by name; a list of modules or of shapes becomes one of torch's own."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, _part(part))

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def _part(part: Any) -> Any:
    if isinstance(part, list):
        if isinstance(part[0], nn.Module):
            return nn.ModuleList(part)
        return nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in part])
    return nn.Parameter(torch.randn(part)) if isinstance(part, tuple) else part


def ffn(d: int = 6, h: int = 7, act: type[nn.Module] = nn.GELU) -> nn.Module:
    return nn.Sequential(L(d, h), act(), L(h, d))


def times(n: int, make: Callable[..., nn.Module], *args: Any) -> list[nn.Module]:
    return [make(*args) for _ in range(n)]


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Module:
    return nn.Conv1d(i, o, k, padding=k // 2, **options)


class Head(nn.Module):
    def __init__(self, d: int = 6, h: int = 3) -> None:
        super().__init__()
        self.q, self.k, self.v = L(d, h), L(d, h), L(d, h)

    def forward(self, x: Tensor) -> Tensor:
        return (self.q(x) @ self.k(x).transpose(-1, -2)).softmax(-1) @ self.v(x)


class Heads(nn.Module):
    def __init__(self, d: int = 6, n: int = 2, h: int = 3) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(d, h) for _ in range(n))
        self.o = L(n * h, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.cat([head(x) for head in self.heads], -1))


class SwiGLU(nn.Module):
    def __init__(self, d: int = 6, h: int = 7) -> None:
        super().__init__()
        self.w1, self.w3, self.w2 = L(d, h, bias=False), L(d, h, bias=False), L(h, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Normed(nn.Module):
    def __init__(self, d: int = 6, h: int = 7) -> None:
        super().__init__()
        self.up, self.norm, self.down = L(d, h), nn.BatchNorm1d(h), L(h, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(self.up(x).transpose(1, 2)).transpose(1, 2).relu())


class Gated(nn.Module):
    """A layer norm, then an FFN with a scale and a skip of its own."""

    def __init__(self, d: int = 6, h: int = 7) -> None:
        super().__init__()
        self.norm, self.ffn, self.scale = nn.LayerNorm(d), ffn(d, h), nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.ffn(self.norm(x))


def weighted(s: Any, x: Tensor, gates: Iterable[Tensor]) -> Tensor:
    return s.o(sum(g * e(x) for g, e in zip(gates, s.e, strict=True)))


def routed(cut: Callable[[Tensor], Iterable[Tensor]]) -> Callable[[Any, Tensor], Tensor]:
    def compute(s: Any, x: Tensor) -> Tensor:
        x = s.i(x)
        return weighted(s, x, cut(s.g(x).softmax(-1)))

    return compute


def moe(cut: Callable[[Tensor], Iterable[Tensor]], make: Callable[..., nn.Module] = ffn) -> Net:
    return Net(routed(cut), i=L(5, 6), g=L(6, 3), e=times(3, make), o=L(6, 2))


MOE: Orders = [(3, 1), (6, 1), (6, 1), (7, 3)]


def slices(g: Tensor) -> list[Tensor]:
    return [g[..., i : i + 1] for i in range(g.shape[-1])]


def selects(g: Tensor) -> list[Tensor]:
    return [g[..., i].unsqueeze(-1) for i in range(g.shape[-1])]


def top_k(s: Any, x: Tensor) -> Tensor:
    """Every expert sees all; what top-k did not choose has weight 0."""
    x = s.i(x)
    values, index = s.g(x).topk(2, -1)
    gates = torch.zeros(*x.shape[:-1], 3).scatter(-1, index, values.softmax(-1))
    return weighted(s, x, selects(gates))


def masked(s: Any, x: Tensor) -> Tensor:
    """In the style of early Mixtral, without its index_add: experts that were not chosen are masked out."""
    x = s.i(x)
    weights, chosen = s.g(x).softmax(-1).topk(2, -1)
    out = torch.zeros_like(x)
    for i, expert in enumerate(s.e):
        gate = torch.where(chosen == i, weights, torch.zeros_like(weights)).sum(-1, keepdim=True)
        out = out + gate * expert(x)
    return s.o(out)


def stacked(reduce: Callable[[Tensor, Any], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    def compute(s: Any, x: Tensor) -> Tensor:
        x = s.i(x)
        return s.o(reduce(torch.stack([e(x) for e in s.e], 2), s))

    return compute


def ensemble(
    reduce: Callable[[Tensor, Any], Tensor], make: Callable[..., nn.Module] = Gated, **more: Any
) -> Net:
    return Net(stacked(reduce), i=L(5, 6), e=times(3, make), o=L(6, 2), **more)


def attention_pool(y: Tensor, s: Any) -> Tensor:
    scores = (s.k(y) @ s.q).softmax(-1)
    return (scores[..., None] * y).sum(2)


def towers(s: Any, x: Tensor) -> Tensor:
    a, b = s.i(x), s.j(x)
    return s.o(sum(e(a) for e in s.e)) * s.p(sum(e(b) for e in s.e))


def convolutions(join: Callable[[list[Tensor]], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    def compute(s: Any, x: Tensor) -> Tensor:
        x = s.i(x).transpose(1, 2)
        return s.o(join([c(x) for c in s.c]).transpose(1, 2))

    return compute


def deep_conv(i: int = 6, h: int = 4, o: int = 3, k: int = 3) -> nn.Module:
    return nn.Sequential(conv(i, h, k), nn.BatchNorm1d(h), nn.ReLU(), conv(h, o, k), nn.ReLU())


def channels(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1)


def multi_query(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    k, v = s.k(x), s.v(x)
    heads = [(q(x) @ k.transpose(-1, -2)).softmax(-1) @ v for q in s.q]
    return s.o(torch.cat(heads, -1))


def nested(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    return s.o(sum(e(x).tanh() for e in s.e))


def halves_summed(s: Any, x: Tensor) -> Tensor:
    """Units of the first layer mix across the halves; the experts after them change places."""
    x = s.i(x)
    x = torch.stack([x[..., :3], x[..., 3:]]).sum(0)
    return s.o(sum(e(x) for e in s.e))


def summed(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    return s.o(sum(e(x) for e in s.e))


def one_read_twice(s: Any, x: Tensor) -> Tensor:
    """The first branch is told apart by what else reads it; the others are one wide branch."""
    x = s.i(x)
    first, *others = (e(x) for e in s.e)
    return s.o(first + sum(others) + first.tanh())


def cut_again(at: int, act: Callable[[Tensor], Tensor] = lambda x: x) -> Callable[[Any, Tensor], Tensor]:
    """What branches made is put together, cut in two, and read by one layer."""

    def forward(s: Any, x: Tensor) -> Tensor:
        x = s.i(x)
        y = torch.cat([e(x) for e in s.e], -1)
        return s.o(torch.cat([s.f(y[..., :at]), act(s.f(y[..., at:]))], -1).tanh())

    return forward


def from_lists(s: Any, x: Tensor) -> Tensor:
    x, g = s.i(x), s.g(s.i(x)).softmax(-1)
    return s.o(sum(g[..., i : i + 1] * ((x @ s.up[i]).relu() @ s.down[i]) for i in range(len(s.up))))


def stacked_lists(s: Any, x: Tensor) -> Tensor:
    x, up, down = s.i(x), torch.stack(list(s.up)), torch.stack(list(s.down))
    h = torch.einsum("bti,eih->bteh", x, up).relu()
    return s.o(torch.einsum("bteh,ehd,bte->btd", h, down, s.g(x).softmax(-1)))


def unbound(s: Any, x: Tensor) -> Tensor:
    """Modules beside one stacked tensor, read slice by slice."""
    x = s.i(x)
    return s.o(sum(e(x) * w for e, w in zip(s.e, s.scale.unbind(0), strict=True)))


def read_outside(s: Any, x: Tensor) -> Tensor:
    """The first of three is read once more, so the other two may change places."""
    x = s.i(x)
    first, *rest = [e(x).tanh() for e in s.e]
    return s.o(first + rest[0] + rest[1]) + s.p(first)


def product(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    return s.o(s.e[0](x) * s.e[1](x) * s.e[2](x))


def largest(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    return s.o(torch.maximum(torch.maximum(s.e[0](x), s.e[1](x)), s.e[2](x)))


def in_order(s: Any, x: Tensor) -> Tensor:
    """A sum of differences: the sign of a term says which it is."""
    x = s.i(x)
    return s.o(s.e[0](x).tanh() - s.e[1](x).tanh())


def one_after_another(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    for e in s.e:
        x = x + e(x).tanh()
    return s.o(x)


def with_numbers(s: Any, x: Tensor) -> Tensor:
    """Every branch is scaled by a number of its own, in the code."""
    x = s.i(x)
    return s.o(sum((i + 1.0) * e(x).tanh() for i, e in enumerate(s.e)))


def positions_after(s: Any, x: Tensor) -> Tensor:
    """Streams one after another in time, to which positions are added: they know their order."""
    x = s.i(x)
    return s.o(torch.cat([e(x).tanh() for e in s.e], 1) + s.at)


def along_time(s: Any, x: Tensor) -> Tensor:
    """Streams one after another in time, and then a mean: they do not."""
    x = s.i(x)
    return s.o(torch.cat([e(x).tanh() for e in s.e], 1).mean(1))


def shared_weight(s: Any, x: Tensor) -> Tensor:
    """The first branch's weight is read by the end as well."""
    x = s.i(x)
    y = sum(e(x).tanh() for e in s.e)
    return s.o(y @ s.e[0].weight)


def mixtral(s: Any, x: Tensor) -> Tensor:
    """Experts as transformers called them before it fused them: the tokens of each are looked up, and added back."""
    x = s.i(x)
    h = x.reshape(-1, x.shape[-1])
    weights, chosen = s.g(h).softmax(-1).topk(2, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros_like(h)
    mask = F.one_hot(chosen, 3).permute(2, 1, 0)
    for e in range(3):
        which, token = torch.where(mask[e])
        own = s.e[e](h[None, token].reshape(-1, h.shape[-1])) * weights[token, which, None]
        out = out.index_add(0, token, own)
    return s.o(out.reshape(x.shape))


def by_where(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    chosen, out = s.g(x).argmax(-1), torch.zeros_like(x)
    for e in range(3):
        out = torch.where((chosen == e)[..., None], s.e[e](x), out)
    return s.o(out)


def shared_keys(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    heads = [(q(x) @ s.k[i // 2](x).mT).softmax(-1) @ s.v[i // 2](x) for i, q in enumerate(s.q)]
    return s.o(torch.cat(heads, -1))


def grouped() -> nn.Module:
    return nn.Sequential(conv(6, 8, groups=2), nn.ReLU(), nn.Conv1d(8, 6, 1), nn.ReLU())


def reordered(s: Any, x: Tensor) -> Tensor:
    """The modules once in order, and once in another, with weights of a tensor."""
    x = s.i(x)
    again = (s.w[j] * s.e[i](x).sigmoid() for j, i in enumerate([1, 2, 0]))
    return s.o(sum(e(x).tanh() for e in s.e) + sum(again))


def some_again(s: Any, x: Tensor) -> Tensor:
    x = s.i(x)
    return s.o(sum(e(x).tanh() for e in s.e) + sum(e(x).sigmoid() for e in s.e[:2]))


def biases(s: Any, x: Tensor) -> Tensor:
    """Three biases in one vector, cut again at once (torch's multi-head attention): nothing of them may cross."""
    q, k, v = (F.linear(x, w, b) for w, b in zip((s.q, s.k, s.v), torch.cat(list(s.b)).chunk(3), strict=True))
    return s.o((q @ k.mT).softmax(-1) @ v)


def learned_sum(y: Tensor, s: Any) -> Tensor:
    return torch.einsum("btec,e->btc", y, s.w.softmax(0))


CASES: dict[str, tuple[Callable[[], nn.Module], Orders]] = {
    "experts, gate sliced": (lambda: moe(slices), MOE),
    "experts, gate selected": (lambda: moe(selects), MOE),
    "experts, gate chunked": (lambda: moe(lambda g: g.chunk(3, -1)), MOE),
    "experts, gate split": (lambda: moe(lambda g: g.split(1, -1)), MOE),
    "experts, gate unbound": (lambda: moe(lambda g: [x[..., None] for x in g.unbind(-1)]), MOE),
    "SwiGLU experts": (lambda: moe(slices, SwiGLU), MOE),
    "experts with batch norm": (lambda: moe(slices, Normed), MOE),
    "experts with layer norm": (lambda: moe(slices, Gated), [(3, 1), (6, 1), (7, 3)]),
    "experts by top-k": (lambda: Net(top_k, i=L(5, 6), g=L(6, 3), e=times(3, ffn), o=L(6, 2)), MOE),
    "experts by mask": (lambda: Net(masked, i=L(5, 6), g=L(6, 3), e=times(3, ffn), o=L(6, 2)), MOE),
    "stack, mean": (lambda: ensemble(lambda y, s: y.mean(2)), [(3, 1), (6, 1), (7, 3)]),
    "stack, sum": (lambda: ensemble(lambda y, s: y.sum(2)), [(3, 1), (6, 1), (7, 3)]),
    "stack, max": (lambda: ensemble(lambda y, s: y.amax(2)), [(3, 1), (6, 1), (7, 3)]),
    "stack, weighted sum": (lambda: ensemble(learned_sum, w=(3,)), [(3, 1), (6, 1), (7, 3)]),
    "attention pooling": (
        lambda: ensemble(attention_pool, k=L(6, 4), q=(4,)),
        [(3, 1), (4, 1), (6, 1), (7, 3)],
    ),
    "twin towers": (
        lambda: Net(towers, i=L(5, 6), j=L(5, 6), e=times(3, Gated), o=L(6, 2), p=L(6, 2)),
        [(2, 1), (3, 1), (6, 1), (7, 3)],
    ),
    "streams summed": (
        lambda: Net(nested, i=L(5, 6), e=times(3, lambda: L(6, 6)), o=L(6, 2)),
        [(3, 1), (6, 1), (6, 1)],
    ),
    "halves summed before experts": (
        lambda: Net(halves_summed, i=L(5, 6), e=times(2, Gated, 3), o=L(3, 2)),
        [(2, 1), (2, 3), (3, 1), (7, 2)],
    ),
    "one wide FFN": (lambda: Net(summed, i=L(5, 6), e=times(3, ffn), o=L(6, 2)), [(6, 1), (6, 1), (21, 1)]),
    "one wide FFN beside one that is read twice": (
        lambda: Net(one_read_twice, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(6, 1), (6, 1), (7, 1), (14, 1)],
    ),
    "cut again where the branches end": (
        lambda: Net(cut_again(2), i=L(5, 6), e=times(2, lambda: L(6, 2)), f=L(2, 4), o=L(8, 2)),
        [(2, 1), (2, 1), (4, 1), (6, 1)],
    ),
    "cut across the branches": (
        lambda: Net(cut_again(3), i=L(5, 6), e=times(3, lambda: L(6, 2)), f=L(3, 4), o=L(8, 2)),
        [(2, 1), (3, 1), (4, 1), (6, 1)],
    ),
    "cut again, and told apart": (
        lambda: Net(cut_again(2, torch.tanh), i=L(5, 6), e=times(2, lambda: L(6, 2)), f=L(2, 4), o=L(8, 2)),
        [(2, 1), (4, 1), (6, 1)],
    ),
    "heads as modules": (
        lambda: Net(lambda s, x: s.o(s.h(s.i(x))), i=L(5, 6), h=Heads(6, 4), o=L(6, 2)),
        [(3, 4), (3, 4), (4, 1), (6, 1), (6, 1)],
    ),
    "heads with one key": (
        lambda: Net(multi_query, i=L(5, 6), q=times(4, L, 6, 3), k=L(6, 3), v=L(6, 3), o=L(12, 2)),
        [(3, 1), (3, 1), (4, 1), (6, 1)],
    ),
    "branches of heads": (
        lambda: Net(nested, i=L(5, 6), e=times(3, Heads, 6, 2, 3), o=L(6, 2)),
        [(2, 3), (3, 1), (3, 6), (3, 6), (6, 1), (6, 1)],
    ),
    "convolutions concatenated": (
        lambda: Net(
            convolutions(channels),
            i=L(5, 6),
            c=times(3, lambda: nn.Sequential(conv(6, 4), nn.ReLU())),
            o=L(12, 2),
        ),
        [(6, 1), (12, 1)],
    ),
    "convolutions with batch norm": (
        lambda: Net(
            convolutions(channels),
            i=L(5, 6),
            c=times(2, lambda: nn.Sequential(conv(6, 4), nn.BatchNorm1d(4), nn.ReLU())),
            o=L(8, 2),
        ),
        [(6, 1), (8, 1)],
    ),
    "deep branches concatenated": (
        lambda: Net(convolutions(channels), i=L(5, 6), c=times(3, deep_conv), o=L(9, 2)),
        [(3, 1), (3, 3), (4, 3), (6, 1)],
    ),
    "some kernels are equal": (
        lambda: Net(
            convolutions(channels),
            i=L(5, 6),
            c=[deep_conv(k=1), deep_conv(k=3), deep_conv(k=3), deep_conv(k=5)],
            o=L(12, 2),
        ),
        [(2, 1), (3, 1), (3, 1), (3, 2), (4, 1), (4, 1), (4, 2), (6, 1)],
    ),
    "some kernels are equal, summed": (
        lambda: Net(
            convolutions(sum), i=L(5, 6), c=[deep_conv(k=1), deep_conv(k=3), deep_conv(k=3)], o=L(3, 2)
        ),
        [(2, 1), (3, 1), (4, 1), (4, 2), (6, 1)],
    ),
    "depthwise branches": (
        lambda: Net(
            convolutions(sum),
            i=L(5, 6),
            c=times(3, lambda: nn.Sequential(conv(6, 6, groups=6), nn.ReLU())),
            o=L(6, 2),
        ),
        [(3, 1), (6, 1)],
    ),
    "parameter lists": (
        lambda: Net(from_lists, i=L(5, 6), g=L(6, 3), up=[(6, 7)] * 3, down=[(7, 4)] * 3, o=L(4, 2)),
        [(3, 1), (4, 1), (6, 1), (7, 3)],
    ),
    "parameter lists, stacked": (
        lambda: Net(stacked_lists, i=L(5, 6), g=L(6, 3), up=[(6, 7)] * 3, down=[(7, 4)] * 3, o=L(4, 2)),
        [(3, 1), (4, 1), (6, 1), (7, 3)],
    ),
    "beside a stacked tensor": (
        lambda: Net(unbound, i=L(5, 6), e=times(3, Gated), scale=(3, 6), o=L(6, 2)),
        [(3, 1), (6, 1), (7, 3)],
    ),
    "read outside": (
        lambda: Net(read_outside, i=L(5, 6), e=times(3, ffn), o=L(6, 2), p=L(6, 2)),
        [(2, 1), (6, 1), (6, 1), (7, 1), (7, 2)],
    ),
    "product": (
        lambda: Net(product, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(3, 1), (6, 1), (6, 1), (7, 3)],
    ),
    "largest": (
        lambda: Net(largest, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(3, 1), (6, 1), (6, 1), (7, 3)],
    ),
    "difference": (
        lambda: Net(in_order, i=L(5, 6), e=times(2, ffn), o=L(6, 2)),
        [(6, 1), (6, 1), (7, 1), (7, 1)],
    ),
    "one after another": (
        lambda: Net(one_after_another, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(6, 1), (7, 1), (7, 1), (7, 1)],
    ),
    "numbers in the code": (
        lambda: Net(with_numbers, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(6, 1), (6, 1), (7, 1), (7, 1), (7, 1)],
    ),
    "positions after streams": (
        lambda: Net(positions_after, i=L(5, 6), e=times(3, ffn), at=(12, 1), o=L(6, 2)),
        [(6, 1), (6, 1), (7, 1), (7, 1), (7, 1)],
    ),
    "streams along time": (
        lambda: Net(along_time, i=L(5, 6), e=times(3, ffn), o=L(6, 2)),
        [(3, 1), (6, 1), (6, 1), (7, 3)],
    ),
    "early Mixtral": (
        lambda: Net(mixtral, i=L(5, 6), g=L(6, 3, bias=False), e=times(3, SwiGLU), o=L(6, 2)),
        MOE,
    ),
    "chosen expert by where": (lambda: Net(by_where, i=L(5, 6), g=L(6, 3), e=times(3, ffn), o=L(6, 2)), MOE),
    "two query heads share a key": (
        lambda: Net(
            shared_keys, i=L(5, 6), q=times(4, L, 6, 3), k=times(2, L, 6, 3), v=times(2, L, 6, 3), o=L(12, 2)
        ),
        [(2, 1), (2, 2), (3, 2), (3, 2), (6, 1)],
    ),
    "grouped convolutions": (
        lambda: Net(convolutions(sum), i=L(5, 6), c=times(3, grouped), o=L(6, 2)),
        [(2, 1), (3, 1), (3, 2), (4, 6), (6, 1)],
    ),
    "the same list in another order": (
        lambda: Net(reordered, i=L(5, 6), w=(3,), e=times(3, ffn), o=L(6, 2)),
        MOE,
    ),
    "some of them again": (
        lambda: Net(some_again, i=L(5, 6), e=times(4, ffn), o=L(6, 2)),
        [(2, 1), (2, 1), (6, 1), (6, 1), (7, 2), (7, 2)],
    ),
    "biases put together and cut again": (
        lambda: Net(biases, q=(6, 5), k=(6, 5), v=(6, 5), b=[(6,)] * 3, o=L(6, 2)),
        [(6, 1), (6, 1)],
    ),
    "a weight read twice": (
        lambda: Net(shared_weight, i=L(5, 6), e=times(3, L, 6, 4), o=L(6, 2)),
        [(2, 1), (4, 1), (6, 1)],
    ),
}
