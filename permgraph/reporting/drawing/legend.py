"""The legend of a drawing: what each colour is, its symmetry, how often, and what the marks mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.reporting.drawing import colours
from permgraph.reporting.drawing.cards import Look
from permgraph.reporting.drawing.colours import Ink
from permgraph.reporting.drawing.fonts import shortened
from permgraph.reporting.drawing.scene import Curve, Item, Rect, Scene, Text, moved
from permgraph.reporting.tables import Row, counts, family, rows
from permgraph.reporting.text import clean, fold_names

_MOST = 40  # rows shown; an unusual network can have hundreds
_SIZE, _LINE, _SWATCH, _GAP = 10, 14, 26, 18
_HEAD = 40  # height of the title and the line below it
Line = list[Item]


def legend(look: Look, plan: Plan | None, width: float, drawn: Collection[str] | None = None) -> Scene:
    """The legend, a strip to stand above the drawing, at most `width` pixels wide; of the groups that are `drawn`, where
    not all are."""
    shown = rows(look.spec)
    if drawn is not None:
        shown = [part for row in shown if (part := _part(look.spec, row, drawn))]
    blocks = [_rows(look, row, width / 2) for row in shown[:_MOST]]
    if len(shown) > _MOST:
        blocks.append([[_words(0, f"and {len(shown) - _MOST} more")]])
    blocks.append(_marks(look.spec, width / 2))
    items: list[Item] = [*_title(look.spec, plan, width)]
    columns = _columns(blocks, width)
    x = 0.0
    for column in columns:
        for i, line in enumerate(column):
            items += [moved(item, x, _HEAD + i * _LINE + 10) for item in line]
        x += _width(column) + _GAP
    right = max(x - _GAP, max(i.x + i.width for i in items if isinstance(i, Text)))
    return Scene(right, _HEAD + _LINE * max(map(len, columns)), tuple(items))


def _part(spec: PermSpec, row: Row, drawn: Collection[str]) -> Row | None:
    """The row of those of its groups of which something is drawn."""
    groups = tuple(g for g in row.groups if any(member.name in drawn for member in family(spec, g)))
    if not groups:
        return None
    name = row.name if groups == row.groups else ", ".join(fold_names(g.name for g in groups))
    return replace(row, groups=groups, name=name)


def _columns(blocks: list[list[Line]], width: float) -> list[list[Line]]:
    """Blocks of lines in columns of the least height that fits the width, a block never divided."""
    height = max(map(len, blocks))
    while True:
        columns: list[list[Line]] = []
        for block in blocks:
            if not columns or len(columns[-1]) + len(block) > height:
                columns.append([])
            columns[-1] += block
        if len(columns) == 1 or sum(map(_width, columns)) + _GAP * (len(columns) - 1) <= width:
            return columns
        height += 1


def _width(column: list[Line]) -> float:
    return max(i.x + i.width for line in column for i in line if isinstance(i, (Text, Rect)))


def _title(spec: PermSpec, plan: Plan | None, width: float) -> list[Text]:
    model = Text(0, 14, shortened(clean(spec.model), 14, width, True), 14, True)
    words = f"{counts(spec)}, 10^{spec.log10_order:,.0f} permutations that keep the function"
    if plan is not None:
        what = clean(plan.selection or ", ".join(plan.selected)) or "nothing"
        shown = [name for name in plan.selected if name in spec.by_name]  # of a part of the network
        words = f"{counts(spec, shown)}; the plan moves {what} in {len(plan.steps)} steps, the rest is pale"
    return [model, Text(0, 29, shortened(words, _SIZE, width), _SIZE, fill=colours.GREY)]


def _rows(look: Look, row: Row, most: float) -> list[Line]:
    """One line for a row of groups, and one for each kind of group that lives within it."""
    chosen: dict[str, bool] = {}
    first: dict[str, str] = {}
    for group in row.groups:
        for member in family(look.spec, group):
            first.setdefault(member.role, member.name)
            chosen[member.role] = chosen.get(member.role, False) or member.name in look.selected
    lines = []
    for i, (role, strong) in enumerate(chosen.items()):
        size = look.spec.by_name[first[role]].size
        times = f"  × {row.copies}" if row.copies > 1 else ""
        name = row.name if i == 0 else f"  /{role.rpartition('/')[2]}"
        text = f"{name}   {row.symmetry}{times}" if i == 0 else f"{name}   S{size}"
        words = _words(_SWATCH + 6, shortened(clean(text), _SIZE, most - _SWATCH - 6))
        lines.append([*_sample(look.inks[first[role]], strong), words])
    return lines


def _words(x: float, text: str) -> Text:
    return Text(x, 0, text, _SIZE)


def _sample(ink: Ink, strong: bool) -> Line:
    """A piece of the line that a group is drawn with."""
    colour = ink.colour if strong else colours.tint(ink.colour, 0.42)
    return [_stroke(colour, 3.5 if strong else 2, ink.dash)]


def _stroke(colour: str, line: float, dash: str = "") -> Curve:
    return Curve(((0, -3.5), (9, -3.5), (17, -3.5), (_SWATCH, -3.5)), colour, line, dash)


def _marks(spec: PermSpec, most: float) -> list[Line]:
    reasons = list(dict.fromkeys(clean(p.reason, 40) for p in spec.pinned))
    why = f"pinned by {', '.join(reasons[:3])}{', …' if len(reasons) > 3 else ''}" if reasons else "no group"
    indent = _SWATCH + 6
    lines: list[Line] = [[_stroke(colours.PINNED, 1.1), _words(indent, shortened(why, _SIZE, most - indent))]]
    if spec.unknown_ops:
        frame = Rect(2, -8, _SWATCH - 4, 8, "none", colours.UNKNOWN, 1.4, 2, "4 2")
        lines.append([frame, _words(indent, f"{len(spec.unknown_ops)} ops without a rule")])
    for mark, text in (
        ("S", "one elementary group: its units in any order"),
        ("P", "permute, where units are produced"),
        ("P⁻¹", "un-permute, where they are consumed"),
    ):
        lines.append([Text(4, 0, mark, _SIZE, True), _words(indent, text)])
    return lines
