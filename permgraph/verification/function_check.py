"""The function check that every plan must pass: permuted weights compute the same function, in float64.

The weights get noise, so that no two units are alike by accident; permutations that generate the groups are applied
(`draws`); the outputs are compared (`Experiment`). Once, a tensor of every group is left out of step on purpose: if
that changes nothing, the check says that it cannot notice a wrong plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from permgraph.ir.check_plan import check_permutations, check_plan
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.values import refuse_other_values
from permgraph.tolerances import TIES, TOLERANCE
from permgraph.verification.check import Check
from permgraph.verification.culprit import Culprit, culprit, with_places
from permgraph.verification.draws import draws

if TYPE_CHECKING:
    from torch import nn

    from permgraph.verification.experiment import Experiment

OF_TIES = 4  # further draws of a network that takes the first of equal values

__all__ = ["TOLERANCE", "Check", "left_out", "verify", "whole"]


def verify(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: PermSpec | Plan,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    perms: Permutations | None = None,
    *,
    explain: bool = True,
) -> Check:
    """Measure how much the function changes when units are re-ordered. The model itself is not touched.

    Args:
        spec: a PermSpec (all groups move) or a Plan (the selected ones do).
        seed: of the noise on the weights and of the permutations.
        perms: permutations to try instead of those of `draws`.
        explain: on failure, look for the groups and tensors that are wrong (some tens of runs).

    Raises:
        PlanError: the plan contradicts itself, the permutations are not for it, the model has no weights (meta
            device), lacks a tensor of the plan, or holds other integers than the plan follows.
        CheckError: its outputs are all NaN, or a tensor of it cannot be brought to float64.
    """
    from permgraph.verification.experiment import Experiment

    plan = spec if isinstance(spec, Plan) else whole(spec)
    check_plan(plan)
    if perms is not None:
        check_permutations(plan, perms)
    refuse_other_values(plan.spec, model.state_dict(), type(model).__name__)
    experiment = Experiment(model, example_inputs, kwargs, seed)
    more = OF_TIES if experiment.before.selects else 0
    trials = draws(plan, seed, more) if perms is None else [perms]
    changes = [experiment.change(plan, trial) for trial in trials]
    worst = max(range(len(trials)), key=changes.__getitem__, default=-1)
    largest = changes[worst] if trials else 0.0
    limit, rounding = experiment.limit_of(largest)
    wrong = Culprit()
    if largest > max(limit, TIES * rounding) and explain and plan.mode == "exact":
        wrong = culprit(plan, trials[worst], lambda p, q: experiment.change(p, q) <= limit)
    return Check(
        change=largest,
        limit=limit,
        trials=len(trials),
        noise=experiment.noise,
        random=experiment.before.random,
        control=_control(experiment, plan, trials[0]) if trials and largest <= limit else None,
        groups=wrong.groups,
        tensors=wrong.tensors,
        remedy=wrong.remedy,
        nan=experiment.nan,
        rounding=rounding,
    )


def _control(experiment: Experiment, plan: Plan, perms: Permutations) -> float | None:
    """The change with one tensor of every group left out of step; None when no group has two."""
    dropped = set()
    for group in plan.groups:
        steps = [step for step in plan.steps if group.name in step.layout]
        if len({step.tensor for step in steps}) > 1:  # the largest tensor: a bias may cancel in what follows
            dropped.add(max(steps, key=lambda step: len(plan.spec.shapes.get(step.tensor, ()))))
    if not dropped:
        return None
    partial = with_places(plan, (p for p in plan.spec.places if p not in dropped))
    return experiment.change(partial, Permutations(perms.arrays))


def whole(spec: PermSpec) -> Plan:
    """The plan that moves every group."""
    return Plan(spec, tuple(g.name for g in spec.groups), selection="all")


def left_out(plan: Plan, place: int) -> Plan:
    """The plan with one of its steps forgotten: what the function check must notice."""
    dropped = plan.steps[place]
    return with_places(plan, (p for p in plan.spec.places if p is not dropped))
