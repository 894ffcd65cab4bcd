"""Slices: which axes of the state are ordered separately in each slice along another axis.

A weight (expert, in, out) whose experts are only ever a batch axis has an order of its units in each expert. It shows
in a first pass, in which every axis has labels of its own: whatever is labelled as the units are is labelled as the
experts are, too. A weight that is only read slice by slice is several weights in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from permgraph.axes.contraction import Contraction
from permgraph.axes.kernels import computed_blocks, plain_kernels
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.op_kinds import RESHAPES
from permgraph.axes.points import Labels, Points, components
from permgraph.axes.state_labels import Rows
from permgraph.axes.ways import is_fixed
from permgraph.axes.workspace import UNREAD
from permgraph.ir.ref import refs_in
from permgraph.ir.trace import Node, Ref, Trace

_RECURRENT = frozenset(["lstm", "gru", "rnn_tanh", "rnn_relu"])
_KEEP_FIRST = RESHAPES | frozenset(["alias", "clone", "contiguous", "detach", "expand", "repeat"])
_LARGEST = 2**22  # labels of one axis in all its slices

Slices = dict[
    str, dict[int, Rows]
]  # state node → {axis: along which axis it is ordered in each slice or block}


@dataclass(frozen=True)
class _Kinds:
    """Runs of points, those that are tied taken together: what sort of axis each point belongs to."""

    of: Labels
    pinned: set[int]
    known: dict[int, set[int]] = field(
        default_factory=dict
    )  # by the identity of labels, which the record keeps

    @classmethod
    def of_points(cls, points: Points) -> _Kinds:
        run = points.runs()
        a, b = (run[end] for end in points.ties())
        other = (np.diff(a, prepend=-1) != 0) | (
            np.diff(b, prepend=-1) != 0
        )  # next to each other, most are equal
        _, of_run = components(int(run.max(initial=-1)) + 1, a[other], b[other])
        of = of_run[run]
        return cls(of, set(of[points.pins()[0]].tolist()))

    def of_array(self, array: LabelArray) -> set[int]:
        found = self.known.get(id(array.labels))
        if found is None:
            kinds = self.of[array.labels].ravel()
            one = bool(kinds.size and (kinds == kinds[0]).all())  # nearly always, and soon seen
            found = self.known[id(array.labels)] = set((kinds[:1] if one else np.unique(kinds)).tolist())
        return found


def slices_of(
    trace: Trace,
    points: Points,
    record: Iterable[Contraction],
    labelled: dict[str, LabelledTensor],
    moving: Iterable[LabelledTensor],
) -> Slices:
    """Found in one pass: from every contraction, and the labelled tensors by node.

    `moving` are outputs that are free: a caller can put an axis of theirs back in order as a whole only.
    """
    kinds = _Kinds.of_points(points)
    states = {
        node.name: tensor
        for node in trace.nodes
        if node.op == "state" and (tensor := labelled.get(node.name)) and tensor.table is None
    }
    unread = set(kinds.of[points.pinned_for(UNREAD)].tolist())  # slices there would not follow the others
    kinds.pinned.update(*(kinds.of_array(array) for tensor in moving for array in tensor.arrays))
    found = {
        name: {}
        if any(kinds.of_array(a) & unread for a in tensor.arrays)
        else _read_by_slices(trace, name, tensor)
        for name, tensor in states.items()
    }
    beside = _always_beside(kinds, record, states.values())
    chosen: dict[int, int] = {}
    for outer, inner in sorted(_pairs(kinds, beside, states.values())):
        if outer in unread:
            continue
        if inner not in chosen and inner not in chosen.values() and outer not in chosen:
            chosen[inner] = outer
    blocks = computed_blocks(trace, labelled)
    shared = plain_kernels(trace) if chosen else set()
    for name, tensor in states.items():
        if name in shared or name in blocks:
            continue
        axes = {a.dims[0]: int(kinds.of[a.labels.flat[0]]) for a in tensor.arrays if len(a.dims) == 1}
        for axis, kind in axes.items():
            rows = next((r for r, k in axes.items() if r != axis and k == chosen.get(kind)), None)
            if rows is not None and axis not in found[name] and rows not in found[name]:
                found[name][axis] = Rows(rows)
    return {name: axes for name, axes in (found | blocks).items() if axes}


def _always_beside(
    kinds: _Kinds, record: Iterable[Contraction], states: Iterable[LabelledTensor]
) -> dict[int, set[int]]:
    """For every kind of axis, the kinds that stand beside it in every tensor where it occurs.

    In a contraction names say what is the same axis in two tensors.
    """
    beside: dict[int, set[int]] = {}

    def met(kind: int, others: set[int]) -> None:
        beside[kind] = beside[kind] & others if kind in beside else others

    for tensor in states:
        for array in tensor.arrays:
            others = {k for a in tensor.arrays if a is not array for k in kinds.of_array(a)}
            for kind in kinds.of_array(array):
                met(kind, others)
    for step in record:
        of_name: dict[str, set[int]] = {}
        for names, array in (pair for tensor in step.names for pair in tensor if len(pair[0]) == 1):
            of_name.setdefault(names[0], set()).update(kinds.of_array(array))
        for touched in {frozenset(x for names, _ in tensor for x in names) for tensor in step.names}:
            for name in touched:
                others = {k for x in touched if x != name for k in of_name.get(x, ())}
                for kind in of_name.get(name, ()):
                    met(kind, others)
    return beside


def _pairs(
    kinds: _Kinds, beside: dict[int, set[int]], states: Iterable[LabelledTensor]
) -> Iterator[tuple[int, int]]:
    """(kind of the slices, kind of what is ordered in each), where both are axes of one tensor of the state."""
    for tensor in states:
        axes = [
            (a.dims[0], int(kinds.of[a.labels.flat[0]]), a.labels.size)
            for a in tensor.arrays
            if len(a.dims) == 1
        ]
        for rows, outer, n in axes:
            for axis, inner, m in axes:
                apart = rows != axis and outer != inner and inner not in kinds.pinned
                if apart and outer in beside[inner] and n * m <= _LARGEST:
                    yield outer, inner


def slicing(trace: Trace) -> frozenset[str]:
    """Indices, computed or given, that take matrices or larger parts out of weights."""
    return frozenset(
        name
        for node in trace.nodes
        if node.short_op in ("index", "index_select", "embedding")
        for name in refs_in([node.operands.get(key) for key in ("indices", "index")])
        if (weight := trace.by_name[next(node.refs())]).is_float
        and len(weight.shape) > 2
        and is_fixed(weight, trace.by_name)
    )


def _read_by_slices(trace: Trace, name: str, tensor: LabelledTensor) -> dict[int, Rows]:
    """Every axis in each slice of another, when the state is read slice by slice and in no other way."""
    along = {_sliced(trace, node, name) for node in trace.readers.get(name, ())}
    rows = along.pop() if len(along) == 1 else None
    if rows is None or tensor.rank < 2 or tensor.shape[rows] < 2:
        return {}
    return {a.dims[0]: Rows(rows) for a in tensor.arrays if len(a.dims) == 1 and a.dims != (rows,)}


def _sliced(trace: Trace, node: Node, name: str) -> int | None:
    """The dim along which a node takes single slices of a tensor; None where it reads it in another way."""
    if name in refs_in([node.operands.get("hx")]) and node.short_op in _RECURRENT:
        return 0 if [*node.refs()].count(name) == 1 else None  # (layer and direction, batch, unit)
    if node.operands.get("self") != Ref(name):
        return None
    shape = trace.by_name[name].shape
    if node.short_op in _KEEP_FIRST and node.shape[:1] == shape[:1]:
        along = {_sliced(trace, reader, node.name) for reader in trace.readers.get(node.name, ())}
        return 0 if along == {0} else None
    if node.short_op not in ("select", "unbind"):
        return None
    dim, index = node.options["dim"], node.options.get("index", 0)
    return dim % len(shape) if isinstance(index, int) else None
