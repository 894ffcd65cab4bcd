"""Compile: from a PermSpec and a selection to a Plan without gaps."""

from __future__ import annotations

from permgraph.ir.check_plan import check_plan
from permgraph.ir.check_spec import check_spec
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.planning.modes import with_mode
from permgraph.planning.selection import select


def compile_plan(spec: PermSpec, groups: str = "all", exclude: str = "", mode: str = "exact") -> Plan:
    """The plan that moves the selected groups.

    Args:
        groups: words, roles, names, globs, ranges and presets, separated by commas.
        exclude: the same notation, taken out again.
        mode: "exact" keeps the function; "one-sided", "untied" and "untied-qkv" do not, and say what they break.

    Raises:
        SelectionError, UsageError: nothing like that can be selected.
        PlanError: the spec contradicts itself, or the plan would have a gap.
    """
    check_spec(spec)
    chosen = select(spec, groups, exclude)
    text = groups if not exclude else f"{groups} -x {exclude}"
    plan = with_mode(Plan(spec, chosen.names, selection=text, taps=chosen.taps), mode)
    check_plan(plan)
    return plan
