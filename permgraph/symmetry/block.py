"""Block: a group before it has a name, and why a layout or places cannot hold what was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from permgraph.axes.points import Labels
from permgraph.ir.spec import log10_orders

if TYPE_CHECKING:
    from permgraph.symmetry.layout import Addresses


class Unreadable(Exception):
    """Vertices whose place cannot be told by coordinates: they have to be held."""

    def __init__(self, vertices: Labels) -> None:
        super().__init__()
        self.vertices = vertices


class Unplaced(Exception):
    """What was read has no places on the tensors. `log10_order`: of what was read, and `frozen`: what was held for want of a way to
    read it, once `infer` knows them."""

    log10_order = 0.0
    frozen = 0


@dataclass(frozen=True)
class Block:
    """A group before it has a name. `units` has shape (*sizes of ancestors, size, m): vertices."""

    key: int
    size: int
    under: tuple[int, ...]  # ancestors, outermost first
    copies: int
    units: Labels = field(repr=False)
    owner: Addresses = field(repr=False)

    @property
    def log10_order(self) -> float:
        return log10_orders(self.size, self.copies)

    @property
    def parent(self) -> int | None:
        return self.under[-1] if self.under else None
