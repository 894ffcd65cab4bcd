"""Branches that are cut out of one tensor, whose parts the network lets mix.

Where equal branches may change places, a part of a tensor that is cut out for a branch moves with it as a whole
(`axes/exchange.py`). Coordinates that could change places *across* the parts would be held in theirs by that. Whether they
could is not seen from their looks: such branches are tried, and left out, and what frees more is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from itertools import combinations

import numpy as np

from permgraph.axes.exchange import equal_exchanges
from permgraph.axes.points import Points
from permgraph.axes.side_by_side import Owner, Sides
from permgraph.symmetry.coloured_graph import classify

MOST = 3  # kinds of branches of which every choice is tried


def choices(points: Points, sides: Sides) -> Iterator[Sides]:
    """The sets of branches to try: all, and without those whose cuts may mix; of several kinds, every choice among a few."""
    kinds: dict[Hashable, set[int]] = defaultdict(set)
    for number in sorted(mixed_cuts(points, sides)):
        kinds[sides.likeness(number)].add(number)
    count = len(kinds)
    for size in range(count + 1) if count <= MOST else (0, 1, count):
        for some in combinations(kinds.values(), size):
            yield sides.without(set().union(*some)) if some else sides


def mixed_cuts(points: Points, sides: Sides) -> frozenset[int]:
    """The sets of branches of which two have parts with coordinates that look alike, where no branches but those that
    are not cut out of a tensor change places.

    Args:
        points: without exchanges
    """
    cut = [number for number, branches in enumerate(sides.sets) if branches.alike.cuts]
    if not cut:
        return frozenset()
    exchange, _ = equal_exchanges(points, sides.without(cut))
    classes = classify(exchange.points if exchange else points)
    colours: dict[Owner, set[int]] = defaultdict(set)
    for labels, at in points.cuts:
        of = classes.of[labels]
        free = np.unique(classes.colour[of[~classes.pinned[of]]]).tolist()
        for owner in sides.owner(at.node, at.part):
            colours[owner].update(free)
    seen: dict[int, set[int]] = defaultdict(set)
    mixed = set()
    for (number, _), mine in sorted(colours.items()):
        if seen[number] & mine:
            mixed.add(number)
        seen[number] |= mine
    return frozenset(mixed)
