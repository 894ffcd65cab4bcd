"""Tied: the classes of points that move together.

Most ties join a whole run of points (an axis) with points of one run made before it, coordinate by coordinate. Such a run is the
earlier one under another number, which leaves few points whose components have to be searched.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from permgraph.axes.points import Labels, Points, components


def tied_classes(points: Points, ties: Iterable[tuple[Labels, Labels]]) -> tuple[int, Labels]:
    """Number of classes, and the class of every point, in order of first appearance."""
    spans = [(o.start, o.stop) for o in points.origins if o.stop > o.start]
    starts = np.array([start for start, _ in spans], dtype=np.int64)

    def run_of(point: int) -> int:
        return int(np.searchsorted(starts, point, side="right")) - 1

    def is_moved(later: Labels, earlier: Labels) -> bool:
        """Whether a whole run is tied, in order, to points that lie in one run made before it."""
        run, before = run_of(later[0]), run_of(earlier[0])
        whole = spans[run] == (later[0], later[-1] + 1)
        return whole and before == run_of(earlier[-1]) != run and _ascends(later) and _ascends(earlier)

    moved: dict[int, int] = {}  # run → where the points that its points are tied to begin, in an earlier run
    rest: list[tuple[Labels, Labels]] = []
    for a, b in ties:
        later, earlier = (a, b) if a.size and a[0] > b[0] else (b, a)
        if later.size and run_of(later[0]) not in moved and is_moved(later, earlier):
            moved[run_of(later[0])] = int(earlier[0])
        else:
            rest.append((a, b))
    shift, left = (
        np.zeros(len(spans), dtype=np.int64),
        0,
    )  # to be added to a point for its number among those left
    for number, (start, stop) in enumerate(spans):
        if number in moved:
            shift[number] = moved[number] + shift[run_of(moved[number])] - start
        else:
            shift[number], left = left - start, left + stop - start
    number_of = np.repeat(shift, np.diff(starts, append=points.count))
    number_of += np.arange(points.count)
    joins = [np.concatenate([number_of[pair[side]] for pair in rest] or [starts[:0]]) for side in (0, 1)]
    count, of = components(left, *joins)
    return count, of[number_of]


def _ascends(labels: Labels) -> bool:
    """Whether labels are consecutive numbers."""
    return bool(labels[-1] - labels[0] == labels.size - 1 and (np.diff(labels) == 1).all())
