"""The elements of an inferred group that exchange two units, as what they do to the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from permgraph.plan.gather import Gather, gathers
from permgraph.plan.permutations import Permutations, shape_of
from permgraph.plan.verify import whole
from permgraph.symmetry.spec import PermSpec


def exchanged_units(found: PermSpec) -> Iterator[list[Gather]]:
    """For any two units of one group, in any slot of the groups around it: the gathers of their exchange."""
    plan = whole(found)
    for group in plan.groups:
        shape = shape_of(found, group)
        for slot in np.ndindex(shape[:-1]):
            for i, j in combinations(range(group.size), 2):
                array = np.broadcast_to(np.arange(group.size), shape).copy()
                array[(*slot, [i, j])] = [j, i]
                yield gathers(plan, Permutations({group.name: array}))
