"""Recurrent layers run layer by layer: what is kept on the way is what the op itself computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from permgraph.frontend.recurrent import hidden_states

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

KINDS = {
    "tanh": (nn.RNN, {}, torch.ops.aten.rnn_tanh),
    "relu": (nn.RNN, {"nonlinearity": "relu"}, torch.ops.aten.rnn_relu),
    "gru": (nn.GRU, {}, torch.ops.aten.gru),
    "gru without biases": (nn.GRU, {"bias": False}, torch.ops.aten.gru),
    "lstm": (nn.LSTM, {}, torch.ops.aten.lstm),
    "lstm with projections": (nn.LSTM, {"proj_size": 4}, torch.ops.aten.lstm),
    "lstm with projections, without biases": (nn.LSTM, {"proj_size": 4, "bias": False}, torch.ops.aten.lstm),
}


def start(net: nn.RNNBase, sequences: int) -> Any:
    """Initial states that are not zero."""
    rows = net.num_layers * (2 if net.bidirectional else 1)
    h = torch.randn(rows, sequences, net.proj_size or net.hidden_size)
    return [h, torch.randn(rows, sequences, net.hidden_size)] if isinstance(net, nn.LSTM) else h


def made(kind: str, layers: int, both_ways: bool, batch_first: bool = True) -> tuple[nn.RNNBase, Any]:
    torch.manual_seed(0)
    cls, options, packet = KINDS[kind]
    net = cls(5, 6, layers, bidirectional=both_ways, batch_first=batch_first, **options).double()
    return net.requires_grad_(False), packet


def run(
    net: nn.RNNBase, target: Any, operands: tuple[Any, ...], last: tuple[Any, ...]
) -> tuple[Any, dict[str, Tensor]]:
    """The op's results, and the hidden states of its layers."""
    weights = [w for group in net.all_weights for w in group]
    args = (*operands, weights, net.bias, net.num_layers, 0.0, False, net.bidirectional, *last)
    return target(*args), hidden_states(target, args, {}, "rnn")


@pytest.fixture(autouse=True)
def in_double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def names(layer: int, both_ways: bool) -> list[str]:
    return [f"rnn:l{layer}", f"rnn:l{layer}_reverse"][: 2 if both_ways else 1]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_is_what_the_op_returns(
    kind: str, layers: int, both_ways: bool, batch_first: bool
) -> None:
    net, packet = made(kind, layers, both_ways, batch_first)
    x, hx = torch.randn(3, 7, 5), start(net, 3 if batch_first else 7)
    (out, h, *_), found = run(net, packet.input, (x, hx), (batch_first,))
    last = torch.cat([found[name] for name in names(layers - 1, both_ways)], -1)
    torch.testing.assert_close(last, out if batch_first else out.transpose(0, 1), rtol=1e-12, atol=1e-12)
    for row, name in enumerate(n for layer in range(layers) for n in names(layer, both_ways)):
        end = 0 if name.endswith("_reverse") else -1
        torch.testing.assert_close(found[name][:, end], h[row], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind: str, both_ways: bool) -> None:
    net, packet = made(kind, 2, both_ways)
    packed = pack_padded_sequence(torch.randn(3, 7, 5), [7, 4, 2], batch_first=True)
    (out, h, *_), found = run(net, packet.data, (packed.data, packed.batch_sizes, start(net, 3)), ())
    last = torch.cat([found[name][0] for name in names(1, both_ways)], -1)
    torch.testing.assert_close(last, out, rtol=1e-12, atol=1e-12)
    ends = {"": torch.tensor([6, 3, 1]), "_reverse": torch.zeros(3, dtype=torch.int64)}
    for row, name in enumerate(n for layer in range(2) for n in names(layer, both_ways)):
        steps, _ = pad_packed_sequence(packed._replace(data=found[name][0]))
        at = ends["_reverse" if name.endswith("_reverse") else ""]
        torch.testing.assert_close(steps[at, range(3)], h[row], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", [k for k in KINDS if "projections" in k])
def test_units_before_a_projection_give_the_states_when_projected(
    kind: str, both_ways: bool, packed: bool
) -> None:
    net, packet = made(kind, 2, both_ways)
    x, hx = torch.randn(3, 7, 5), start(net, 3)
    if packed:
        rows = pack_padded_sequence(x, [7, 4, 2], batch_first=True)
        (*_, cells), found = run(net, packet.data, (rows.data, rows.batch_sizes, hx), ())
    else:
        (*_, cells), found = run(net, packet.input, (x, hx), (True,))
    for layer in range(2):
        for name in names(layer, both_ways):
            weight = getattr(net, f"weight_hr_{name.partition(':')[2]}")
            inner = found[f"{name}.hidden"]
            torch.testing.assert_close(inner @ weight.T, found[name], rtol=1e-12, atol=1e-12)
            assert inner.shape[-1] == cells.shape[-1] == 6
