"""Tensors in blocks of rows, along their first axis: memory is bounded by the block, not by the tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import numpy as np

from permgraph.planning.gather import Gather, apply_gathers
from permgraph.planning.moves import Move
from permgraph.weights.dtypes import Array

BLOCK = 4 * 2**20  # bytes of a block
WHOLE = 32 * 2**20  # a tensor that is not larger is read in one piece where its rows change places
Rows = slice | Array | None  # which rows: from where to where, which ones in this order, or all
Blocks = Callable[[str], Iterator[Array]]  # key → the tensor, block after block


def blocks_of(shape: tuple[int, ...], itemsize: int, size: float | None = None) -> Iterator[Rows]:
    """The blocks that a tensor is made in, one after another; all at once where there are no rows."""
    size = BLOCK if size is None else size
    row = math.prod(shape[1:]) * itemsize
    if not shape or math.prod(shape) * itemsize <= size:
        yield None
        return
    step = max(1, int(size) // max(row, 1))
    for begin in range(0, shape[0], step):
        yield slice(begin, min(begin + step, shape[0]))


@dataclass
class MovedRows:
    """Blocks of one tensor after its move.

    read   gives rows of a stored tensor
    key    under which it is stored
    whole  what had to be read in one piece: a small tensor whose rows change places, or one made of several
    """

    move: Move
    key: str
    shape: tuple[int, ...]
    itemsize: int
    read: Callable[[str, Rows], Array]
    whole: Array | None = None
    made: Array | None = None

    @property
    def in_order(self) -> bool:
        """Whether rows stay where they are."""
        return self.order is None and self.simple

    @property
    def simple(self) -> bool:
        """Whether a block needs no more than as many rows of the stored tensor."""
        return self.move.sources == (self.key,) and all(
            (s.rows_axis in (None, 0) if s.axis else s.rows_axis is None) for s in self.move.steps
        )

    @property
    def order(self) -> Gather | None:
        """The gather that changes the order of rows."""
        return next((s for s in self.move.steps if s.axis == 0), None)

    @property
    def small(self) -> bool:
        return math.prod(self.shape) * self.itemsize <= WHOLE

    def rows(self, rows: Rows) -> Array:
        """Rows of the result."""
        if not self.simple:
            if self.made is None:
                self.made = self.move.of(lambda name: self.read(name, None))
            return self.made if rows is None else self.made[rows]
        order = None if self.order is None else self.order.index if rows is None else self.order.index[rows]
        if order is None:
            found = self.read(self.key, rows)
        elif self.small:
            if self.whole is None:
                self.whole = self.read(self.key, None)
            found = self.whole[order]
        else:
            found = self.read(self.key, order)
        rest = [_of_rows(s, rows) for s in self.move.steps if s.axis]
        return apply_gathers(found, rest) if rest else found


def _of_rows(step: Gather, rows: Rows) -> Gather:
    return step if step.rows_axis is None or rows is None else replace(step, index=step.index[rows])


def runs_of(rows: Array) -> Iterator[tuple[int, int, int]]:
    """Rows that follow one another, to be read at once: (place in the result, first row, how many)."""
    starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
    ends = np.append(starts[1:], rows.size)[: starts.size]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield start, int(rows[start]), end - start


def read_rows(path: Path, begin: int, shape: tuple[int, ...], held: str, rows: Rows) -> Array:
    """Rows of a tensor that lies in a file in one piece, from byte `begin` on; the caller owns what it is given.

    Raises EOFError where the file ends before.
    """
    kept = shape if rows is None else (_count(rows), *shape[1:])
    found = np.empty(kept, dtype=held)
    row = math.prod(shape[1:]) * found.itemsize
    with open(path, "rb", buffering=0) as stream:
        if isinstance(rows, np.ndarray):
            for place, first, count in runs_of(rows):
                _fill(stream, found[place : place + count], begin + first * row)
        else:
            _fill(stream, found, begin + (rows.start * row if rows else 0))
    return found


def _count(rows: slice | Array) -> int:
    return rows.size if isinstance(rows, np.ndarray) else int(rows.stop - rows.start)


def _fill(stream: FileIO, array: Array, begin: int) -> None:
    """Read what an array has room for."""
    room = array.reshape(-1).view("u1").data
    stream.seek(begin)
    while room:
        count = stream.readinto(room)
        if not count:
            raise EOFError
        room = room[count:]
