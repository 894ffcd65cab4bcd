"""What `permgraph trace` and `permgraph plan` print: the groups of a network, what pins the rest, the steps.

name       role   symmetry                copies  tensors
cnn.0-6    cnn    S512                         7      2-4
heads.0-11 heads  S12 ≀ (S64 qk × S64 v)      12        7
ffn.0-11   ffn    S3072                       12        3
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from permgraph.ir.plan import Plan, Step
from permgraph.ir.spec import Group, PermSpec
from permgraph.planning.unread import out_of_step
from permgraph.reporting.notes import notes
from permgraph.reporting.text import clean, fold_names, listed

if TYPE_CHECKING:
    from rich.table import Table

_HEAD = ("name", "role", "symmetry", "copies", "tensors", "units produced by")


@dataclass(frozen=True)
class Row:
    """Groups with equal structure and consecutive numbers.

    name      "ffn.0-11"
    role      of the outermost group
    symmetry  of one copy: "S12 ≀ (S64 qk × S64 v)"
    groups    outermost groups of all copies, in order
    tensors   number of tensors that one copy touches: least and most
    """

    name: str
    role: str
    symmetry: str
    groups: tuple[Group, ...]
    tensors: tuple[int, int]

    @property
    def copies(self) -> int:
        return len(self.groups)

    @property
    def modules(self) -> str:
        """Modules that produce the units, folded."""
        return listed(fold_names(g.module for g in self.groups if g.module), 2)

    def cells(self) -> tuple[str, ...]:
        least, most = self.tensors
        tensors = f"{least}" if least == most else f"{least}-{most}"
        return (clean(self.name), clean(self.role), self.symmetry, str(self.copies), tensors, self.modules)


def symmetry(spec: PermSpec, group: Group) -> str:
    """The group and what lives within it, as a wreath product: "S512", "S12 ≀ (S64 qk × S64 v)"."""
    inner = [g for g in spec.groups if g.within == group.name]
    if not inner:
        return f"S{group.size}"
    if len(inner) == 1 and not _within(spec, inner[0]):
        return f"S{group.size} ≀ {symmetry(spec, inner[0])}"
    factors = [_factor(spec, g) for g in inner]
    return f"S{group.size} ≀ ({' × '.join(factors)})"


def _factor(spec: PermSpec, group: Group) -> str:
    label = clean(group.role.rpartition("/")[2], 24)
    text = symmetry(spec, group)
    return f"({text}) {label}" if " " in text else f"{text} {label}"


def _within(spec: PermSpec, group: Group) -> list[Group]:
    return [g for g in spec.groups if g.within == group.name]


def family(spec: PermSpec, group: Group) -> tuple[Group, ...]:
    """The group and all that lives within it, at any depth."""
    found = [group]
    for parent in found:
        found.extend(_within(spec, parent))
    return tuple(found)


def rows(spec: PermSpec) -> list[Row]:
    """The outermost groups; consecutive ones of a role with the same symmetry share a row."""
    runs: dict[str, list[list[Group]]] = {}
    order: list[list[Group]] = []
    for group in (g for g in spec.groups if not g.ancestors):
        last = runs.setdefault(group.role, [])
        if last and _follows(spec, last[-1][-1], group):
            last[-1].append(group)
        else:
            last.append([group])
            order.append(last[-1])
    return [_row(spec, tuple(run)) for run in order]


def _follows(spec: PermSpec, before: Group, group: Group) -> bool:
    numbers = before.name.rpartition(".")[2], group.name.rpartition(".")[2]
    if not all(n.isdecimal() for n in numbers) or int(numbers[1]) != int(numbers[0]) + 1:
        return False
    return symmetry(spec, before) == symmetry(spec, group)


def _row(spec: PermSpec, run: tuple[Group, ...]) -> Row:
    counts = [len({p.tensor for g in family(spec, group) for p in g.places}) for group in run]
    name = fold_names(g.name for g in run)[0]
    return Row(name, run[0].role, symmetry(spec, run[0]), run, (min(counts), max(counts)))


def spec_table(spec: PermSpec) -> Table:
    """The table of groups for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"Permutation groups of {clean(spec.model)}"), title_justify="left")
    for head in _HEAD:
        table.add_column(head, justify="right" if head in ("copies", "tensors") else "left", overflow="fold")
    for row in rows(spec):
        table.add_row(*(Text(cell) for cell in row.cells()))
    return table


def spec_text(spec: PermSpec) -> str:
    """The same as plain text, for a pipe or a file, with the notes."""
    cells = [_HEAD, *(row.cells() for row in rows(spec))]
    if len(cells) == 1:
        return "\n".join([f"{clean(spec.model)} has no permutation group.", *notes(spec)])
    return "\n".join([*_aligned(cells, right=(3, 4)), "", *notes(spec)])


def print_spec(spec: PermSpec, stream: TextIO | None = None) -> None:
    """Print the table of groups and the notes: drawn on a terminal, plain text anywhere else."""
    stream = stream or sys.stdout
    if not stream.isatty() or not spec.groups:
        print(spec_text(spec), file=stream)
        return
    from rich.console import Console

    console = Console(file=stream)
    console.print(spec_table(spec))
    for line in notes(spec):
        console.print(line, markup=False, highlight=False)


def steps_text(plan: Plan) -> str:
    """The steps of a plan in graph order, one a line: side, tensor and axis, layout, the groups that move.

    permute     encoder.layers.3.attention.v_proj.weight[0]  heads 12 × v 64  heads.3, heads.3/v
    """
    cells = [_step(plan, step) for step in plan.steps]
    if not cells:
        return "The plan has no steps: no group is selected."
    sides = [step.side for step in plan.steps]
    tensors = len({step.tensor for step in plan.steps})
    summary = (
        f"{len(cells)} {'step' if len(cells) == 1 else 'steps'} on {tensors} "
        f"{'tensor' if tensors == 1 else 'tensors'}: {sides.count('permute')} permute, "
        f"{sides.count('un-permute')} un-permute; mode {plan.mode}."
    )
    broken = [f"broken tie: {clean(tie, 400)}" for tie in plan.broken]
    if plan.mode != "exact":
        how = (
            "not measured"
            if plan.change is None
            else f"{plan.change:.2g} relative, a random permutation, float64"
        )
        broken.insert(0, f"Mode {plan.mode} does not keep the function. Largest change of an output: {how}.")
    return "\n".join([*_aligned(cells), "", summary, *broken, *out_of_step(plan.spec, plan.selected)])


def _step(plan: Plan, step: Step) -> tuple[str, ...]:
    per_row = f", per block of [{step.rows_axis}]" if step.rows is not None else ""
    moved = ", ".join(clean(name) for name in step.layout if name in plan.selected)
    return (
        step.side,
        f"{clean(step.tensor)}[{step.axis}]",
        layout_text(plan.spec, step.layout) + per_row,
        moved,
    )


def layout_text(spec: PermSpec, layout: Iterable[str]) -> str:
    """The factors of an axis, slowest first: "heads 12 × v 64"."""
    groups = [spec.by_name[name] for name in layout]
    return " × ".join(f"{clean(g.role.rpartition('/')[2], 24)} {g.size}" for g in groups)


def _aligned(cells: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
