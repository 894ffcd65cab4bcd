"""LabelledTensor: what is known of one tensor's axes. A list of label arrays, each over one or more dims."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from permgraph.axes.label_array import LabelArray
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Shape


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen by value: the tensor holds, at each place, one coordinate of the last dim of `values`.

    values   shape (*shape of the tensor, n); of an index, its one-hot form
    at       dims of the tensor on which the choice depends (of those larger than 1)
    key      equal for tensors that hold the same coordinate at the same place
    index    whether the tensor is the index itself
    ties     whether coordinates may be equal where they are zero: then the choice depends on their order
    """

    values: LabelledTensor
    at: tuple[int, ...]
    key: tuple[object, ...]
    index: bool = False
    ties: bool = False


@dataclass(frozen=True, eq=False)
class LabelledTensor:
    """One tensor.

    weight   computed from the state alone, so a weight and not an activation
    table    contents of a constant integer tensor, when known
    name     graph node that made it; "" inside a rule, for what the graph does not show
    dtype    "float32", "int64", …; "" inside a rule
    source   what it is a view of, where dims of that were merged
    chosen   when its coordinates were chosen by value; it has no arrays then, until it is `settled`
    """

    space: Workspace
    shape: Shape
    arrays: tuple[LabelArray, ...] = ()
    weight: bool = False
    table: Any = None
    name: str = ""
    dtype: str = ""
    source: LabelledTensor | None = None
    chosen: Chosen | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    def on(self, dim: int) -> list[LabelArray]:
        """The arrays that involve this dim."""
        return [a for a in self.arrays if dim in a.dims]

    def pin(self, reason: str) -> None:
        """No coordinate of this tensor may move."""
        self.space.use(self)
        self.space.pin(self.arrays, reason)
        if self.chosen is not None:
            self.chosen.values.pin(reason)

    def with_positions(self, dims: tuple[int, ...], reason: str) -> LabelledTensor:
        """The same, where the coordinates along `dims`, unlabelled so far, are distinguished by where they are."""
        return replace(self, arrays=self.arrays + self.space.positions(self.shape, dims, reason))


def pinned_tensor(space: Workspace, shape: Shape, reason: str, weight: bool = False) -> LabelledTensor:
    """A tensor whose coordinates are all distinguished by where they are."""
    return LabelledTensor(space, shape, weight=weight).with_positions(tuple(range(len(shape))), reason)
