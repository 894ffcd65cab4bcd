"""Small networks in which a wrong group was found once, or too small a one: each keeps the law now, and its freedom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import verify


class KeyAndValueByIndex(nn.Module):
    """Multi-query attention that indexes its packed projection by a lifted constant, with doubled rotary tables."""

    def __init__(self, heads: int = 4, width: int = 8) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.packed = nn.Linear(7, (heads + 2) * width)
        self.out = nn.Linear(heads * width, 5)
        self.register_buffer("speed", 1.0 / torch.arange(1, 1 + width // 2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        packed = self.packed(x).view(b, t, self.heads + 2, self.width)
        q = packed[:, :, :-2].transpose(1, 2)
        k, v = (packed[:, :, [i]].transpose(1, 2) for i in (-2, -1))
        angle = torch.arange(t)[:, None] * self.speed
        cos = torch.cat((angle, angle), -1).cos()
        y = functional.scaled_dot_product_attention(q * cos, k * cos, v, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))  # type: ignore[no-any-return]


class MaskedByTriangle(nn.Module):
    """Position enters only through the triangle of a constant: the rows of `memory` may not move."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(6, 5))
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.full((6, 6), 1.0).tril()
        return self.out(torch.tanh(weights @ self.memory + x))  # type: ignore[no-any-return]


class AddedToItsOwnCycle(nn.Module):
    """x + x[cycle]: ties that go round an axis and come back to it, in two senses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = y + y[..., torch.tensor([1, 2, 0, 5, 3, 4, 6, 7])]
        return self.last(torch.tanh(y))  # type: ignore[no-any-return]


class DifferentialAttention(nn.Module):
    """The halves of the heads subtracted from each other: blocks of heads are tied across parts of an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(7, 32), nn.Linear(7, 16), nn.Linear(7, 8)
        self.out = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q(x).view(1, -1, 4, 8), self.k(x).view(1, -1, 2, 8), self.v(x).view(1, -1, 1, 8)
        k = k[:, :, :, None].expand(1, -1, 2, 2, 8).reshape(1, -1, 4, 8)
        y = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1) @ v.transpose(1, 2)
        y = (y[:, :2] - 0.3 * y[:, 2:]).transpose(1, 2)
        return self.out(y.reshape(1, -1, 16))  # type: ignore[no-any-return]


class ComplexParts(nn.Module):
    """The real and the imaginary part are told apart when a complex number becomes a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.view_as_complex(torch.stack([self.a(x), self.b(x)], -1))
        return self.out(torch.view_as_real(y * y).flatten(-2))  # type: ignore[no-any-return]


class SharedBias(nn.Module):
    """Grouped-query attention with a bias that all heads read by channel: nothing marks the key heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (
            nn.Linear(7, 32),
            nn.Linear(7, 16),
            nn.Linear(7, 16),
            nn.Linear(32, 5),
        )
        self.bias = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(1, -1, 4, 8).transpose(1, 2) + self.bias[:, None]
        k, v = (layer(x).view(1, -1, 2, 8).transpose(1, 2) for layer in (self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(1, -1, 32))  # type: ignore[no-any-return]


class Unpooled(nn.Module):
    """Units go back to where the maxima of others were: the two convolutions have one order of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 2))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, index = functional.max_pool2d(self.first(x).relu(), 2, return_indices=True)
        return self.last(functional.max_unpool2d(self.middle(y).relu(), index, 2))  # type: ignore[no-any-return]


class ComplexRotary(nn.Module):
    """Rotary positions by complex numbers: pairs of channels keep their place, heads and values do not."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(6, 3 * 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.packed(x).view(1, -1, 3, 3, 8).transpose(1, 3).unbind(2)
        angle = torch.arange(x.shape[1])[:, None] * torch.arange(1, 5)
        turn = torch.polar(torch.ones(angle.shape, dtype=x.dtype), angle.to(x.dtype))
        q, k = (
            torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (4, 2))) * turn).flatten(-2)
            for y in (q, k)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class LastStates(nn.Module):
    """The last states of both directions and layers are read: each has units of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(4, 6, 2, batch_first=True, bidirectional=True), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[1].transpose(0, 1).flatten(1))  # type: ignore[no-any-return]


class Modulated(nn.Module):
    """StyleGAN's convolution: a kernel per sample, all of them in one grouped convolution over samples and channels."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.kernel = nn.Linear(4, 3), nn.Parameter(torch.randn(1, 5, 3, 3, 3))
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel * self.style(z)[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        y = functional.conv2d(x.reshape(1, 6, 6, 6), kernel.reshape(10, 3, 3, 3), groups=2)
        return self.last(functional.leaky_relu(y.view(2, 5, 4, 4)))  # type: ignore[no-any-return]


class Memory(nn.Module):
    """The best two of some keys, by their cosines, and the values that belong to them."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(4, 3), nn.Linear(4, 2)
        self.keys, self.values = nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.randn(7, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, keys = (functional.normalize(y, dim=-1) for y in (self.query(x), self.keys))
        weight, index = (query @ keys.T).softmax(-1).topk(2, -1)
        return self.out((weight[..., None] * self.values[index]).sum(1) + x)  # type: ignore[no-any-return]


FOUND: dict[str, tuple[type[nn.Module], tuple[Any, ...], list[int]]] = {
    "key and value by index": (KeyAndValueByIndex, (torch.randn(1, 6, 7),), [4, 8]),
    # the two cycles change places, and so do the last two units
    "added to its own cycle": (AddedToItsOwnCycle, (torch.randn(1, 4, 5),), [2, 2]),
    "differential attention": (DifferentialAttention, (torch.randn(1, 6, 7),), [2, 8, 8, 8]),
    "complex parts": (ComplexParts, (torch.randn(2, 5),), [6]),
    "last states": (LastStates, (torch.randn(1, 5, 4),), [6, 6, 6, 6]),
    "unpooled": (Unpooled, (torch.randn(1, 3, 8, 8),), [8]),
    "complex rotary": (ComplexRotary, (torch.randn(1, 5, 6),), [3, 8]),
    "shared bias": (SharedBias, (torch.randn(1, 6, 7),), [2, 2, 8, 8]),
    "modulated": (Modulated, (torch.randn(2, 3, 6, 6), torch.randn(2, 4)), [5]),
    "memory": (Memory, (torch.randn(2, 4),), [3, 7]),
    "masked by a triangle": (MaskedByTriangle, (torch.randn(1, 1, 5),), []),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    torch.manual_seed(0)
    kind, inputs, sizes = FOUND[name]
    net = kind()
    spec = infer(capture(net, inputs))
    assert max(verify(net, inputs, spec, seed=seed) for seed in range(3)) < 1e-9
    assert sorted(g.size for g in spec.groups) == sizes
    assert not spec.unknown_ops
    assert not spec.frozen or name == "added to its own cycle"  # rotations are no symmetric group
