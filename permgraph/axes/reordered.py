"""Reordered: what is made of one tensor in two orders, by an op to which the order of its operands is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.merges import JOINS
from permgraph.axes.op_kinds import CUTTINGS, REORDERINGS
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Node, Ref


def same_values(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether both operands of a node are one tensor, in two orders."""
    refs = [value for value in node.operands.values() if isinstance(value, Ref)]
    roots = {_root(ref.node, nodes) for ref in refs}
    return len(refs) == 2 and len(roots) == 1 and node.options.get("alpha", 1) == 1


def _root(name: str, nodes: Mapping[str, Node]) -> str:
    """The node all of whose coordinates these are, in some order.

    A part of a tensor is a tensor of its own, and so is each result of an op that has several: only where parts are put
    together again do they stand for what they were cut from.
    """
    node = nodes[name]
    refs = list(node.refs())
    if node.short_op in REORDERINGS or _by_table(node, nodes):
        return _root(refs[0], nodes)
    if node.short_op in JOINS:
        dim = node.options["dim"] % len(node.shape)
        wholes = {_uncut(ref, dim, nodes) for ref in refs}
        whole = wholes.pop()
        if not wholes and whole is not None and prod(nodes[whole].shape) == prod(node.shape):
            return _root(whole, nodes)
    return name


def _by_table(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether a node takes coordinates by constant tables; the labels say whether it takes each once."""
    tables = list(node.refs())[1:]
    return node.short_op in ("index", "index_select") and all(nodes[ref].op == "constant" for ref in tables)


def _uncut(name: str, dim: int, nodes: Mapping[str, Node]) -> str | None:
    """What a part was cut from, along this dim alone."""
    node = nodes[name]
    cut = nodes[next(node.refs())] if node.op == "getitem" else node
    if cut.short_op not in CUTTINGS:
        return None
    source = next(cut.refs())
    return source if cut.options["dim"] % len(nodes[source].shape) == dim else None


def in_any_order(a: LabelledTensor, b: LabelledTensor) -> tuple[LabelledTensor, LabelledTensor]:
    """Operands of an op that commutes, both one tensor in two orders: its results are units of their own, linked to two each.

    x + x.flip: each result stands there twice, and what reads it may exchange the two. x + x.roll(1): seen from the
    other side of the circle the terms are exchanged, and the result is the same.
    """
    if a.shape != b.shape or [x.dims for x in a.arrays] != [x.dims for x in b.arrays] or _shared(a):
        return a, b
    pairs = list(zip(a.arrays, b.arrays, strict=True))
    moved = [not np.array_equal(x.labels, y.labels) for x, y in pairs]
    if sum(moved) != 1 or not _reordered(*pairs[moved.index(True)]):
        return a, b  # along two axes at once, one of them alone is none of the two orders
    a.space.use(a)
    b.space.use(b)
    sums = [_sums(a.space, x, y) if m else (x, y) for (x, y), m in zip(pairs, moved, strict=True)]
    return replace(a, arrays=tuple(x for x, _ in sums)), replace(b, arrays=tuple(y for _, y in sums))


def _shared(tensor: LabelledTensor) -> bool:
    """Whether two dims have labels in common: these do not say then which element it is."""
    labels = [np.unique(array.labels) for array in tensor.arrays]
    return bool(labels) and np.unique(np.concatenate(labels)).size < sum(x.size for x in labels)


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
