"""Axes of a weight that have an order in each slice of another axis, and parts that are put together again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import permgraph as pg


class Made(nn.Module):
    """`compute` reads the parameters, made of their shapes, and linear layers, made of their sizes."""

    def __init__(
        self, compute: Callable[[Made, Tensor], Tensor], **parts: tuple[int, ...] | nn.Module
    ) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(torch.randn(part)))

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def orders(module: nn.Module, shape: tuple[int, ...] = (2, 4, 5)) -> list[tuple[int, int]]:
    """(size, copies) of every group, once a random element of all of them was seen to keep the function."""
    torch.manual_seed(0)
    inputs = (torch.randn(shape),)
    spec = pg.infer(pg.trace(module.eval(), inputs))
    assert not spec.frozen and pg.verify(module, inputs, spec) <= 1e-9
    return sorted((group.size, group.copies) for group in spec.groups)


def experts(s: Made, x: Tensor) -> Tensor:
    hidden = (torch.einsum("bti,eio->bteo", x, s.up) + s.bias).relu()
    return torch.einsum("bteo,eod,bte->btd", hidden, s.down, s.router(x).softmax(-1))


def heads(s: Made, x: Tensor) -> Tensor:
    """Query, key, value and output weights (in, head, channel), as in XLNet, and a bias (head, channel)."""
    q, k, v = (torch.einsum("bti,ihd->bthd", x, w) for w in (s.q, s.k, s.v))
    scores = torch.einsum("bthd,bshd->bhts", q + s.bias, k).softmax(-1)
    return torch.einsum("bhts,bshd,ihd->bti", scores, v, s.o)


def scaled_heads(s: Made, x: Tensor) -> Tensor:
    h = F.layer_norm(s.i(x).unflatten(-1, (3, 4)), (4,)) * s.scale
    return s.o(h.flatten(2).tanh())


def layers(s: Made, x: Tensor) -> Tensor:
    for up, down in zip(s.up, s.down.unbind(0), strict=True):
        x = x + (x @ up).tanh() @ down
    return x


def shared_scale(s: Made, x: Tensor) -> Tensor:
    return torch.einsum("bteo,eod->btd", torch.einsum("bti,eio->bteo", x, s.up).relu() * s.scale, s.down)


L = nn.Linear
CASES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, int]]]] = {
    "experts": (
        lambda: Made(experts, router=L(5, 3), up=(3, 5, 7), bias=(3, 7), down=(3, 7, 4)),
        [(3, 1), (7, 3)],
    ),
    "heads": (
        lambda: Made(heads, q=(5, 3, 4), k=(5, 3, 4), v=(5, 3, 6), o=(2, 3, 6), bias=(3, 4)),
        [(3, 1), (4, 3), (6, 3)],
    ),
    "a scale per head": (lambda: Made(scaled_heads, i=L(5, 12), scale=(3, 4), o=L(12, 2)), [(3, 1), (4, 3)]),
    "layers in one tensor": (lambda: Made(layers, up=(2, 5, 7), down=(2, 7, 5)), [(7, 1), (7, 1)]),
    "a scale that all share": (
        lambda: Made(shared_scale, up=(3, 5, 7), scale=(7,), down=(3, 7, 4)),
        [(3, 7), (7, 1)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_units_have_an_order_in_each_slice(name: str) -> None:
    torch.manual_seed(0)
    module, expected = CASES[name]
    assert orders(module()) == expected


CUT: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "halves stacked": (lambda x: torch.stack([x[..., :4], x[..., 4:]], -1).flatten(2), True),
    "halves exchanged": (lambda x: torch.cat([x[..., 4:].contiguous(), x[..., :4]], 2), True),
    "one half a step later": (lambda x: torch.cat([x[:, 1:, :4], x[:, :-1, 4:]], 2), False),
    "one half backwards": (lambda x: torch.cat([x[..., :4].flip(1), x[..., 4:]], 2), False),
    "one half transposed": (lambda x: torch.cat([x[..., :4].transpose(0, 1), x[..., 4:]], 2), False),
    "one half rectified": (lambda x: torch.cat([x[..., :4].relu(), x[..., 4:]], 2), False),
    "one half rounded": (lambda x: torch.cat([x[..., :4].half().to(x.dtype), x[..., 4:]], 2), False),
}


@pytest.mark.parametrize("name", CUT)
def test_parts_put_together_were_never_cut_unless_something_else_was_done_to_one(name: str) -> None:
    torch.manual_seed(0)
    cut, whole = CUT[name]
    module = Made(lambda s, x: s.b(torch.tanh(cut(s.a(x)))), a=L(5, 8), b=L(8, 3))
    assert orders(module, (4, 4, 5)) == ([(8, 1)] if whole else [(4, 1), (4, 1)])


class Flat(nn.Module):
    """Two weights in one flat parameter, or apart."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        made = [torch.randn(40 * 30 * 9) * 0.1, torch.randn(25 * 40 * 9) * 0.1]
        self.first, self.whole = nn.Conv2d(2, 30, 1), nn.Parameter(torch.cat(made)) if flat else None
        self.parts = None if flat else nn.ParameterList(map(nn.Parameter, self.shaped(*made)))

    def shaped(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        return one.view(40, 30, 3, 3), two.view(25, 40, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        at = 40 * 30 * 9
        one, two = self.shaped(self.whole[:at], self.whole[at:]) if self.whole is not None else self.parts
        return F.conv2d(F.conv2d(self.first(x).tanh(), one).tanh(), two)


def test_a_flat_parameter_has_the_groups_of_its_views_and_not_a_label_for_every_element() -> None:
    torch.manual_seed(0)
    assert orders(Flat(True), (1, 2, 6, 6)) == orders(Flat(False), (1, 2, 6, 6)) == [(30, 1), (40, 1)]
    spec = pg.infer(pg.trace(Flat(True).eval(), (torch.randn(1, 2, 6, 6),)))
    assert all(p.positions.flat is None for p in spec.places if p.tensor == "whole")
