"""Pool: the label arrays of all operands of an equation, by names. Ties, common blocks, sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from permgraph.axes.points import Labels
from permgraph.axes.workspace import ORDERED, Workspace

Names = tuple[str, ...]


@dataclass(eq=False)
class NamedArray:
    """A label array over names (sorted), and the operands it came from."""

    names: Names
    labels: Labels
    pinned: bool
    repeats: bool
    owners: set[int]


class Pool:
    """Arrays of all operands, at most one per set of names."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.arrays: dict[Names, NamedArray] = {}

    def add(self, array: NamedArray) -> None:
        """Tie to what is there over the same names."""
        known = self.arrays.setdefault(array.names, array)
        if known is array:
            return
        known.owners |= array.owners
        if not (known.pinned and array.pinned):
            self.space.points.tie(known.labels, array.labels)

    def agree(self) -> None:
        """Arrays of different operands that share some of their names get common blocks over those."""
        arrays = list(self.arrays.values())
        for i, a in enumerate(arrays):
            for b in arrays[i + 1 :]:
                shared = tuple(name for name in a.names if name in b.names)
                if shared and not (a.owners & b.owners) and not (a.pinned and b.pinned):
                    self.space.points.tie(self.over(a, shared), self.over(b, shared))

    def over(self, array: NamedArray, keep: Names) -> Labels:
        """The array's blocks over some of its names (the array itself over all of them)."""
        if keep == array.names:
            return array.labels
        axes = tuple(array.names.index(name) for name in keep)
        return self.space.block(array.labels, axes, array.pinned, array.repeats)

    def order(self, names: set[str], sizes: Mapping[str, int]) -> None:
        """Coordinates of these names keep their places."""
        for name in sorted(x for x in names if sizes[x] > 1):
            touched = [a for key, a in self.arrays.items() if name in key]
            if touched and not all(a.pinned for a in touched):
                labels = self.space.fresh_pinned((sizes[name],), ORDERED)
                self.add(NamedArray((name,), labels, True, False, {-1}))

    def keep_blocks(self, names: set[str]) -> None:
        """Names normalised over or compared along: what they are joined with has one order, and moves as blocks."""
        for array in self.arrays.values():
            keep = tuple(x for x in array.names if x not in names)
            if keep and len(keep) < len(array.names):
                self.over(array, keep)

    def contract(self, names: set[str]) -> None:
        """Names summed over: arrays shrink to their blocks over the rest."""
        for key in [key for key in self.arrays if names & set(key)]:
            array = self.arrays.pop(key)
            keep = tuple(x for x in array.names if x not in names)
            if keep:
                self.add(replace(array, names=keep, labels=self.over(array, keep), repeats=False))
