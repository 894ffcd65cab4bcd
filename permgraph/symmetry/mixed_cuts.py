"""Branches that are cut out of one tensor, whose parts the network lets mix.

Where equal branches may change places, a part of a tensor that is cut out for a branch moves with it as a whole
(`axes/exchange.py`). Coordinates that could change places *across* the parts would be held in theirs by that. And since
they look alike without it, what reads the parts is no other module for each of them: an exchange of such branches brings
nothing.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from permgraph.axes.exchange import equal_exchanges
from permgraph.axes.points import Points
from permgraph.axes.side_by_side import Owner, Sides
from permgraph.symmetry.coloured_graph import classify


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
