"""Hand-made networks: those the tests use, recurrent ones, and conformer encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo_models import Made


class Convolution(nn.Module):
    """The convolution module of a conformer: gate, depthwise convolution, batch norm."""

    def __init__(self, width: int, kernel: int = 7) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Conv1d(width, 2 * width, 1)
        self.depth = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch = nn.BatchNorm1d(width)
        self.down = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.glu(self.up(self.norm(x).transpose(1, 2)), dim=1)
        return self.down(functional.silu(self.batch(self.depth(y)))).transpose(1, 2)  # type: ignore[no-any-return]


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward."""

    def __init__(self, width: int = 24, heads: int = 3, inner: int = 40) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, width)
        )
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.conv = Convolution(width)
        self.second = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, width)
        )
        self.last = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.first(x)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.conv(x)
        return self.last(x + 0.5 * self.second(x))  # type: ignore[no-any-return]


class Conformer(nn.Module):
    def __init__(self, features: int = 20, width: int = 24, layers: int = 2, classes: int = 11) -> None:
        super().__init__()
        self.sub = nn.Sequential(
            nn.Conv1d(features, width, 3, 2, 1), nn.ReLU(), nn.Conv1d(width, width, 3, 2, 1)
        )
        self.layers = nn.ModuleList(ConformerLayer(width) for _ in range(layers))
        self.out = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.sub(x).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """An RNN, GRU or LSTM between two linear maps."""

    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.first = nn.Linear(5, 9)
        self.rnn = kind(9, 12, batch_first=True, **options)  # type: ignore[arg-type]
        self.last = nn.LazyLinear(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.rnn(torch.tanh(self.first(x)))[0])  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """torch's own encoder-decoder, with packed projections."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 24)
        self.net = nn.Transformer(24, 3, 2, 2, 40, batch_first=True)
        self.head = nn.Linear(24, 7)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(self.embed(a), self.embed(b)))  # type: ignore[no-any-return]


def _recurrent(kind: type[nn.RNNBase], **options: object) -> Callable[[], Made]:
    def made() -> Made:
        net, x = Recurrent(kind, **options), torch.randn(1, 6, 5)
        net(x)
        return net, (x,), {}

    return made


def _from_tests() -> dict[str, Callable[[], Made]]:
    from networks import HANDMADE

    return {name: partial(_plain, factory) for name, factory in HANDMADE.items()}


def _plain(factory: Callable[[], tuple[Any, ...]]) -> Made:
    module, inputs = factory()
    return module, inputs, {}


NETS: dict[str, Callable[[], Made]] = {
    **_from_tests(),
    "conformer": lambda: (Conformer(), (torch.randn(1, 20, 30),), {}),
    "torch_transformer": lambda: (
        Transformer(),
        (torch.randint(17, (1, 6)), torch.randint(17, (1, 5))),
        {},
    ),
    "rnn": _recurrent(nn.RNN),
    "gru": _recurrent(nn.GRU),
    "lstm": _recurrent(nn.LSTM),
    "gru_two_layers_bidirectional": _recurrent(nn.GRU, num_layers=2, bidirectional=True),
    "lstm_two_layers_bidirectional": _recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm_projected": _recurrent(nn.LSTM, proj_size=6),
}
