"""Elementwise ops: those that torch does not tag as pointwise, and ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.contraction import contract
from permgraph.axes.equal_values import MOVEMENTS
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.merges import JOINS
from permgraph.axes.movement import moved, span
from permgraph.axes.rules.builders import one_dim, pointwise
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.tables import computed, known
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Ref

_COPIES = tuple(f"aten.{name}." for name in ("alias", "clone", "contiguous", "detach", "lift_fresh_copy"))
_COMMUTATIVE = ("add", "mul", "maximum", "minimum", "fmax", "fmin")

register("isin", "...?, t*? -> ...", "elements", "test_elements")


@op("permgraph.pointwise hardswish masked_fill copy floor_divide complex polar _prelu_kernel")
def elementwise(call: Call) -> LabelledTensor:
    """..., ... -> ..."""
    tensors = call.tensors
    if call.node.short_op in _COMMUTATIVE and len(tensors) == 2 and _same_values(call):
        tensors = list(in_any_order(*tensors))
    result = contract(", ".join(["..."] * len(tensors)) + " -> ...", tensors, call.shape)
    return known(result, computed(call.node, call.operands))


def in_any_order(a: LabelledTensor, b: LabelledTensor) -> tuple[LabelledTensor, LabelledTensor]:
    """Operands of an op that commutes, both one tensor in two orders: its results are units of their own, linked to two each.

    x + x.flip: each result stands there twice, and what reads it may exchange the two. x + x.roll(1): seen from the
    other side of the circle the terms are exchanged, and the result is the same.
    """
    if a.shape != b.shape or [x.dims for x in a.arrays] != [x.dims for x in b.arrays] or _shared(a):
        return a, b
    pairs = list(zip(a.arrays, b.arrays, strict=True))
    moved = [not np.array_equal(x.labels, y.labels) for x, y in pairs]
    if not any(moved) or not all(_reordered(x, y) for (x, y), m in zip(pairs, moved, strict=True) if m):
        return a, b
    a.space.use(a)
    b.space.use(b)
    sums = [_sums(a.space, x, y) if m else (x, y) for (x, y), m in zip(pairs, moved, strict=True)]
    return replace(a, arrays=tuple(x for x, _ in sums)), replace(b, arrays=tuple(y for _, y in sums))


def _shared(tensor: LabelledTensor) -> bool:
    """Whether two dims have labels in common: these do not say then which element it is."""
    labels = [np.unique(array.labels) for array in tensor.arrays]
    return bool(labels) and np.unique(np.concatenate(labels)).size < sum(x.size for x in labels)


def _same_values(call: Call) -> bool:
    """Whether both operands are one tensor, in two orders."""
    refs = [value for value in call.node.operands.values() if isinstance(value, Ref)]
    roots = {_root(call, ref.node) for ref in refs}
    return len(refs) == 2 and len(roots) == 1 and call.node.options.get("alpha", 1) == 1


def _root(call: Call, name: str) -> str:
    """The node whose coordinates these are, moved."""
    node = call.nodes[name]
    refs = list(node.refs())
    tables = [ref for ref in refs[1:] if call.nodes[ref].op == "constant"]
    if (
        node.short_op in MOVEMENTS
        or node.op == "getitem"
        or (node.short_op == "index" and refs[1:] == tables)
    ):
        return _root(call, refs[0])
    if node.short_op in JOINS:
        roots = {_root(call, ref) for ref in refs}
        return roots.pop() if len(roots) == 1 else name
    return name


def _reordered(a: LabelArray, b: LabelArray) -> bool:
    """Whether the coordinates of `a` stand in `b` in another order."""
    one, two = np.sort(a.labels.ravel()), np.sort(b.labels.ravel())
    return not (a.pinned or b.pinned or (np.diff(one) == 0).any()) and np.array_equal(one, two)


def _sums(space: Workspace, a: LabelArray, b: LabelArray) -> tuple[LabelArray, LabelArray]:
    """Points for what is made of two coordinates of one axis, in either order."""
    made = space.points.fresh(a.labels.shape)
    space.points.link(np.stack([made, made]), np.stack([space.used_part(x).labels for x in (a, b)]))
    both = replace(a, labels=made, part=None)
    return both, both


@op("alias clone detach lift lift_fresh lift_fresh_copy _to_copy alias_copy detach_copy bernoulli _conj")
def same(call: Call) -> LabelledTensor:
    """The input itself; a table of indices keeps its contents."""
    tensor, *others = call.tensors
    call.only_shapes(*others)
    cut = any(a.part is not None for a in tensor.arrays)
    copied = call.node.op.startswith(_COPIES)
    result = moved(tensor, call.shape, tensor.arrays) if cut and copied else pointwise(tensor)
    dtypes = (tensor.dtype, call.node.results[0].dtype if call.node.results[0] else "")
    integers = all(dtype.startswith(("int", "uint8")) for dtype in dtypes)
    return replace(result, table=tensor.table) if integers else result


@op("native_dropout")
def dropout(input: LabelledTensor, call: Call) -> Results:
    """... -> ..."""
    return call.every(pointwise(input))


@op("glu")
def glu(self: LabelledTensor, dim: int) -> LabelledTensor:
    """a · σ(b) for the two halves of a dim."""
    dim = one_dim(dim, self.rank)
    half = self.shape[dim] // 2
    return pointwise(span(self, dim, 0, half), span(self, dim, half, 2 * half))
