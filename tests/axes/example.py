"""What an example call of the rule table is made of, and why an inferred group may be smaller than the true one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


class P:
    """A free tensor operand of the given shape; `kind` is "normal", "positive" (0.5 … 1.5) or "unit" (±0.9).

    The call sees it in the shape `view`: units that were one axis enter as several.
    """

    def __init__(self, *shape: int, kind: str = "normal", view: tuple[int, ...] | None = None) -> None:
        self.shape, self.kind, self.view = shape, kind, view


class C:
    """A constant table; unless `known`, the trace does not have its contents."""

    def __init__(self, value: Any, known: bool = True) -> None:
        self.value, self.known = torch.tensor(value), known


@dataclass(frozen=True)
class Example:
    """A call of torch.ops.aten.<op>.

    read   which of the results are read
    small  why the inferred group is known to be smaller than the true one, if it is
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    read: tuple[int, ...] = (0,)
    small: str = ""

    @property
    def row(self) -> str:
        """Its row in the table of rules."""
        return self.op.partition(".")[0]

    def __str__(self) -> str:
        def text(value: Any) -> str:
            if isinstance(value, P):
                seen = "x".join(map(str, value.view)) if value.view else ""
                return ("x".join(map(str, value.shape)) or "scalar") + (f"as{seen}" if seen else "")
            if isinstance(value, list):
                return "[" + " ".join(map(text, value)) + "]"
            return "table" if isinstance(value, C) else str(value)

        return f"{self.op}({' '.join(map(text, self.args))})"


def ex(op: str, *args: Any, read: tuple[int, ...] = (0,), small: str = "", **kwargs: Any) -> Example:
    return Example(op if "." in op else f"{op}.default", args, kwargs, read, small)


STATISTICS = "statistics are held in place when they are read"
ORDERED = "positions are held in order, also those that a certain size would let move"
MASK = "what a mask holds is not looked at"
FROZEN = "batches of rows with orders of their own, under columns that all share, are reported as frozen"
UNKNOWN = "the table is not in the trace"
