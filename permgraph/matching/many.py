"""Many: permutations that bring several networks into the order of the first, and so into one order.

Every network has one permutation, into an order that all share. So they are consistent by construction: from C to B and from
B to A is from C to A, unit for unit. Three ways, by what is compared:

first      every network with the first alone
many       every network in turn with the mean of all others, until none gains: MergeMany of Git Re-Basin
           (https://arxiv.org/abs/2209.04836, algorithm 3)
universe   the same sum over all pairs (that of C2M3, https://arxiv.org/abs/2405.17897): the ascent starts from several networks, the
           first among them, as the one that all others are brought to, and the best is kept

C2M3 maximises the sum by Frank and Wolfe's algorithm, over soft permutations. Here it is climbed from several starts, by
exact assignments, which serve nested groups too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from permgraph.errors import MatchError, UsageError, nearest
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Origin, Plan
from permgraph.matching.ascent import in_order_of_first
from permgraph.matching.many_moments import JointMoments
from permgraph.matching.many_weights import JointWeights
from permgraph.matching.matchers import find_matcher, match_passes, reported, without_moments
from permgraph.matching.scores import measure_probes
from permgraph.matching.weight_scores import Array
from permgraph.matching.weights import Weights

WAYS = {
    "first": "each with the first alone",
    "many": "each with the mean of all others, in turn (MergeMany)",
    "universe": "all pairs at once, from several starts",
}
Pairs = Mapping[tuple[int, int], Moments]  # numbers of two networks, the smaller first → their moments
Numbers = tuple[Mapping[str, Array], str]  # tensors by the plan's names, and the fingerprint of the weights


def wanted_pairs(count: int, way: str) -> list[tuple[int, int]]:
    """The pairs of networks that are compared by activations."""
    refuse_way(way)
    return [pair for pair in combinations(range(count), 2) if way != "first" or pair[0] == 0]


def match_many(
    plan: Plan,
    count: int,
    moments: Pairs | None = None,
    weights: Sequence[Numbers] | None = None,
    matcher: str = "correlation",
    way: str = "first",
    seed: int = 0,
) -> list[Permutations]:
    """Permutations of each of `count` networks into the order of the first, whose own units stay.

    moments   of the pairs that `wanted_pairs` names; where weights are matched, they are only measured
    weights   of every network, where the matcher reads weights
    way       what is compared: see `WAYS`
    seed      as for `match`; and of the order in which networks take turns

    Each has the report of `match`, for the first network and this one; "many" in it has what all pairs reach. Raises UsageError
    for another way or matcher, MatchError for moments that are missing, of another plan or of other networks.
    """
    refuse_way(way)
    if count < 2:
        raise UsageError(f"{count} network: give two or more, the first of which the others are brought to.")
    row, pairs = find_matcher(matcher), dict(moments or {})
    if row.of_weights and (weights is None or len(weights) != count):
        raise MatchError(f"matcher {matcher!r} compares weights: give those of all {count} networks.")
    _refuse_pairs(plan, pairs, wanted_pairs(count, way) if row.score is not None else [])
    if way == "first" or not (row.of_weights or row.score):
        found = []
        for i in range(1, count):
            both = Weights.of(plan, weights[0], weights[i]) if weights and row.of_weights else None
            passes = [pairs[0, i]] if (0, i) in pairs else []
            found.append(match_passes(plan, passes, matcher, seed, weights=both))
    else:
        found = _together(plan, count, pairs, weights or (), matcher, way, seed)
    still = Permutations(without_moments(plan), {"matcher": matcher, "seed": seed}, _origin(plan, found))
    return [still, *found]


def _together(
    plan: Plan, count: int, pairs: Pairs, weights: Sequence[Numbers], matcher: str, way: str, seed: int
) -> list[Permutations]:
    """Of all but the first, by all pairs."""
    row, rng = find_matcher(matcher), np.random.default_rng(seed)
    if row.score is not None:
        perms, told = JointMoments(plan, count, pairs, row.score).align(way, rng)
    else:
        perms, told = JointWeights(plan, [numbers for numbers, _ in weights], seed).align(way, rng)
    found = []
    for i, one in enumerate(in_order_of_first(perms, plan.spec)[1:], 1):
        probes = measure_probes(plan, one, pairs[0, i], seed) if (0, i) in pairs else {}
        origin = pairs[0, i].origin if (0, i) in pairs and pairs[0, i].origin.plan else plan.origin
        if weights:
            origin = replace(plan.origin, weights_a=weights[0][1], weights_b=weights[i][1])
        arrays = without_moments(plan) | one.arrays
        several: dict[str, Any] = {
            "matcher": matcher,
            "seed": seed,
            "many": {"way": way, "models": count, **told},
        }
        found.append(reported(plan, Permutations(arrays, origin=origin), probes, several))
    return found


def _origin(plan: Plan, found: Sequence[Permutations]) -> Origin:
    """Of the first network with itself."""
    known = found[0].origin.weights_a
    return replace(plan.origin, weights_a=known, weights_b=known)


def refuse_way(way: str) -> None:
    """A way that is not there. Raises UsageError."""
    if way not in WAYS:
        raise UsageError(f"align {way!r}: one of {', '.join(WAYS)}.{nearest(way, WAYS)}")


def _refuse_pairs(plan: Plan, pairs: Pairs, wanted: Sequence[tuple[int, int]]) -> None:
    """Moments that are missing, of another plan, of other probes, or of other networks than another pair's. Raises MatchError."""
    missing = [pair for pair in wanted if pair not in pairs]
    if missing:
        raise MatchError(
            f"moments of networks {missing[0][0]} and {missing[0][1]} are missing: calibrate every pair, the first "
            "counted as 0."
        )
    known: dict[int, tuple[str, tuple[int, int]]] = {}
    for (a, b), one in pairs.items():
        if one.origin.plan not in ("", plan.digest):
            raise MatchError(
                f"the moments of networks {a} and {b} were calibrated for another plan ({one.origin.plan[:12]}…, this is "
                f"{plan.digest[:12]}…). Calibrate again."
            )
        if one.probes.keys() != pairs[min(pairs)].probes.keys():
            raise MatchError(
                f"the moments of networks {a} and {b} hold other probes than those of {min(pairs)[0]} and {min(pairs)[1]}: "
                "calibrate every pair on the same data."
            )
        for number, weights in ((a, one.origin.weights_a), (b, one.origin.weights_b)):
            before, where = known.setdefault(number, (weights, (a, b)))
            if before and weights and before != weights:
                raise MatchError(
                    f"network {number} has other weights in the moments of {a} and {b} than in those of {where[0]} and "
                    f"{where[1]}: calibrate every pair of the same networks."
                )
