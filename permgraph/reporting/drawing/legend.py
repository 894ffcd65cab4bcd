"""The legend of a drawing: what each colour is, its symmetry, how often, and what the marks mean."""

from __future__ import annotations

from html import escape

from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.reporting.drawing.colours import PINNED, UNKNOWN, tint
from permgraph.reporting.tables import Row, family, rows
from permgraph.reporting.text import clean

_MOST = 24  # rows shown; an unusual network can have hundreds
_LINES, _COLUMNS = 3, 4  # least lines of a column, most columns


def legend(spec: PermSpec, plan: Plan | None, hues: dict[str, str]) -> str:
    """The legend as a Graphviz HTML-like label: a strip of columns, to stand above the drawing."""
    selected = {g.name for g in spec.groups} if plan is None else set(plan.selected)
    shown = rows(spec)
    blocks = [_rows(spec, row, hues, selected) for row in shown[:_MOST]]
    if len(shown) > _MOST:
        blocks.append([_cells("", f"and {len(shown) - _MOST} more", "", "")])
    columns = [*_balanced(blocks), _marks(spec)]
    height = max(map(len, columns))
    columns = [column + [_cells("", "", "", "")] * (height - len(column)) for column in columns]
    inside = "".join(f'<td valign="top">{_table("".join(column))}</td>' for column in columns)
    head = f'<tr><td colspan="{len(columns)}" align="left" balign="left">{_head(spec, plan)}</td></tr>'
    return f"<{_table(f'{head}<tr>{inside}</tr>')}>"


def _balanced(blocks: list[list[str]]) -> list[list[str]]:
    """Blocks of lines in columns of about equal height, a block never divided."""
    height = max(_LINES, -(-sum(map(len, blocks)) // _COLUMNS))
    columns: list[list[str]] = []
    for block in blocks:
        if not columns or len(columns[-1]) + len(block) > height:
            columns.append([])
        columns[-1] += block
    return columns


def _marks(spec: PermSpec) -> list[str]:
    reasons = list(dict.fromkeys(clean(p.reason, 40) for p in spec.pinned))
    why = f" by {', '.join(reasons[:3])}{', …' if len(reasons) > 3 else ''}" if reasons else ""
    lines = [_wide(PINNED, escape(f"pinned{why}"))]
    lines += (
        [_wide(UNKNOWN, f"{len(spec.unknown_ops)} ops without a rule (dashed)")] if spec.unknown_ops else []
    )
    return [
        *lines,
        _wide("", "<b>P</b>  permute, where the units are produced"),
        _wide("", "<b>P⁻¹</b>  un-permute, where they are consumed"),
    ]


def _table(inside: str) -> str:
    return f'<table border="0" cellborder="0" cellspacing="0" cellpadding="3">{inside}</table>'


def _head(spec: PermSpec, plan: Plan | None) -> str:
    title = f'<b><font point-size="14">{escape(clean(spec.model, 60))}</font></b>'
    text = f"{len(spec.groups)} groups, 10^{spec.log10_order:,.0f} permutations that keep the function"
    if plan is not None:
        what = clean(plan.selection or ", ".join(plan.selected), 80) or "nothing"
        text += f"<br/>the plan moves <b>{escape(what)}</b> in {len(plan.steps)} steps; the rest is pale"
    return f"{title}<br/>{text}"


def _rows(spec: PermSpec, row: Row, hues: dict[str, str], selected: set[str]) -> list[str]:
    """One line for a row of groups, and one for each kind of group that lives within it."""
    found: dict[str, list[bool]] = {}
    sizes: dict[str, int] = {}
    for group in row.groups:
        for member in family(spec, group):
            found.setdefault(member.role, []).append(member.name in selected)
            sizes[member.role] = member.size
    lines = []
    for i, (role, chosen) in enumerate(found.items()):
        name = row.name if i == 0 else f"  /{role.rpartition('/')[2]}"
        text = row.symmetry if i == 0 else f"S{sizes[role]}"
        times = f"× {row.copies}" if i == 0 and row.copies > 1 else ""
        lines.append(_cells(tint(hues[role], 1 if any(chosen) else 0.3), name, text, times))
    return lines


def _cells(colour: str, name: str, text: str, times: str) -> str:
    swatch = f' bgcolor="{colour}"' if colour else ""
    words = "".join(f'<td align="left">{escape(clean(w, 60)) or " "}</td>' for w in (name, text, times))
    return f'<tr><td width="22" height="9"{swatch}></td>{words}</tr>'


def _wide(colour: str, text: str) -> str:
    swatch = f' bgcolor="{colour}"' if colour else ""
    return f'<tr><td width="22" height="9"{swatch}></td><td align="left">{text}</td></tr>'
