"""Recurrent layers, decomposed for observation: what `lstm`, `gru` and `rnn` compute on their way and do not return.

The op returns the outputs of its last layer. Here it is run one layer at a time, exactly as it would do, and the
hidden states of every layer and direction are kept at every step. The names are the axis rule's, which says of each
of these results which units it holds (`axes/rules/recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from permgraph.ir.names import hidden_states_name as state_name

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def is_recurrent(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.partition("::")[2] in KINDS


def hidden_states(
    target: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], node: str
) -> dict[str, Tensor]:
    """Name → hidden states (sequences, steps, units); of packed sequences (1, all steps, units)."""
    names = [argument.name for argument in target._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    call = _Call(target, given)
    found = {}
    x = call.sequence
    with torch.no_grad():
        for layer in range(given["num_layers"]):
            if layer and given["train"]:
                x = torch.dropout(x, given["dropout"], True)
            y = call.layer(layer, x)
            for way, states in enumerate(y.chunk(call.ways, -1)):
                found[state_name(node, layer, bool(way))] = call.by_sequence(states)
                if call.projected:
                    inner = _before_projection(call, layer, way, x, states)
                    found[state_name(node, layer, bool(way), True)] = call.by_sequence(inner)
            x = y
    return found


@dataclass(frozen=True)
class _Call:
    """One call of a recurrent op, with its arguments by name."""

    target: Any
    given: dict[str, Any]

    @property
    def packed(self) -> bool:
        return "batch_sizes" in self.given

    @property
    def sequence(self) -> Tensor:
        x: Tensor = self.given["data" if self.packed else "input"]
        return x

    @property
    def ways(self) -> int:
        return 2 if self.given["bidirectional"] else 1

    @property
    def projected(self) -> bool:
        return bool(self.given["num_layers"]) and len(self.weights(0, 0)) > (
            4 if self.given["has_biases"] else 2
        )

    def start(self, first: int, count: int) -> Any:
        """Initial states of some (layer, direction)s, as the op takes them."""
        hx = self.given["hx"]
        cut = [h[first : first + count].contiguous() for h in (hx if isinstance(hx, (tuple, list)) else [hx])]
        return cut if isinstance(hx, (tuple, list)) else cut[0]

    def weights(self, layer: int, way: int) -> list[Tensor]:
        """w_ih, w_hh, b_ih?, b_hh?, w_hr? of one layer and direction."""
        per = len(self.given["params"]) // (self.given["num_layers"] * self.ways)
        at = (layer * self.ways + way) * per
        return list(self.given["params"][at : at + per])

    def layer(self, layer: int, x: Tensor) -> Tensor:
        """The outputs of one layer, both directions."""
        own = {
            "input": x,
            "data": x,
            "hx": self.start(layer * self.ways, self.ways),
            "params": [w for way in range(self.ways) for w in self.weights(layer, way)],
            "num_layers": 1,
            "dropout": 0.0,
        }
        y: Tensor = self.target(*(own.get(name, value) for name, value in self.given.items()))[0]
        return y

    def by_sequence(self, states: Tensor) -> Tensor:
        if self.packed:
            return states[None]
        return states if self.given["batch_first"] else states.transpose(0, 1)

    def padded(self, x: Tensor) -> Tensor:
        """(steps, sequences, channels); steps after the end of a packed sequence are zero."""
        if self.packed:
            sizes = self.given["batch_sizes"]
            x = torch._VF._pad_packed_sequence(x, sizes, False, 0.0, len(sizes))[0]
            return x
        return x.transpose(0, 1) if self.given["batch_first"] else x

    def running(self, steps: int, sequences: int) -> Tensor:
        """(steps, sequences): which sequences have a step here."""
        if not self.packed:
            return torch.ones(steps, sequences, dtype=torch.bool)
        sizes: Tensor = self.given["batch_sizes"]
        return torch.arange(sequences) < sizes.cpu()[:, None]

    def like_input(self, padded: Tensor) -> Tensor:
        """Back from (steps, sequences, channels) to the layout of the input."""
        if self.packed:
            return torch.cat(
                [row[:n] for row, n in zip(padded, self.given["batch_sizes"].tolist(), strict=True)]
            )
        return padded.transpose(0, 1) if self.given["batch_first"] else padded


def _before_projection(call: _Call, layer: int, way: int, x: Tensor, states: Tensor) -> Tensor:
    """The hidden units o · tanh(c) of an LSTM with `proj_size`, from its input and its projected states.

    These give the gates of every step at once, so only the cell has to be followed step by step.
    """
    w_ih, w_hh, *rest = call.weights(layer, way)
    h0, c0 = (s[0] for s in call.start(layer * call.ways + way, 1))
    x, states = call.padded(x), call.padded(states)
    order = range(len(x))[::-1] if way else range(len(x))
    running = call.running(*x.shape[:2]).to(x.device)[..., None]
    hidden = torch.empty(*x.shape[:2], c0.shape[-1], dtype=c0.dtype, device=c0.device)
    before, cell = h0, c0
    for t in order:
        gates = x[t] @ w_ih.T + before @ w_hh.T + (sum(rest[:2]) if call.given["has_biases"] else 0)
        keep, forget, new, out = gates.chunk(4, -1)
        after = forget.sigmoid() * cell + keep.sigmoid() * new.tanh()
        hidden[t] = out.sigmoid() * after.tanh()
        cell = torch.where(running[t], after, cell)
        before = torch.where(running[t], states[t], before)
    return call.like_input(hidden)


def wanted_inside(node: str, wanted: frozenset[str] | set[str]) -> bool:
    """Whether states within this node are wanted."""
    return any(name.startswith(f"{node}:") for name in wanted)


def states_of(
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    node: str,
    wanted: frozenset[str] | set[str],
) -> Iterator[tuple[str, Tensor]]:
    """The wanted states within a node, if it is a recurrent layer."""
    if is_recurrent(target) and wanted_inside(node, wanted):
        yield from ((n, t) for n, t in hidden_states(target, args, kwargs, node).items() if n in wanted)
