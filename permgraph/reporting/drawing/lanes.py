"""Columns side by side, and the ways of the wires between them: below one column, up beside it, into the next."""

from __future__ import annotations

from dataclasses import dataclass

from permgraph.reporting.drawing.curves import rounded
from permgraph.reporting.drawing.scene import Point

GUTTER, LANE = 34, 7  # between columns; between parallel wires


@dataclass(frozen=True)
class Way:
    """A wire between columns: from a point at the lower edge of `start` to one at the upper edge of `end`."""

    start: int
    end: int
    begin: Point
    stop: Point


def route(ways: list[Way], sizes: list[tuple[float, float]]) -> tuple[list[Point], list[tuple[Point, ...]]]:
    """Offset of every column, and the way of every wire as a chain of Bézier curves.

    Args:
        ways: their points are in pixels from the corner of their column.
        sizes: width and height of every column.
    """
    above = LANE * (len(ways) + 1) if ways else 0
    beside = [sum(way.end == i for way in ways) * LANE for i in range(len(sizes))]
    offsets: list[Point] = []
    x = 0.0
    for i, (width, _) in enumerate(sizes):
        x += beside[i] + (GUTTER if i else 0)
        offsets.append((x, above))
        x += width
    return offsets, [_way(ways, k, offsets, sizes) for k in range(len(ways))]


def _way(
    ways: list[Way], number: int, offsets: list[Point], sizes: list[tuple[float, float]]
) -> tuple[Point, ...]:
    way = ways[number]
    passed = range(way.start, way.end)
    top = offsets[0][1]
    below = (
        top + max(sizes[i][1] for i in passed) + LANE * (1 + sum(w.start <= way.start for w in ways[:number]))
    )
    lane = sum(w.end == way.end for w in ways[:number])
    up = offsets[way.end][0] - GUTTER / 2 - LANE * lane
    over = LANE * (1 + lane)
    begin = (offsets[way.start][0] + way.begin[0], top + way.begin[1])
    stop = (offsets[way.end][0] + way.stop[0], top + way.stop[1])
    corners = [begin, (begin[0], below), (up, below), (up, over), (stop[0], over), stop]
    return rounded(corners)
