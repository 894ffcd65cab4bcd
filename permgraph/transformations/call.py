"""Calls: what a row of the table is told of one node, and how a row gets into the table.

One table serves three kinds of factors: positive *scales*, which pass through ReLU and not through tanh, *signs*, the other
way round, and *rotations*, which pass only where nothing looks at units one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from permgraph.ir.ref import Ref
from permgraph.ir.trace import Node, Shape
from permgraph.transformations.forms import ANY, NONE, Algebra
from permgraph.transformations.patterns import Blocked, Pattern, blocked

__all__ = ["ROTATIONS", "ROWS", "SCALES", "SIGNS", "Blocked", "Call", "Results", "row", "scalar"]

SCALES, SIGNS, ROTATIONS = "scales", "signs", "rotations"
Results = Pattern | Sequence[Pattern]


class Call:
    """One node: what is said of its operands, by the names of the schema.

    kind     SCALES, SIGNS or ROTATIONS
    shapes   of the operands, by the same names
    inside   what the op computes on its way, by the names under which it is observed
    """

    def __init__(
        self, forms: Algebra, kind: str, node: Node, patterns: dict[str, Any], shapes: dict[str, Any]
    ) -> None:
        self.forms, self.kind, self.node = forms, kind, node
        self.patterns, self.shapes = patterns, shapes
        self.inside: dict[str, Pattern] = {}

    @property
    def shape(self) -> Shape:
        return self.node.shape

    def of(self, name: str) -> Pattern:
        found: Pattern = self.patterns.get(name)
        return found

    def option(self, name: str, default: Any = None) -> Any:
        """An argument that is no tensor. Raises Blocked where the data decide it."""
        value = self.node.options.get(name, self.node.operands.get(name, default))
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Ref):
                raise Blocked(f"{name} is decided by data")
        return value

    def block(self, *names: str) -> None:
        """These operands may not be multiplied."""
        for name in names:
            for pattern in _leaves(self.patterns.get(name)):
                blocked(self.forms, pattern)

    def dims(self, name: str) -> tuple[int, ...]:
        """Dims given as None (all), a number or a list, counted from the front."""
        rank = len(self.shapes["self"])
        value = self.option(name)
        value = range(rank) if value in (None, ()) else value if isinstance(value, tuple) else (value,)
        return tuple(d % max(rank, 1) for d in value)


Row = Callable[[Call], Results]
F = TypeVar("F", bound=Row)
ROWS: dict[str, Row] = {}


def row(names: str) -> Callable[[F], F]:
    """Give ops a row, by their names, separated by spaces; all overloads share it."""

    def add(function: F) -> F:
        ROWS.update(dict.fromkeys(names.split(), function))
        return function

    return add


def _leaves(value: Any) -> list[Pattern]:
    if isinstance(value, (tuple, list)):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


def scalar(value: Any) -> Pattern:
    """The pattern of a number that is added: zero may be multiplied by anything."""
    zero = isinstance(value, (int, float)) and value == 0
    return torch.tensor(ANY if zero else NONE, dtype=torch.int32)
