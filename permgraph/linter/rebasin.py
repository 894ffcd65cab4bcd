"""Git Re-Basin's form of a specification, written; and a plan from a specification that somebody else wrote.

Ainsworth et al. (https://arxiv.org/abs/2209.04836) write a group as the axes that it lies on, `perm_to_axes`, and each tensor as
the groups of its axes, `axes_to_perm`. Both say that units fill an axis, one coordinate each. Heads, orders per block, and
units behind a flatten cannot be said so; they are listed as left out, with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place
from permgraph.linter.containment import contain
from permgraph.linter.foreign import resolve
from permgraph.linter.notations import read_foreign
from permgraph.planning.compile import compile_plan


def to_rebasin(plan: Plan) -> dict[str, Any]:
    """`perm_to_axes` and `axes_to_perm` of the plan's groups, in plain lists, and `left_out`: group → why.

    Permutations have the same meaning in both: `new = old.take(perm, axis)`. An axis that no group of the plan lies on has None.
    """
    spec = plan.spec
    perm_to_axes: dict[str, list[list[Any]]] = {}
    left_out: dict[str, str] = {}
    for group in plan.groups:
        why = _unsaid(spec, group)
        if why:
            left_out[group.name] = why
        else:
            axes = dict.fromkeys((place.tensor, place.axis) for place in group.places)
            perm_to_axes[group.name] = [[tensor, axis] for tensor, axis in axes]
    axes_to_perm: dict[str, list[str | None]] = {
        name: [None] * len(shape) for name, shape in spec.tensors.items()
    }
    for name, places in perm_to_axes.items():
        for tensor, axis in places:
            axes_to_perm[tensor][axis] = name
    return {"perm_to_axes": perm_to_axes, "axes_to_perm": axes_to_perm, "left_out": left_out}


def _unsaid(spec: PermSpec, group: Group) -> str:
    """Why a group cannot be written so; "" where it can."""
    if group.ancestors:
        return f"it lives within {group.within}"
    inner = next((g.name for g in spec.groups if group.name in g.ancestors), None)
    if inner is not None:
        return f"{inner} lives within it: its units are blocks"
    return next((why for place in group.places if (why := _unsaid_at(spec, group, place))), "")


def _unsaid_at(spec: PermSpec, group: Group, place: Place) -> str:
    if place.tensor not in spec.tensors:
        return f"{place} is no tensor of the state dict"
    if place.rows is not None:
        return f"{place}: in some rows only"
    own, length = place.positions.array().ravel(), spec.tensors[place.tensor][place.axis]
    if len(own) != group.size or len(own) != length:
        return f"{place}: {group.size} units on an axis of {length}"
    return (
        ""
        if np.array_equal(own, np.arange(length))
        else f"{place}: in another order than that of its other axes"
    )


def plan_from(specification: str | Path, spec: PermSpec) -> tuple[Plan, dict[str, tuple[str, ...]]]:
    """The plan of the groups that a specification names, in any notation that `lint` reads, and which of ours each of its is.

    Where each of its groups is one of ours, as to_rebasin writes them, an index array of its P is one of ours by that name.

    Raises PlanError where one of its groups is no symmetry of the network, or leaves a tensor out; FileError, UsageError.
    """
    foreign = read_foreign(specification, spec.tensors)
    resolved = [resolve(group, spec) for group in foreign.groups]
    for claim, findings in resolved:
        if findings:
            raise PlanError(f"{specification}: {claim.name}: {findings[0].text} `permgraph lint` says more.")
    verdicts = contain(spec, [claim for claim, _ in resolved])
    for verdict in verdicts:
        if not verdict.contained:
            raise PlanError(
                f"{specification}: {verdict.claim} is no symmetry of {spec.model}: {verdict.why}. `permgraph lint` says more."
            )
    names = {verdict.claim: verdict.groups for verdict in verdicts}
    chosen = {name for groups in names.values() for name in groups}
    if not chosen:
        raise PlanError(f"{specification}: names no group that moves anything.")
    terms = [g.name for g in spec.groups if g.name in chosen]
    unwanted = set(compile_plan(spec, ",".join(terms)).selected) - chosen  # what a group brings along
    return compile_plan(spec, ",".join(terms), ",".join(sorted(unwanted))), names
