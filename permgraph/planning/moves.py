"""Moves: what becomes of each state tensor, from the gathers of a plan.

A gather on a joined tensor (`ir/joined.py`) is one of its members: which member each is read from, and how that is
re-ordered. Nothing but this module knows how joined tensors are read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.joined import Joined
from permgraph.ir.spec import PermSpec
from permgraph.planning.gather import Gather, apply_gathers, one_after_another

T = TypeVar("T")


@dataclass(frozen=True)
class Move:
    """How one tensor is made.

    sources  the tensors that it is read from: itself, nearly always
    axis     along which they follow one another, where there are several
    steps    gathers, one after another, on what was read
    """

    sources: tuple[str, ...]
    axis: int
    steps: tuple[Gather, ...]

    def of(self, read: Callable[[str], T]) -> T:
        """The tensor after the move, as a copy; `read` gives a source by its name. Bit for bit."""
        found = [read(name) for name in self.sources]
        whole = found[0] if len(found) == 1 else one_after_another(found, self.axis)
        return apply_gathers(whole, self.steps)

    def named(self, names: Mapping[str, str]) -> Move:
        """The same, where tensors have other names."""
        return replace(self, sources=tuple(names[n] for n in self.sources))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for moves that do the same to what they read."""
        return self.axis, tuple((s.axis, s.rows_axis, s.index.tobytes()) for s in self.steps)


def moves_of(spec: PermSpec, gathers: Iterable[Gather]) -> dict[str, Move]:
    """Tensor → its move, of those that change. Raises PlanError where a tensor moves by itself and in a joined one."""
    by_tensor: dict[str, list[Gather]] = {}
    for gather in gathers:
        by_tensor.setdefault(gather.tensor, []).append(gather)
    moves: dict[str, Move] = {}
    for tensor, steps in by_tensor.items():
        joined = spec.joined.get(tensor)
        found = _of_members(joined, steps) if joined else {tensor: Move((tensor,), 0, tuple(steps))}
        twice = moves.keys() & found.keys()
        if twice:
            raise PlanError(f"{min(twice)}: it moves by itself, and in a joined tensor.")
        moves |= found
    return {name: kept for name, move in moves.items() if (kept := _kept(name, move))}


def _kept(name: str, move: Move) -> Move | None:
    steps = tuple(s for s in move.steps if s.moves)
    return replace(move, steps=steps) if steps or move.sources != (name,) else None


def _of_members(joined: Joined, steps: Sequence[Gather]) -> dict[str, Move]:
    count = len(joined.members)
    if joined.axis is None:
        order = next((s.index for s in steps if s.axis == 0), np.arange(count))
        return {
            member: Move((joined.members[int(order[i])],), 0, tuple(_slices(steps, member, i)))
            for i, member in enumerate(joined.members)
        }
    long = next((s for s in steps if s.axis == joined.axis), None)
    if any(s.rows_axis not in (None, joined.axis) for s in steps):
        raise PlanError(f"{steps[0].tensor}: an order per row of another axis than the joined one.")
    rest = tuple(s for s in steps if s.axis != joined.axis)
    moves = {}
    for i, member in enumerate(joined.members):
        own = tuple(_rows_of(s, member, i, count) for s in rest)
        moves[member] = Move((member,), joined.axis, own)
        if long is not None:
            height = long.index.size // count
            index = long.index[i * height : (i + 1) * height]
            sources, which = np.unique(index // height, return_inverse=True)
            part = Gather(member, joined.axis, which.reshape(-1) * height + index % height)
            moves[member] = Move(tuple(joined.members[s] for s in sources), joined.axis, (part, *own))
    return moves


def _rows_of(step: Gather, member: str, number: int, count: int) -> Gather:
    """A gather on tensors that follow one another, as it is on one of them."""
    if step.rows_axis is None:
        return replace(step, tensor=member)
    height = step.index.shape[0] // count
    return replace(step, tensor=member, index=step.index[number * height : (number + 1) * height])


def _slices(steps: Sequence[Gather], member: str, row: int) -> Iterable[Gather]:
    """What gathers on a stack do to one of its members."""
    for step in steps:
        if step.axis > 0 and step.rows_axis is None:
            yield Gather(member, step.axis - 1, step.index)
        elif step.rows_axis == 0:
            yield Gather(member, step.axis - 1, step.index[row])
        elif step.rows_axis is not None:
            raise PlanError(f"{step.tensor}: an order per row inside a stacked tensor.")
