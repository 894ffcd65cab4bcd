"""Check: a plan without gaps. Every place of a chosen group appears exactly once, and sizes agree."""

from __future__ import annotations

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.permutations import ancestors
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Place


def check_plan(plan: Plan) -> None:
    """Raises PlanError that names the tensor, the axis and the group at fault."""
    spec = plan.spec
    for name in plan.selected:
        if name not in spec.by_name:
            raise PlanError(f"group {name!r} is selected and not defined.")
    listed = set(spec.places)
    if len(listed) != len(spec.places):
        twice = next(p for i, p in enumerate(spec.places) if p in spec.places[:i])
        raise PlanError(f"{twice.tensor}[{twice.axis}] appears twice with the same units.")
    for group in plan.groups:
        for place in group.places:
            if place not in listed:
                raise PlanError(
                    f"{place.tensor}[{place.axis}] is missing: it holds units of {group.name}, and moving the "
                    "others without it would change the function."
                )
    for place in plan.steps:
        _check_place(plan, place)


def _check_place(plan: Plan, place: Place) -> None:
    where = f"{place.tensor}[{place.axis}]"
    sizes = []
    for name in place.layout:
        if name not in plan.spec.by_name:
            raise PlanError(f"{where}: group {name!r} is not defined.")
        group = plan.spec.by_name[name]
        sizes.append(group.size)
        missing = [g.name for g in ancestors(plan.spec, group) if g.name not in place.layout]
        if missing:
            raise PlanError(
                f"{where}: units of {name} are placed without {missing[0]}, which they live within."
            )
    if place.positions.shape[:-1] != tuple(sizes):
        raise PlanError(
            f"{where}: positions of shape {place.positions.shape}, the groups need {(*sizes, '…')}."
        )
    shape = plan.spec.tensors.get(place.tensor)
    if shape is None:
        if place.tensor.startswith("output:"):
            return
        raise PlanError(f"{where}: the plan does not know this tensor's shape.")
    at = place.positions.array()
    if place.axis >= len(shape) or at.min() < 0 or at.max() >= shape[place.axis]:
        raise PlanError(f"{where}: positions up to {int(at.max())}, the tensor has shape {shape}.")
    if place.rows is None and np.unique(at).size != at.size:
        raise PlanError(f"{where}: a coordinate belongs to two units.")
