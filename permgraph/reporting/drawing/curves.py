"""Geometry of chains of Bézier curves: as a line of pieces, with rounded corners, with an arrow at the end."""

from __future__ import annotations

from functools import cache

from permgraph.reporting.drawing.scene import Point

_ROUND = 8  # radius of rounded corners
_ARROW = 7.0  # length of an arrow's head


_STEPS = 12  # pieces of a curve
_WEIGHTS = [
    ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t**3)
    for t in (k / _STEPS for k in range(1, _STEPS + 1))
]


@cache
def flattened(wire: tuple[Point, ...]) -> tuple[Point, ...]:
    """A chain of Bézier curves as a line of short pieces. Asked for again and again, for every title."""
    line = [wire[0]]
    for i in range(0, len(wire) - 3, 3):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = wire[i : i + 4]
        line += [
            (p * ax + q * bx + r * cx + s * dx, p * ay + q * by + r * cy + s * dy) for p, q, r, s in _WEIGHTS
        ]
    return tuple(line)


def rounded(corners: list[Point]) -> tuple[Point, ...]:
    """A line through corners, each of them rounded, as a chain of Bézier curves."""
    points: list[Point] = [corners[0]]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        enter, leave = _toward(corner, before), _toward(corner, after)
        points += [points[-1], enter, enter, corner, corner, leave]
    return (*points, points[-1], corners[-1], corners[-1])


def _toward(corner: Point, other: Point) -> Point:
    """A point near `corner`, on the way to `other`."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5
    share = min(_ROUND, length / 2) / length if length else 0
    return corner[0] + share * dx, corner[1] + share * dy


def arrow(points: tuple[Point, ...], half: float) -> tuple[tuple[Point, ...], tuple[Point, Point, Point]]:
    """The curve ended where its arrow's head begins; tip and corners of the head, 2 · `half` wide."""
    tip, base = points[-1], _before(points)
    near = {i for i, p in enumerate(points) if i and _distance(p, tip) < _ARROW}
    ended = tuple(base if i in near else p for i, p in enumerate(points))
    dx, dy = (tip[0] - base[0]) / _ARROW * half, (tip[1] - base[1]) / _ARROW * half
    return ended, (tip, (base[0] - dy, base[1] + dx), (base[0] + dy, base[1] - dx))


def _before(points: tuple[Point, ...]) -> Point:
    """The point where the head of an arrow begins, straight on from what comes before the end."""
    x, y = points[-1]
    near = next((p for p in reversed(points) if _distance(p, (x, y)) > _ARROW / 2), (x, y - 1))
    length = _distance(near, (x, y))
    return x + (near[0] - x) / length * _ARROW, y + (near[1] - y) / length * _ARROW


def _distance(a: Point, b: Point) -> float:
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)
