"""Activations: how matched units of two models go together, read off the moments of a calibration."""

from __future__ import annotations

import numpy as np

from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.matching.probes import choose_probes
from permgraph.matching.scores import flat_source
from permgraph.transformations.call import ROTATIONS, SIGNS
from permgraph.transformations.places import Numbers, chain_of
from permgraph.transformations.transformation import Factor


def crossed_of(plan: Plan, factor: Factor, moments: Moments | None, perms: Permutations) -> Numbers | None:
    """Of signs, the correlations of matched units, (*copies, n); of rotations, the covariances of A's and B's units inside each
    copy, (*copies, n, n). Summed over the probes that the factor changes; None where there are none."""
    if moments is None or factor.kind not in (SIGNS, ROTATIONS):
        return None
    nodes = {node for node, _ in factor.seen}
    total: Numbers | None = None
    for key, probe in choose_probes(plan).items():
        if key not in moments.probes or probe.node not in nodes or factor.group not in probe.layout:
            continue
        held = moments[key]
        layout = held.layout.groups
        source = flat_source(plan.spec, layout, perms)
        found = held.correlation() if factor.kind == SIGNS else held.covariance()
        part = _inside(plan, factor, layout, found[:, source])
        total = part if total is None else total + part
    return total


def _inside(plan: Plan, factor: Factor, layout: tuple[str, ...], found: Numbers) -> Numbers:
    """Of all units of A with all of B's, those of one unit, or of one copy."""
    spec, chain = plan.spec, chain_of(plan.spec, factor)
    sizes = [spec.by_name[name].size for name in layout]
    kept = [name for name in layout if name in chain]
    others = tuple(i for i, name in enumerate(layout) if name not in chain)
    if factor.kind == SIGNS:
        diagonal = np.diagonal(found).reshape(sizes).sum(axis=others)
        return np.asarray(diagonal.transpose([kept.index(name) for name in chain]), dtype=np.float64)
    axis = layout.index(factor.group)
    wide = np.moveaxis(found.reshape(*sizes, *sizes), (axis, len(sizes) + axis), (-2, -1))
    for i in range(len(sizes) - 1):  # the copies of A with the same of B
        wide = np.moveaxis(np.diagonal(wide, axis1=i, axis2=len(sizes) - 1), -1, i)
    rest = [name for name in layout if name != factor.group]
    summed = wide.sum(axis=tuple(i for i, name in enumerate(rest) if name not in chain))
    left = [name for name in rest if name in chain]
    order = [left.index(name) for name in chain[:-1]]
    return np.asarray(summed.transpose([*order, len(left), len(left) + 1]), dtype=np.float64)
