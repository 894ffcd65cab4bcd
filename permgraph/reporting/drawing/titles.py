"""Where the title of a frame stands: in the band above its boxes, where no wire passes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from permgraph.reporting.drawing.curves import flattened
from permgraph.reporting.drawing.scene import Point

_CLEAR = 3  # pixels between a title and a wire
Span = tuple[float, float]


def place(span: Span, band: Span, width: float, wires: Iterable[tuple[Point, ...]]) -> float | None:
    """Left end of a title that no wire crosses, or None when there is no room for it.

    Args:
        span: left and right end of the frame's inside.
        band: upper and lower end of the strip the title stands in.
        width: of the title.
        wires: chains of Bézier curves.
    """
    start = span[0]
    for left, right in sorted(taken for wire in wires for taken in _across(wire, band)):
        if left - _CLEAR - start >= width:
            break
        start = max(start, right + _CLEAR)
    return start if start + width <= span[1] else None


def _across(wire: tuple[Point, ...], band: Span) -> Iterable[Span]:
    """Spans in which a wire is inside the band."""
    line = flattened(wire)
    for (x0, y0), (x1, y1) in pairwise(line):
        if max(y0, y1) >= band[0] and min(y0, y1) <= band[1]:
            yield min(x0, x1), max(x0, x1)
