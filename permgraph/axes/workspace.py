"""Context: what the rules share while the graph is walked — points, values, uses of weights, probes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from permgraph.axes.points import Labels, Points, Step
from permgraph.axes.tensor_labels import Array, Value
from permgraph.ir.trace import Node, Ref, Shape


class Seen(NamedTuple):
    """An activation that carries points: entering a consumer, or leaving a producer."""

    when: str
    node: str
    module: str
    dims: tuple[int, ...]
    labels: Labels


@dataclass
class Use:
    """How an axis of a state tensor is used first: the op, and whether its points are summed over there."""

    node: str
    op: str
    module: str
    consumed: bool


class Context:
    """State of one propagation. Rules call `value`, `pin`, `fresh`, `block`, `product`."""

    def __init__(self) -> None:
        self.points = Points()
        self.node = Node("", "")
        self.values: dict[str, Value | tuple[Value | None, ...]] = {}
        self.uses: dict[tuple[str, int], Use] = {}
        self.seen: list[Seen] = []
        self.unknown: list[Node] = []
        self.marks: dict[str, list[Labels]] = {}  # what structure says of points: "qk", "v", "residual"
        self.outputs: list[tuple[str, Value]] = []
        self.users: set[tuple[str, int]] = set()
        self.dtypes: dict[str, str] = {}
        self._taken: list[Labels] = []
        self._left: list[Labels] = []
        self._blocks: dict[tuple[Any, ...], Labels] = {}
        self._products: dict[tuple[Any, ...], Array] = {}

    # -- arguments ---------------------------------------------------------------------------------------

    def enter(self, node: Node, rule: str) -> None:
        """Everything related from here on is recorded as the work of `rule` at `node`."""
        self.node = node
        self.points.at = Step(node.name, rule)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Argument of the current node by position or name, as the literal or `Ref` it is."""
        node = self.node
        if index < len(node.args):
            return node.args[index]
        return node.kwargs.get(name, default)

    def value(self, arg: Any) -> Value | None:
        """The Value behind a `Ref`; None for anything else."""
        if not isinstance(arg, Ref):
            return None
        found = self.values[arg.node]
        return found[0] if isinstance(found, tuple) else found

    def operand(self, index: int, name: str) -> Value | None:
        return self.value(self.arg(index, name))

    def need(self, index: int, name: str) -> Value:
        value = self.operand(index, name)
        assert value is not None, f"{self.node.op}: argument {name} is not a tensor"
        return value

    def refs(self) -> list[Value]:
        """Every tensor the current node reads."""
        found = [self.value(Ref(name)) for name in self.node.refs()]
        return [v for v in found if v is not None]

    def reads(self, index: int) -> bool:
        """Whether anything reads this result of the current node."""
        return (self.node.name, index) in self.users

    def dtype(self, ref: Ref) -> str:
        return self.dtypes.get(ref.node, "")

    # -- new points --------------------------------------------------------------------------------------

    def fresh_pinned(self, shape: Shape, reason: str) -> Labels:
        labels = self.points.fresh(shape)
        self.points.pin(labels, reason)
        return labels

    def positions(self, shape: Shape, dims: tuple[int, ...], reason: str) -> tuple[Array, ...]:
        """One fresh pinned array per dim: coordinates that are told apart by where they are."""
        return tuple(
            Array((d,), self.fresh_pinned((shape[d],), reason), pinned=True) for d in dims if shape[d] > 1
        )

    def pinned_value(self, shape: Shape, reason: str, weight: bool = False) -> Value:
        return Value(
            shape, self.positions(shape, tuple(range(len(shape))), reason), weight, name=self.node.name
        )

    def pin(self, arrays: tuple[Array, ...] | list[Array], reason: str) -> None:
        for array in arrays:
            if not array.pinned:
                self.points.pin(array.labels, reason)

    def read(self, taken: Labels, left: Labels) -> None:
        """Part of a weight was read here, and part was left (perhaps for another op to read)."""
        self._taken.append(taken.ravel())
        self._left.append(left.ravel())

    def pin_unread(self) -> None:
        """Parts of a weight that no op reads, as positions beyond the example's length, have to stay."""
        if self._left:
            unread = np.setdiff1d(np.concatenate(self._left), np.concatenate(self._taken))
            self.points.pin(unread, "not reached by the example input")

    # -- blocks and products -----------------------------------------------------------------------------

    def block(self, labels: Labels, keep: tuple[int, ...], pinned: bool, repeats: bool) -> Labels:
        """A point per coordinate on the `keep` axes of `labels`, linked to all that share the coordinate.

        Whole blocks may move, and only as blocks. Asked twice for the same labels, gives the same points.
        """
        rest = tuple(a for a in range(labels.ndim) if a not in keep)
        turned = np.ascontiguousarray(labels.transpose(*keep, *rest))
        key = (turned.tobytes(), turned.shape, len(keep))
        if key not in self._blocks:
            shape = turned.shape[: len(keep)]
            if pinned:
                self._blocks[key] = self.fresh_pinned(shape, "ordered axis")
            else:
                heads = self.points.fresh(shape)
                self._link_members(heads, turned, repeats)
                self._blocks[key] = heads
        return self._blocks[key]

    def _link_members(self, heads: Labels, members: Labels, repeats: bool) -> None:
        a = np.broadcast_to(heads.reshape(heads.shape + (1,) * (members.ndim - heads.ndim)), members.shape)
        if not repeats:
            self.points.link(a, members)
            return
        pairs = np.unique(np.stack([a.ravel(), members.ravel()], axis=1), axis=0)
        self.points.link(pairs[:, 0], pairs[:, 1])

    def product(self, shape: Shape, dims: tuple[int, ...], sources: list[Array], reason: str = "") -> Array:
        """One array over `dims`: a new point per coordinate, linked to the source points it combines.

        Along dims that no source labels, the new points look alike: any order is right.
        """
        sizes = tuple(shape[d] for d in dims)
        key = (sizes, *((tuple(dims.index(d) for d in s.dims), s.labels.tobytes()) for s in sources))
        if key in self._products:
            return replace(self._products[key], dims=dims)
        covered = {d for s in sources for d in s.dims}
        if sources and all(s.pinned for s in sources) and covered == set(dims):
            array = Array(dims, self.fresh_pinned(sizes, reason or "ordered axis"), pinned=True)
        else:
            labels = self.points.fresh(sizes)
            for source in sources:
                view = [shape[d] if d in source.dims else 1 for d in dims]
                self.points.link(labels, source.labels.reshape(view))
            array = Array(dims, labels)
        self._products[key] = array
        return array

    # -- bookkeeping -------------------------------------------------------------------------------------

    def use(self, array: Array, consumed: bool) -> None:
        """Remember that an axis of a weight is produced or consumed at the current node."""
        for run in self._runs(array.labels):
            if run.tensor:
                known = self.uses.get((run.tensor, run.axis))
                if known is None:
                    use = Use(self.node.name, self.node.op, self.node.module, consumed)
                    self.uses[(run.tensor, run.axis)] = use
                else:
                    known.consumed = known.consumed or consumed

    def _runs(self, labels: Labels) -> list[Any]:
        """The origins among these labels (first and last suffice: axes are not interleaved when created)."""
        ends = {int(labels.flat[0]), int(labels.flat[-1])}
        return [self.points.origin_of(np.array([e])) for e in sorted(ends)]

    def mark(self, role: str, array: Array) -> None:
        """Remember what an array is, for naming groups."""
        if not array.pinned:
            self.marks.setdefault(role, []).append(array.labels)

    def observe(self, when: str, value: Value, array: Array) -> None:
        inside = "." in value.name  # of a branch or a loop: nothing there can be observed
        if value.name and not inside and not value.weight and not array.pinned:
            self.seen.append(Seen(when, value.name, self.node.module, array.dims, array.labels))
