"""What `permgraph plan` prints: the steps, those of repeated layers in one row.

side        groups                  units           copies  tensor and axis
permute     cnn.0-6                 cnn 512              7  feature_extractor.conv_layers.0-6.conv.weight[0]
un-permute  heads.0-11, heads.0-11/v  heads 12 × v 64     12  encoder.layers.0-11.attention.out_proj.weight[1]
"""

from __future__ import annotations

from permgraph.ir.plan import Plan, Step
from permgraph.planning.unread import out_of_step
from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.tables import counts, layout_text
from permgraph.reporting.text import clean, fold_names, number_free

_HEAD = ("side", "groups", "units", "copies", "tensor and axis")


def steps_text(plan: Plan, unfold: bool = False, width: int | None = None) -> str:
    """The steps in graph order: side, groups that move, layout, tensor and axis. With `unfold`, one row a step."""
    if not plan.steps:
        return "The plan has no steps: no group is selected."
    cells = [_HEAD, *(_row(plan, run) for run in _runs(plan, unfold))]
    shown = table(cells, right=(3,), below=4, width=width)
    last = paragraphs([summary(plan), *_broken(plan), *out_of_step(plan.spec, plan.selected)], width)
    return "\n".join([*shown, "", *last])


def summary(plan: Plan) -> str:
    """How many groups, steps and tensors."""
    sides, tensors = [step.side for step in plan.steps], len({step.tensor for step in plan.steps})
    steps = "1 step" if len(sides) == 1 else f"{len(sides)} steps"
    on = "1 tensor" if tensors == 1 else f"{tensors} tensors"
    return (
        f"{counts(plan.spec, plan.selected)}: {steps} on {on}, {sides.count('permute')} permute, "
        f"{sides.count('un-permute')} un-permute; mode {plan.mode}."
    )


def _broken(plan: Plan) -> list[str]:
    ties = [f"broken tie: {clean(tie, 400)}" for tie in plan.broken]
    if plan.mode == "exact":
        return ties
    how = (
        "not measured"
        if plan.change is None
        else f"{plan.change:.2g} relative, a random permutation, float64"
    )
    return [f"Mode {plan.mode} does not keep the function. Largest change of an output: {how}.", *ties]


def _runs(plan: Plan, unfold: bool) -> list[list[Step]]:
    """Steps that differ only in the numbers of their tensors and groups, and by the same count from one to the next."""
    runs: dict[object, list[list[Step]]] = {}
    order: list[list[Step]] = []
    for step in plan.steps:
        alike = runs.setdefault(_pattern(plan, step), [])
        last = alike[-1] if alike else None
        if last is not None and not unfold and _goes_on(last, step):
            last.append(step)
        else:
            alike.append([step])
            order.append(alike[-1])
    return order


def _pattern(plan: Plan, step: Step) -> object:
    groups = tuple(number_free(name)[0] for name in step.layout)
    units = layout_text(plan.spec, step.layout)
    return (number_free(step.tensor)[0], step.axis, step.side, groups, units, step.rows is None)


def _goes_on(run: list[Step], step: Step) -> bool:
    """Whether the tensor's number goes on by one, each group's by one or not at all, and all as in the run before."""
    moves = _moves(run[-1], step)
    unit = [sum(map(abs, move)) == 1 and sum(move) == 1 for move in moves]
    still = [not any(move) for move in moves]
    if not unit[0] or not all(a or b for a, b in zip(unit, still, strict=True)):
        return False
    return len(run) == 1 or moves == _moves(run[-2], run[-1])


def _moves(before: Step, after: Step) -> list[tuple[int, ...]]:
    """By how much the numbers in the names of the tensor and of each group differ."""
    pairs = zip((before.tensor, *before.layout), (after.tensor, *after.layout), strict=True)
    numbers = [(number_free(one)[1], number_free(other)[1]) for one, other in pairs]
    return [tuple(b - a for a, b in zip(one, other, strict=True)) for one, other in numbers]


def _row(plan: Plan, run: list[Step]) -> tuple[str, ...]:
    step = run[0]
    per_row = f", per block of [{step.rows_axis}]" if step.rows is not None else ""
    moved = [fold_names(names)[0] for names in zip(*(_moving(plan, s) for s in run), strict=True)]
    return (
        step.side,
        ", ".join(map(clean, moved)),
        layout_text(plan.spec, step.layout) + per_row,
        str(len(run)),
        f"{clean(fold_names(s.tensor for s in run)[0])}[{step.axis}]",
    )


def _moving(plan: Plan, step: Step) -> list[str]:
    chosen = set(plan.selected)
    return [name for name in step.layout if name in chosen]
