"""What a matching is worth: the matched correlation beside the unmatched and the shuffled, and what moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from permgraph.ir.moments import Moments, ProbeMoments
from permgraph.ir.permutations import Permutations, random_permutations, source_slots
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, IntArray, PermSpec
from permgraph.matching.assignment import solve
from permgraph.matching.probes import DECIDING, decides

SHUFFLES = 10
DIGITS = 6

Row = dict[str, Any]


def measure_probes(plan: Plan, perms: Permutations, moments: Moments, seed: int = 0) -> dict[str, Row]:
    """The same numbers for every probe by itself: one permutation of a stream is good here and poor there.

    groups  layout of its units
    noise   the largest correlation that chance alone would give
    alone   what its own best permutation would reach, where it shares one with other probes
    """
    shared = Counter(probe.layout.groups for probe in moments.probes.values())
    random = [random_permutations(plan, seed + 1 + i) for i in range(SHUFFLES)]
    rows = {key: _probe(plan, perms, random, probe) for key, probe in moments.probes.items()}
    for key, probe in moments.probes.items():
        if shared[probe.layout.groups] > 1 and len(probe.layout.groups) == 1:
            corr = probe.correlation()
            rows[key]["alone"] = round(float(corr[np.arange(len(corr)), solve(corr)].mean()), DIGITS)
    return rows


def measure(
    plan: Plan,
    perms: Permutations,
    probes: Mapping[str, Row],
    deciding: Mapping[str, str] = DECIDING,
) -> dict[str, Row]:
    """Per selected group:

    role, units    units of the group over all slots of its ancestors
    moved          percent of them that come from another place (the paper's Table II)
    observed       "leaving" or "entering", where the selection chose between the two (ffn1, ffn2)
    fixed          how many do not; `by_chance`: how many would not in a random element of the selected groups
    correlation    mean Pearson correlation of matched units, dead ones as 0; `identity`: of units left in
                   place; `shuffled`: of units permuted at random within the selected groups
    dead_a, dead_b units that never vary
    samples        frames counted; `excluded`: left out because of NaN
    warnings       in words

    `probes` are the rows of `measure_probes`; where there is none, only what needs none is said. The order of heads is judged
    where it was decided (`deciding`, as in `match`): queries and keys are aligned inside the heads, and often not at all.
    """
    rows: dict[str, Row] = {}
    for group in plan.groups:
        chain = tuple(g.name for g in (*plan.spec.ancestors(group), group))
        source = flat_source(plan.spec, chain, perms)
        stay = source == np.arange(len(source))
        orders = math.prod(plan.spec.by_name[name].size for name in chain if name in plan.selected)
        rows[group.name] = {
            "role": group.role,
            "units": len(source),
            "moved": 100 * float((~stay).mean()),
            "fixed": int(stay.sum()),
            "by_chance": len(source) / orders,
            **({"observed": plan.taps[group.name]} if group.name in plan.taps else {}),
        }
        own = [probes[key] for key in _own(plan.spec, group, probes, deciding)]
        if own:
            rows[group.name] |= _summary(own)
    return rows


def flat_source(spec: PermSpec, layout: tuple[str, ...], perms: Permutations) -> IntArray:
    """For every unit of a layout, counted row-major, the unit that comes to it."""
    sizes = tuple(spec.by_name[name].size for name in layout)
    return np.ravel_multi_index(source_slots(spec, list(layout), perms), sizes).ravel()


def _own(spec: PermSpec, group: Group, probes: Mapping[str, Row], deciding: Mapping[str, str]) -> list[str]:
    """The probes of a group's own units; where there is none, those of what is inside them that decided their order."""
    holding = [key for key, row in probes.items() if group.name in row["groups"]]

    def inside(key: str) -> bool:
        others = (spec.by_name[name] for name in probes[key]["groups"])
        return any(group.name in (a.name for a in spec.ancestors(other)) for other in others)

    own = [key for key in holding if not inside(key)]
    chosen = [key for key in holding if decides(spec, group, probes[key]["groups"], deciding)]
    return own or chosen or holding


def _probe(plan: Plan, perms: Permutations, random: list[Permutations], probe: ProbeMoments) -> Row:
    layout, corr = probe.layout.groups, probe.correlation()
    units = np.arange(len(corr))

    def mean(by: Permutations) -> float:
        return float(corr[units, flat_source(plan.spec, layout, by)].mean())

    # rounded: the sums of a resumed run end in other digits, and equal runs are to give equal bytes
    return {
        "groups": list(layout),
        "correlation": round(mean(perms), DIGITS),
        "identity": round(mean(Permutations({})), DIGITS),
        "shuffled": round(float(np.mean([mean(one) for one in random])), DIGITS),
        "dead_a": int(probe.dead_a().sum()),
        "dead_b": int(probe.dead_b().sum()),
        "samples": probe.n,
        "excluded": probe.excluded,
        "noise": round(math.sqrt(2 * math.log(max(len(corr), 2)) / max(probe.n, 1)), DIGITS),
        "columns": len(corr),
    }


def _summary(own: list[Row]) -> Row:
    """One row for a group from those of its probes: correlations averaged, the rest from the worst."""
    row: Row = {
        key: round(float(np.mean([one[key] for one in own])), DIGITS)
        for key in ("correlation", "identity", "shuffled")
    }
    row |= {key: max(one[key] for one in own) for key in ("dead_a", "dead_b", "excluded")}
    row["samples"] = min(one["samples"] for one in own)
    noise, columns = max(one["noise"] for one in own), max(one["columns"] for one in own)
    warnings = []
    if row["samples"] < columns:
        warnings.append(
            f"{row['samples']:,} samples for {columns:,} channels: the correlations have at most rank "
            f"{row['samples']:,}. Calibrate on more data."
        )
    if row["correlation"] <= row["shuffled"] + noise:
        warnings.append(
            f"this group gains nothing: matched correlation {row['correlation']:.3f} is not above shuffled "
            f"units ({row['shuffled']:.3f}) and what as few samples give by chance ({noise:.3f})."
        )
    if row["excluded"]:
        warnings.append(f"{row['excluded']:,} samples left out: their batches held a NaN or an infinity.")
    return row | {"warnings": warnings}
