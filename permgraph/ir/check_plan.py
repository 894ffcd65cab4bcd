"""Check a plan, and the permutations that go with it: what is selected exists, and nothing is for another plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from permgraph.errors import PlanError, nearest
from permgraph.ir.check_spec import check_spec

if TYPE_CHECKING:
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.plan import Plan
    from permgraph.ir.spec import IntArray

MODES = ("exact", "one-sided", "untied", "untied-qkv")
TAPS = ("entering", "leaving", "normed")


def check_plan(plan: Plan) -> None:
    """Raises PlanError when a place of a chosen group is missing, or the plan contradicts itself."""
    check_spec(plan.spec)
    for name in (*plan.selected, *plan.taps):
        if name not in plan.spec.by_name:
            raise PlanError(f"group {name!r} is selected and not defined.{nearest(name, plan.spec.by_name)}")
    if len(set(plan.selected)) != len(plan.selected):
        raise PlanError("selected: a group is selected twice.")
    if plan.mode not in MODES:
        raise PlanError(f"mode {plan.mode!r}: one of {', '.join(MODES)} can be.")
    for group, tap in plan.taps.items():
        if tap not in TAPS or group not in plan.selected:
            raise PlanError(f"taps: {group!r} is observed {tap!r}; it is not selected, or not one of {TAPS}.")
    if plan.mode == "exact" and (plan.broken or plan.change is not None):
        raise PlanError("mode 'exact' keeps the function: it breaks no ties and makes no change.")
    if plan.change is not None and plan.change < 0:
        raise PlanError(f"change: {plan.change} is below 0.")


def check_permutations(plan: Plan, perms: Permutations) -> None:
    """Refuse what was matched for another plan, or is not one bijection per selected group and slot.

    Raises PlanError.
    """
    if perms.origin.plan not in ("", plan.digest):
        raise PlanError(
            f"the permutations were made for the plan {_short(perms.origin.plan)} of the architecture "
            f"{_short(perms.origin.architecture)}, this is the plan {_short(plan.digest)} of {_short(plan.fingerprint)} "
            f"({plan.spec.model}, {plan.selection or 'groups'}). Match again with this plan, or give the other one."
        )
    for name, array in perms.arrays.items():
        if name not in plan.spec.by_name:
            raise PlanError(
                f"permutation for group {name!r}: no such group.{nearest(name, plan.spec.by_name)}"
            )
        if name not in plan.selected:
            raise PlanError(
                f"permutation for group {name!r}: the plan ({plan.selection or ', '.join(plan.selected)}) does not move "
                "it. Leave it out with `perms.only(plan.selected)`, or plan it too."
            )
        _check_bijections(name, array, plan.spec.shape_of(plan.spec.by_name[name]))


def _check_bijections(name: str, array: IntArray, want: tuple[int, ...]) -> None:
    where = f"permutation for group {name!r}"
    if tuple(array.shape) != want:
        raise PlanError(f"{where}: shape {tuple(array.shape)}, the group needs {want}.")
    if not np.issubdtype(array.dtype, np.integer):
        raise PlanError(f"{where}: dtype {array.dtype}, indices must be integers.")
    rows = np.sort(array.reshape(math.prod(want[:-1]), want[-1]), axis=1)
    bad = np.flatnonzero((rows != np.arange(want[-1])).any(axis=1))
    if bad.size:
        slot = f" (slot {int(bad[0])})" if len(want) > 1 else ""
        raise PlanError(
            f"{where}{slot} is not a permutation of 0…{want[-1] - 1}: every index must appear exactly once."
        )


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "(unknown)"
