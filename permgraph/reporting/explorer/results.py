"""Results of a matching for the page and for figures: numbers per group, heat maps, curves by depth."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.moments import FloatArray, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, IntArray
from permgraph.matching.scores import flat_source

EXACT, CELLS = 64, 48  # a heat map of more units than EXACT has CELLS rows and columns
_KEPT = ("role", "units", "moved", "correlation", "identity", "shuffled", "dead_a", "dead_b", "warnings")


def results(plan: Plan, perms: Permutations, moments: Moments | None = None) -> dict[str, Any]:
    """What the page shows of a matching. Raises PlanError when they do not belong together.

    groups   the rows of the report of `match`, by name of the group
    maps     heat maps of each group: which unit goes to which slot; with moments, correlations before and after
    """
    check_matching(plan, perms, moments)
    rows = {
        name: {key: row[key] for key in _KEPT if key in row}
        for name, row in perms.report.get("groups", {}).items()
    }
    maps = {}
    for group in plan.groups:
        if group.name not in perms.arrays:
            continue
        rows.setdefault(group.name, {"role": group.role, "moved": moved(plan, group, perms)})
        maps[group.name] = {title: encoded(array) for title, array in heat_maps(plan, group, perms, moments)}
    return {"groups": rows, "maps": maps}


def check_matching(plan: Plan, perms: Permutations, moments: Moments | None) -> None:
    """Refuse permutations and moments of another plan. Raises PlanError."""
    check_permutations(plan, perms)
    if moments is not None and moments.origin.plan not in ("", plan.digest):
        raise PlanError("the moments were calibrated for another plan. Give those of this matching.")


def moved(plan: Plan, group: Group, perms: Permutations) -> float:
    """Percent of the units that come from another place."""
    source = _source(plan, group, perms)
    return 100 * float((source != np.arange(len(source))).mean())


def heat_maps(
    plan: Plan, group: Group, perms: Permutations, moments: Moments | None = None
) -> Iterable[tuple[str, FloatArray]]:
    """Titles and square arrays with values from 0 to 1: A's units down, B's across.

    Correlations are pooled by their largest value, so that a diagonal is still seen, and negative ones are 0. The
    map of a permutation is pooled by its mean, and its largest value is 1.
    """
    source = _source(plan, group, perms)
    probe = None if moments is None else probe_of(group, moments)
    if probe is not None:
        correlation = np.clip(probe.correlation(), 0, 1)
        yield "correlation before: A's units down, B's across", pooled(correlation, np.max)
        yield "correlation after", pooled(correlation[:, source], np.max)
    else:
        place = np.zeros((len(source), len(source)))
        place[np.arange(len(source)), source] = 1
        shares = pooled(place, np.mean)
        yield "where units come from: slots down, B's units across", shares / shares.max()


def probe_of(group: Group, moments: Moments) -> ProbeMoments | None:
    """The first probe whose units are those of a group and of what it lives within; None where there is none."""
    chain = _chain(group)
    return next((p for p in moments.probes.values() if p.layout.groups == chain), None)


def _source(plan: Plan, group: Group, perms: Permutations) -> IntArray:
    return flat_source(plan.spec, _chain(group), perms)


def _chain(group: Group) -> tuple[str, ...]:
    return (*group.ancestors, group.name)


def pooled(array: FloatArray, pool: Any) -> FloatArray:
    """A square array of CELLS rows, each cell `pool` of the values in it; one of at most EXACT rows as it is."""
    size = len(array)
    if size <= EXACT:
        return array
    edges = np.linspace(0, size, CELLS + 1).astype(int)
    spans = list(pairwise(edges))
    return np.array([[pool(array[a:b, c:d]) for c, d in spans] for a, b in spans])


def encoded(array: FloatArray) -> dict[str, Any]:
    """A heat map of values from 0 to 1 for the page: bytes in base64, row by row; 255 is the largest value."""
    high = float(array.max()) or 1.0
    values = base64.b64encode(np.round(255 * array / high).astype(np.uint8).tobytes()).decode()
    return {"size": len(array), "values": values, "high": round(high, 3)}
