"""The sections of the paper's Table II: how many units of each part of a network moved, and what chance would leave.

section                  units  moved    share  fixed  by chance  dead A  dead B  matched  in place  shuffled
CNN layer 0                512    511  99.80 %      1        1.0       0       2    0.641    -0.002     0.003
CNN layers 1-6           3,072  3,066  99.80 %      6        6.0      11       9    0.522     0.001     0.001
attention output         9,216  9,205  99.88 %     11       12.0       0       0    0.336     0.001     0.002
W2                      36,864 36,852  99.97 %     12       12.0       0       0    0.294     0.000     0.000
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from permgraph.ir.notebook import html_table
from permgraph.reporting.card import mean_of, text_table
from permgraph.reporting.text import clean

_HEAD = (
    *("section", "units", "moved", "share", "fixed", "by chance", "dead A", "dead B"),
    *("matched", "in place", "shuffled"),
)
_SECTIONS = {"heads/v": "attention output", "v": "attention output", "ffn": "W2"}

Row = dict[str, Any]


@dataclass(frozen=True, repr=False)
class MatchingReport:
    """What a matching is worth. `str` of it is what `permgraph report` prints.

    report      of the permutations
    by_section  one row per section of the network instead of one per group
    """

    report: dict[str, Any]
    by_section: bool = True

    @property
    def rows(self) -> list[dict[str, str]]:
        """Cells by the name of their column."""
        return [dict(zip(_HEAD, row, strict=True)) for row in section_rows(self.report, self.by_section)]

    def __str__(self) -> str:
        return sections_text(self.report, self.by_section)

    def __repr__(self) -> str:
        return f"MatchingReport({len(self.rows)} rows, matcher {self.report.get('matcher', 'unknown')!r})"

    def _repr_html_(self) -> str:
        rows = section_rows(self.report, self.by_section)
        title = f"{self.report.get('selection', '')} ({self.report.get('matcher', '')})"
        return html_table(title, _HEAD, rows, len(rows))


def sections_text(report: dict[str, Any], by_section: bool = True) -> str:
    """The table for a terminal, one row per section (or group), with the warnings below."""
    return text_table([_HEAD, *section_rows(report, by_section)], report)


def section_rows(report: dict[str, Any], by_section: bool = True) -> list[tuple[str, ...]]:
    """Cells by the columns of the table; what an older report does not hold, or was not measured, is blank."""
    groups: dict[str, Row] = report.get("groups", {})
    sections: dict[str, list[Row]] = {}
    for name, row in groups.items():
        sections.setdefault(_section(name, row, groups) if by_section else name, []).append(row)
    return [(clean(label), *_cells(rows)) for label, rows in sections.items()]


def _section(name: str, row: Row, groups: dict[str, Row]) -> str:
    """The paper names the first convolution, the others, the features entering W_O, and those leaving W1 (`ffn1`) or
    entering W2."""
    role: str = row["role"]
    if role == "ffn" and row.get("observed") == "leaving":
        return "W1"
    numbers = (other.partition(".")[2] for other, row in groups.items() if row["role"] == "cnn")
    layers = [int(number) for number in numbers if number.isdecimal() and len(number) < 9]
    if role != "cnn":
        return _SECTIONS.get(role, role)
    if name == "cnn.0":
        return "CNN layer 0"
    last = max(layers, default=1)
    return f"CNN layers 1-{last}" if last > 1 else "CNN layer 1"


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    units = sum(row["units"] for row in rows)
    moved = round(sum(row["units"] * row["moved"] / 100 for row in rows))
    chance = _total(rows, "by_chance")
    means = [mean_of(rows, key) for key in ("correlation", "identity", "shuffled")]
    return (
        f"{units:,}",
        f"{moved:,}",
        f"{100 * moved / units:.2f} %",
        f"{units - moved:,}",
        "" if chance is None else f"{chance:,.1f}",
        *(_count(_total(rows, key)) for key in ("dead_a", "dead_b")),
        *("" if mean is None else f"{mean:.3f}" for mean in means),
    )


def _count(total: float | None) -> str:
    return "" if total is None else f"{total:,}"


def _total(rows: Sequence[Row], key: str) -> float | None:
    """Over the rows; None when one of them does not hold it."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return sum(known) if len(known) == len(rows) else None
