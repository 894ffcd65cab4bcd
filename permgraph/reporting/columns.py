"""Columns: tables and notes that fit the terminal. A word is never broken; a dotted name breaks after a dot, if it must.

Too wide a table moves its column of names to lines of their own, or is printed in parts that repeat its first column:

name        role   symmetry                copies  tensors
    units produced by
heads.0-11  heads  S12 ≀ (S64 qk × S64 v)      12        7
    encoder.layers.0-11.attention
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence

from permgraph.reporting.text import clean

NARROWEST = 40  # a terminal narrower than this wraps lines itself
_INDENT = "    "
_PIECES = re.compile(r"[^./]*[./]*")

Cells = Sequence[str]


def terminal_width() -> int:
    """Columns of the terminal, or what COLUMNS says; 80 where there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, NARROWEST)


def width_of(text: str) -> int:
    """Columns that a text takes: letters of East Asia take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def wrapped(text: str, width: int | None = None, indent: str = "  ") -> list[str]:
    """The text in lines of at most `width` columns, all but the first indented."""
    width = width or terminal_width()
    start = text[: len(text) - len(text.lstrip(" "))]
    lines, line = [], start
    for word in text.split():
        for piece in [word] if width_of(indent + word) <= width else _pieces(word, width - len(indent)):
            gap = " " if line.strip() and piece is word else ""
            if line.strip() and width_of(line + gap + piece) > width:
                lines.append(line)
                line, gap = start + indent, ""
            line += gap + piece
    return [*lines, line]


def _pieces(word: str, width: int) -> Iterable[str]:
    """A name too long for a line, broken after dots and slashes only."""
    piece = ""
    for part in _PIECES.findall(word):
        if piece and width_of(piece + part) > width:
            yield piece
            piece = ""
        piece += part
    yield piece


def paragraphs(lines: Iterable[str], width: int | None = None) -> list[str]:
    """Every line wrapped for itself; code to copy, indented by four, stays whole."""
    return [s for line in lines for s in ([line] if line.startswith(_INDENT) else wrapped(line, width))]


def table(
    rows: Sequence[Cells], right: Sequence[int] = (), below: int | None = None, width: int | None = None
) -> list[str]:
    """Lines of a table, the first row its head.

    right  columns that are aligned to the right
    below  the column of names, which moves to lines of its own where the table is too wide

    A row is one line: a line break in a cell, which comes from a name, is shown as an escape.
    """
    width = width or terminal_width()
    rows = [[clean(cell, 4000) for cell in row] for row in rows]
    lines = aligned(rows, right)
    if max(map(width_of, lines)) <= width:
        return lines
    if below is None:
        return _in_parts(rows, right, width)
    kept = [i for i in range(len(rows[0])) if i != below]
    short = table(_columns(rows, kept), [kept.index(i) for i in right if i != below], width=width)
    if len(short) != len(rows):  # the rest is too wide as well
        return _in_parts(rows, right, width)
    names = [wrapped(_INDENT + row[below], width) if row[below] else [] for row in rows]
    return [line for first, more in zip(short, names, strict=True) for line in (first, *more)]


def aligned(rows: Sequence[Cells], right: Sequence[int] = ()) -> list[str]:
    """One line a row, however wide."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, right)).rstrip() for row in rows]


def _padded(row: Cells, widths: Sequence[int], right: Sequence[int]) -> Iterable[str]:
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - width_of(cell))
        yield space + cell if i in right else cell + space


def _in_parts(rows: Sequence[Cells], right: Sequence[int], width: int) -> list[str]:
    """As many columns at a time as fit, the first one each time."""
    lines: list[str] = []
    rest = list(range(1, len(rows[0])))
    while rest:
        count = next((n for n in range(len(rest), 1, -1) if _fits(rows, [0, *rest[:n]], width)), 1)
        part = [0, *rest[:count]]
        shown = aligned(_columns(rows, part), [part.index(i) for i in right if i in part])
        lines += ["", *shown] if lines else shown
        rest = rest[count:]
    return [
        short for line in lines for short in ([line] if width_of(line) <= width else wrapped(line, width))
    ]


def _fits(rows: Sequence[Cells], columns: Sequence[int], width: int) -> bool:
    return max(map(width_of, aligned(_columns(rows, columns)))) <= width


def _columns(rows: Sequence[Cells], columns: Sequence[int]) -> list[Cells]:
    return [[row[i] for i in columns] for row in rows]
