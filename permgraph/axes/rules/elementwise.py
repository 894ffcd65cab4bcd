"""Elementwise ops: those that torch does not tag as pointwise, and ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.contraction import contract
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import moved, span
from permgraph.axes.rules.builders import one_dim, pointwise
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.tables import computed, known
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Ref

_COPIES = tuple(f"aten.{name}." for name in ("alias", "clone", "contiguous", "detach", "lift_fresh_copy"))
_IN_PLACE = ("roll", "flip", "alias", "clone", "contiguous", "detach")  # every dim stays itself
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
    """Operands of an op that commutes, one the other one rolled: its results are units of their own, each linked to two.

    x + roll(x) on a circle of channels: seen from the other side of the circle the terms are exchanged, and the result
    is the same. Where the same two meet twice (x + flip(x)) a tie says all that there is to say.
    """
    if a.shape != b.shape or [x.dims for x in a.arrays] != [x.dims for x in b.arrays]:
        return a, b
    pairs = list(zip(a.arrays, b.arrays, strict=True))
    rolled = [not np.array_equal(x.labels, y.labels) for x, y in pairs]
    if not any(rolled) or not all(_on_circles(x, y) for (x, y), r in zip(pairs, rolled, strict=True) if r):
        return a, b
    a.space.use(a)
    b.space.use(b)
    sums = [_sums(a.space, x, y) if r else (x, y) for (x, y), r in zip(pairs, rolled, strict=True)]
    return replace(a, arrays=tuple(x for x, _ in sums)), replace(b, arrays=tuple(y for _, y in sums))


def _same_values(call: Call) -> bool:
    """Whether both operands are one tensor, of which coordinates were moved along their dims."""
    roots = set()
    for value in call.node.operands.values():
        node = call.nodes[value.node] if isinstance(value, Ref) else None
        while node is not None and node.short_op in _IN_PLACE and isinstance(node.operands.get("self"), Ref):
            node = call.nodes[node.operands["self"].node]
        roots.add(node and node.name)
    return len(roots) == 1 and None not in roots and call.node.options.get("alpha", 1) == 1


def _on_circles(a: LabelArray, b: LabelArray) -> bool:
    """Whether the coordinates of `a` stand in `b` in another order, which has no two of them changed."""
    one, two = a.labels.ravel(), b.labels.ravel()
    order = np.argsort(one)
    if (
        a.pinned
        or b.pinned
        or (np.diff(one[order]) == 0).any()
        or not np.array_equal(one[order], np.sort(two))
    ):
        return False
    to = order[np.searchsorted(one[order], two)]  # two[i] is one[to[i]]
    return not (to[to] == np.arange(to.size)).any()


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
