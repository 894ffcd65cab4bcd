"""Packed sequences: recorded as the padded computation that they stand for, whose ops have rules.

A packed sequence holds the steps of several sequences of unequal length in one list, (step, sequence) after (step,
sequence). Packing is an index by a table of such pairs, and a recurrent layer on packed data is the layer on padded
data, packed again.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from permgraph.ir.trace import Ref

INDEX = "aten.index.Tensor"


class Recorder(Protocol):
    """What is needed of a recorder."""

    def add(self, base: str, op: str, args: tuple[Any, ...], results: Any, **rest: Any) -> Ref: ...

    def ref(self, tensor: Tensor) -> Ref: ...

    def name(self, tensor: Tensor, ref: Ref) -> None: ...

    def read(self, tensor: Tensor) -> None: ...

    def meet(self, values: Any) -> None: ...


def pack(recorder: Recorder, args: tuple[Any, ...], result: Any) -> None:
    """_pack_padded_sequence(padded, lengths, batch_first) → (data, batch sizes)"""
    padded, lengths, batch_first = args
    data, sizes = result
    recorder.read(lengths)
    recorder.meet(sizes)  # known from what was read
    steps, rows = _pairs(sizes)
    order = (rows, steps) if batch_first else (steps, rows)
    recorder.name(data, _index(recorder, recorder.ref(padded), order, data))


def recurrent(kind: str, recorder: Recorder, args: tuple[Any, ...], result: Any) -> Ref:
    """lstm, gru, rnn_tanh or rnn_relu (data, batch sizes, hx, params, …) → (data, final states …); its node"""
    data, sizes, hx, params, *rest = args
    steps, rows = _pairs(sizes)
    places = torch.zeros(len(sizes), int(sizes[0]), dtype=torch.long)
    places[steps, rows] = torch.arange(len(steps))
    out, *last = result
    padded = _index(recorder, recorder.ref(data), (places,), data[places])
    start = tuple(map(recorder.ref, hx)) if isinstance(hx, (tuple, list)) else recorder.ref(hx)
    operands = (padded, start, tuple(map(recorder.ref, params)), *rest, False)
    results = (out[places], *last)
    layer = recorder.add(kind, f"aten.{kind}.input", operands, results, multiple=True)
    recorder.name(results[0], layer)
    refs = [recorder.add("getitem", "getitem", (layer, i), value) for i, value in enumerate(results)]
    recorder.name(results[0], refs[0])
    for state, ref in zip(last, refs[1:], strict=True):
        recorder.name(state, ref)
    recorder.name(out, _index(recorder, refs[0], (steps, rows), out))
    return layer


def pad(recorder: Recorder, args: tuple[Any, ...], result: Any) -> None:
    """_pad_packed_sequence(data, batch sizes, batch_first, padding value, total length) → (padded, lengths)"""
    data, sizes, batch_first, value, _ = args
    padded = result[0].transpose(0, 1) if batch_first else result[0]
    steps, rows = _pairs(sizes)
    places = torch.zeros(padded.shape[:2], dtype=torch.long)
    places[steps, rows] = torch.arange(len(steps))
    empty = torch.ones(padded.shape[:2], dtype=torch.bool)
    empty[steps, rows] = False
    empty = empty.reshape(*empty.shape, *(1 for _ in padded.shape[2:]))
    ref = _index(recorder, recorder.ref(data), (places,), data[places])
    mask = recorder.add("table", "constant", (), empty, value=empty.tolist())
    ref = recorder.add("masked_fill", "aten.masked_fill.Scalar", (ref, mask, value), padded, pointwise=True)
    if batch_first:
        ref = recorder.add("transpose", "aten.transpose.int", (ref, 0, 1), result[0])
    recorder.name(result[0], ref)
    recorder.meet(result[1])  # the lengths, as they were read


def _pairs(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(step, sequence) of every row of packed data."""
    pairs = [(step, row) for step, count in enumerate(sizes.tolist()) for row in range(count)]
    steps, rows = torch.tensor(pairs, dtype=torch.long).unbind(1)
    return steps, rows


def _index(recorder: Recorder, source: Ref, tables: tuple[Tensor, ...], result: Tensor) -> Ref:
    known = tuple(recorder.add("table", "constant", (), t, value=t.tolist()) for t in tables)
    return recorder.add("index", INDEX, (source, known), result)
