"""What `permgraph reorder` prints: the magnitude that a pattern keeps of each tensor, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.text import clean, listed

if TYPE_CHECKING:
    from permgraph.compression.reorder import Reordered, Row

SHOWN = 12  # tensors, those with the most magnitude


def sparsity_text(found: Reordered, every: bool = False) -> str:
    """The table, of all tensors where `every` asks for it."""
    rows = list(found.rows) if every else sorted(found.rows, key=lambda row: -row.all)[:SHOWN]
    head = ("tensor and axis", "all", "before", "after", "most")
    cells = [(f"{row.tensor}[{row.axis}]", *_shares(row)) for row in rows]
    total = found.total
    shown = table(
        [head, *cells, (f"all {len(found.rows)} tensors", *_shares(total))], right=(1, 2, 3, 4), below=0
    )
    said = [
        f"Pattern {found.pattern}: {_share(total.before, total)} of the magnitude was kept, {_share(total.after, total)} is. No "
        f"order keeps more than {_share(total.most, total)}; efficacy {found.efficacy:.2f}."
    ]
    if found.left_out:
        names = listed([clean(name) for name in found.left_out], 3)
        said.append(f"Left out, since {found.pattern.of} does not divide their length: {names}.")
    return "\n".join([*shown, "", *paragraphs(said)])


def _shares(row: Row) -> tuple[str, ...]:
    return (f"{row.all:,.0f}", *(_share(value, row) for value in (row.before, row.after, row.most)))


def _share(value: float, row: Row) -> str:
    return f"{value / row.all if row.all else 0.0:.4f}"


def sparsity_json(found: Reordered) -> dict[str, Any]:
    """The fields that docs/json.md lists."""
    total = found.total
    tensors = {f"{row.tensor}[{row.axis}]": _fields(row) for row in found.rows}
    return {
        "pattern": str(found.pattern),
        **_fields(total),
        "efficacy": found.efficacy,
        "tensors": tensors,
        "left_out": list(found.left_out),
    }


def _fields(row: Row) -> dict[str, float]:
    return {"all": row.all, "before": row.before, "after": row.after, "most": row.most}
