"""Notes: the lines below a table of groups. What pins the rest, ops without a rule, tensors nobody reads."""

from __future__ import annotations

from permgraph.ir.distinguished import distinguished
from permgraph.ir.spec import PermSpec
from permgraph.matching.probes import unobserved
from permgraph.reporting.text import clean, fold_names, listed


def notes(spec: PermSpec) -> list[str]:
    """Lines below the table: order of the whole group, what holds the rest, unknown ops, unused tensors."""
    lines = [f"{_power(spec.log10_order)} permutations keep the function (log10 {spec.log10_order:,.1f})."]
    if spec.free_output:
        lines.append("The output was left free: these also re-order the channels of the output.")
    lines += [f"{clean(note)}." for note in spec.notes]
    lines += _pin_lines(spec)
    lines += _distinguished_lines(spec)
    lines += _unknown_lines(spec)
    if names := unobserved(spec):
        lines.append(
            f"no activation holds the units of {listed(fold_names(names))}: they cannot be matched from activations."
        )
    if spec.frozen:
        lines.append(
            f"frozen: {spec.frozen:,} points whose freedom is not a nested symmetric group; left in order."
        )
    if spec.unused:
        lines.append(f"unused by the network: {listed(fold_names(spec.unused), 8)}.")
    return lines


def _reasons(spec: PermSpec) -> dict[str, str]:
    """Op without a rule → the reason of the pins that stand for it."""
    if not spec.unknown_ops:
        return {}
    from permgraph.axes.points import without_rule  # with what infers groups

    return {u.op: without_rule(u.op) for u in spec.unknown_ops}


def _unknown_lines(spec: PermSpec) -> list[str]:
    """For every op without a rule, or form that its rule refuses: where it is called, and what stays pinned for it."""
    lines = []
    told = _reasons(spec)
    for op, reason in dict.fromkeys((u.op, u.reason) for u in spec.unknown_ops):
        calls = [u for u in spec.unknown_ops if (u.op, u.reason) == (op, reason)]
        nodes = listed(fold_names(u.node for u in calls))
        where = listed(fold_names(_where(u.module, u.source) for u in calls))
        held = fold_names(f"{p.tensor}[{p.axis}]" for p in spec.pinned if p.reason == told[op])
        pins = f"it pins {listed(held)}" if held else "all it touches is pinned"
        what = f"its rule does not cover this form ({clean(reason)}): {clean(op)}" if reason else ""
        lines.append(f"{what or f'op without a rule: {clean(op)}'} at {nodes}, in {where}; {pins}.")
        if row := calls[0].row:
            lines.append(
                "  A row to start from; take ! off the axes whose order does not matter to it "
                "(CONTRIBUTING.md, 'Add an op rule'):"
            )
            lines.append(f"    {clean(row)}")
    return lines


def _pin_lines(spec: PermSpec) -> list[str]:
    told = set(_reasons(spec).values())  # with the op
    by_reason: dict[str, dict[str, int]] = {}
    for pin in spec.pinned:
        if pin.reason in told:
            continue
        axes = by_reason.setdefault(pin.reason, {})
        axis = f"{pin.tensor}[{pin.axis}]"
        axes[axis] = axes.get(axis, 0) + pin.count
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return [
        f"pinned by {clean(reason)}: {sum(axes.values()):,} coordinates on {len(axes):,} "
        f"{'axis' if len(axes) == 1 else 'axes'}: {listed(fold_names(axes))}."
        for reason, axes in ordered
    ]


def _distinguished_lines(spec: PermSpec) -> list[str]:
    """What no rule pins, and no group moves."""
    axes = {f"{tensor}[{axis}]": count for (tensor, axis), count in distinguished(spec).items()}
    if not axes:
        return []
    return [
        f"held by what they are linked to: {sum(axes.values()):,} coordinates on {len(axes):,} "
        f"{'axis' if len(axes) == 1 else 'axes'}: {listed(fold_names(axes))}. `permgraph why` shows the links."
    ]


def _where(module: str, source: str) -> str:
    return (module or "the network") + (f" ({source})" if source else "")


def _power(log10: float) -> str:
    return f"10^{log10:,.0f}" if log10 >= 6 else f"{round(10**log10):,}"
