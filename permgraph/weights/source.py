"""Source: a checkpoint as a plan knows it. What is read of it is counted into the fingerprint of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from permgraph.errors import PermgraphError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.planning.moves import Move
from permgraph.weights.average import Side
from permgraph.weights.checkpoint import Checkpoint, converted, open_checkpoint
from permgraph.weights.dtypes import Array
from permgraph.weights.names import stored_names
from permgraph.weights.rows import MovedRows, Rows, blocks_of
from permgraph.weights.tensors import numbers_of


def open_planned(plan: Plan, path: str | Path, state: str, matched: str) -> Checkpoint:
    """Open a checkpoint for a plan, without building its model where that is not needed.

    matched   the fingerprint that its weights have to have, "" when any will do. Where it is known and the stored tensors
              are called as the plan calls them, they are read as they are stored: the fingerprint, compared when all is
              read, proves that the model holds them so.
    """
    stored = open_checkpoint(path, state, converted=False)
    return stored if matched and covered(plan.spec, stored) else converted(stored)


def covered(spec: PermSpec, checkpoint: Checkpoint, ignore: Sequence[str] = ()) -> bool:
    """Whether every tensor that counts in a fingerprint is stored, under a name of the plan."""
    try:
        names = stored_names(spec, checkpoint.infos, str(checkpoint.path), ignore)
    except PermgraphError:
        return False
    return Fingerprint(spec).covers(names.values())


@dataclass(frozen=True)
class Source:
    """checkpoint  what is read
    names       stored key → the plan's name
    weights     the fingerprint of what was read so far, where it is wanted
    moves       stored key → its move
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    weights: Fingerprint | None = None
    moves: Mapping[str, Move] = field(default_factory=dict)
    _next: dict[str, int | None] = field(default_factory=dict)  # the first row not counted; None when all are
    _digests: dict[str, Any] = field(default_factory=dict)

    def rows(self, key: str, rows: Rows = None) -> Array:
        """Rows of a stored tensor, counted when they are read in order."""
        held = self.checkpoint.rows(key, rows)
        info, at = self.checkpoint.infos[key], self._next.get(key, 0)
        if at is None or not (rows is None or isinstance(rows, slice)) or at != (rows.start if rows else 0):
            return held
        if at == 0:
            self._digests[key] = (
                self.weights.start(self.names.get(key, ""), info.shape) if self.weights else None
            )
        if self._digests[key] is not None:
            self._digests[key].update(numbers_of(held, info.dtype))
        self._next[key] = None if rows is None or rows.stop == info.shape[0] else rows.stop
        return held

    def side(self, key: str) -> Side:
        """A tensor after its move."""
        info, move = self.checkpoint.infos[key], self.moves.get(key)
        if move is None:
            return Side(info.shape, info.dtype, lambda rows: self.rows(key, rows))
        moved = MovedRows(move, key, info.shape, info.dtype.itemsize, self.rows)
        return Side(info.shape, info.dtype, moved.rows)

    def read_rest(self) -> None:
        """Count what no one has read."""
        for key in self.names:
            info = self.checkpoint.infos[key]
            for rows in blocks_of(info.shape, info.dtype.itemsize):
                at = self._next.get(key, 0)
                if at is not None and at == (rows.start if isinstance(rows, slice) else 0):
                    self.rows(key, rows)
