"""The elements of an inferred group that exchange two units, as what they do to the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from permgraph.ir.permutations import Permutations
from permgraph.ir.spec import PermSpec
from permgraph.planning.gather import Gather, gathers
from permgraph.verification.function_check import whole


def exchanged_units(found: PermSpec) -> Iterator[list[Gather]]:
    """For any two units of one group, in any slot of the groups around it: the gathers of their exchange."""
    plan = whole(found)
    for group in plan.groups:
        shape = found.shape_of(group)
        for slot in np.ndindex(shape[:-1]):
            for i, j in combinations(range(group.size), 2):
                array = np.broadcast_to(np.arange(group.size), shape).copy()
                array[slot][[i, j]] = [j, i]
                yield gathers(plan, Permutations({group.name: array}))
