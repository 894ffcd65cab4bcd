"""Networks with units that the graph does not show as it stands: recurrent layers, loops and branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from networks.handmade import Made, made

SEQUENCE = (2, 9, 5)


class Recurrent(nn.Module):
    """A recurrent layer under a linear one; `last`: only the states after the last step are read."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, last: bool = False, **options: Any) -> None:
        super().__init__()
        self.last = last
        self.rnn = kind(5, 6, num_layers=layers, **options)
        width = (options.get("proj_size") or 6) * (2 if self.rnn.bidirectional else 1)
        self.out = nn.Linear(width * (layers if last else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, states = self.rnn(x)
        if self.last:
            states = states[0] if isinstance(states, tuple) else states
            steps = states.transpose(0, 1).flatten(1)
        return self.out(steps)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 6)
        self.last = nn.Linear(6, 3)

    def turn(self, h: Tensor) -> Tensor:
        return self.two(self.one(h).tanh()).tanh()


class Scan(Layers):
    """Five steps; the hidden layer of 7 units lives in the loop alone."""

    def forward(self, x: Tensor) -> Tensor:
        def step(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            state = torch.tanh(self.first(row) + self.turn(state))
            return state, 2 * state

        return self.last(scan(step, x.new_zeros(len(x), 6), x.transpose(0, 1), dim=0)[1])


class While(Layers):
    def forward(self, x: Tensor) -> Tensor:
        start = torch.tensor(0), self.first(x).tanh()
        _, h = while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, self.turn(h)), start)
        return self.last(h)


class Branch(Layers):
    """One arm has the hidden layer of 7 units, the other does without."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        h = torch.cond(h.sum() > -1e6, lambda h: self.turn(h), lambda h: 2 * h, (h,))
        return self.last(h.tanh())


class Map(Layers):
    def forward(self, x: Tensor) -> Tensor:
        def row(x: Tensor) -> Tensor:
            return self.turn(self.first(x).tanh())

        return self.last(map_rows(row, x))


class Unrolled(Layers):
    """A recurrent layer inside a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 6, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        start, weights = x.new_zeros(2, len(x), 6), [*self.rnn.parameters()]

        def turn(i: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.gru(h, start, weights, True, 2, 0.0, False, False, True)[0].contiguous()

        _, h = while_loop(lambda i, h: i < 2, turn, (torch.tensor(0), self.first(x).tanh()))
        return self.last(h)


def recurrent(kind: type[nn.RNNBase], layers: int, **options: Any) -> Callable[[], Made]:
    return made(lambda: Recurrent(kind, layers, **options), *SEQUENCE)


RECURRENT = {
    "rnn_tanh": recurrent(nn.RNN, 2),
    "rnn_relu": recurrent(nn.RNN, 2, nonlinearity="relu", batch_first=True, bidirectional=True),
    "gru": recurrent(nn.GRU, 3, batch_first=True),
    "gru_last_state": recurrent(nn.GRU, 2, last=True, batch_first=True, bidirectional=True),
    "lstm": recurrent(nn.LSTM, 2, bidirectional=True),
    "lstm_no_bias": recurrent(nn.LSTM, 2, bias=False, batch_first=True),
    "lstm_projected": recurrent(nn.LSTM, 2, proj_size=4, bidirectional=True),
    "scan": made(Scan, *SEQUENCE),
    "while_loop": made(While, *SEQUENCE),
    "branch": made(Branch, *SEQUENCE),
    "map": made(Map, *SEQUENCE),
    "gru_in_loop": made(Unrolled, *SEQUENCE),
}
