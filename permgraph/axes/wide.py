"""Wide: branches that together are one branch of more units.

The sum of three feed-forward networks of six units is one of eighteen, and two convolutions of the same kernel whose
channels are concatenated are one convolution: a unit of one may change places with a unit of another. That is so where
no op of the branches looks at more than one unit at a time: each is elementwise along the units, and the last one either
sums over them, before the branches are added, or leaves them to be concatenated.
"""

from __future__ import annotations

import re

from permgraph.axes.alike import Alike, Copies
from permgraph.ir.trace import Node, Ref, Trace

_SAME = ("clone", "detach", "alias", "contiguous", "_to_copy", "to", "hardswish", "permgraph.pointwise")
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
_NORMS = ("running_mean", "running_var")


class _NotWide(Exception):
    """Some op of the branches looks at several units."""


def wide_axes(trace: Trace, merge: Node, ends: Copies, alike: Alike) -> dict[str, int] | None:
    """State node → the axis on which the units of the branches lie; None where they are not one wide branch."""
    if alike.cuts:
        return None
    walk = _Walk(trace, {copies[0] for copies in alike.copies}, merge)
    try:
        walk.end(ends[0])
    except _NotWide:
        return None
    across = {copies[0]: copies for copies in alike.copies}
    if walk.met != set(across):
        return None
    state = {name: dim for name, dim in walk.dims.items() if trace.by_name[name].op == "state"}
    return {name: axis for first, axis in state.items() for name in across[first]}


class _Walk:
    """The first of the branches, backwards.

    dims   node → the dim of the units
    met    the nodes of the branch that were seen
    """

    def __init__(self, trace: Trace, own: set[str], merge: Node) -> None:
        self.trace, self.own, self.merge = trace, own, merge
        self.dims: dict[str, int] = {}
        self.met: set[str] = set()

    def end(self, name: str) -> None:
        """The last node: its units are concatenated, or it sums over them."""
        node, merge = self.trace.by_name[name], self.merge
        if merge.short_op in ("cat", "concat", "concatenate"):
            self.along(name, merge.options["dim"] % len(node.shape))
        elif merge.short_op == "add" and _dense(node):
            self.met.add(name)
            weight, bias = node.operands["weight"], node.operands.get("bias")
            self.along(node.operands["input"].node, _channel(node, len(node.shape)))
            self.along(weight.node, 1)
            if isinstance(bias, Ref):  # is added once, and stays where it is
                self.met.add(bias.node)
                if self.trace.by_name[bias.node].op != "state":
                    raise _NotWide
        else:
            raise _NotWide

    def along(self, name: str, dim: int) -> None:
        """The units of this node lie on `dim`."""
        node = self.trace.by_name[name]
        if name not in self.own or self.dims.get(name, dim) != dim:
            raise _NotWide
        if name in self.dims:
            return
        self.dims[name] = dim
        self.met.add(name)
        if node.op != "state":
            self._step(node, dim)

    def shared(self, value: object) -> None:
        """What all branches read."""
        if isinstance(value, Ref) and value.node in self.own:
            raise _NotWide

    def _step(self, node: Node, dim: int) -> None:
        if _dense(node):
            self._dense(node, dim)
        elif node.short_op in ("batch_norm", "_native_batch_norm_legit_no_training") and dim == 1:
            self._norm(node)
        elif node.pointwise or node.short_op in _SAME:
            self._elementwise(node, dim)
        elif _pools(node, dim) or (node.op == "getitem" and node.options["index"] == 0):
            self._one(node, dim)
        else:
            raise _NotWide

    def _dense(self, node: Node, dim: int) -> None:
        if dim != _channel(node, len(node.shape)):
            raise _NotWide
        self.shared(node.operands["input"])
        for name in ("weight", "bias"):
            if isinstance(ref := node.operands.get(name), Ref):
                self.along(ref.node, 0)

    def _norm(self, node: Node) -> None:
        if node.options.get("training"):
            raise _NotWide
        self.along(node.operands["input"].node, 1)
        for name in ("weight", "bias", *_NORMS):
            if isinstance(ref := node.operands.get(name), Ref):
                self.along(ref.node, 0)

    def _one(self, node: Node, dim: int) -> None:
        for ref in node.refs():
            self.along(ref, dim)

    def _elementwise(self, node: Node, dim: int) -> None:
        for ref in node.refs():
            shape = self.trace.by_name[ref].shape
            at = dim - len(node.shape) + len(shape)
            if at >= 0 and shape[at] > 1:
                self.along(ref, at)
            elif ref in self.own:
                raise _NotWide


def _dense(node: Node) -> bool:
    """A linear map, or a convolution of one group."""
    if node.short_op in ("conv1d", "conv2d", "conv3d"):
        return bool(node.options.get("groups", 1) == 1)
    return node.short_op == "linear"


def _pools(node: Node, dim: int) -> bool:
    """Whether a node pools each channel by itself, and these are the channels."""
    return node.short_op.startswith(_POOLS) and dim == len(node.shape) - 1 - _spatial(node)


def _channel(node: Node, rank: int) -> int:
    """The dim of a dense op's channels, of its input as of its result."""
    return rank - 1 if node.short_op == "linear" else rank - 1 - _spatial(node)


def _spatial(node: Node) -> int:
    found = re.search(r"(\d)d", node.short_op)
    return int(found[1]) if found else 0
