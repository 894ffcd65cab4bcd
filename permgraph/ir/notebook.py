"""What a notebook shows of a value: an HTML table. Names come from models, so every cell is escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice

ROWS = 40  # of a table; a line below says how many more there are
WIDEST = 120  # letters of a cell


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], count: int) -> str:
    """A title and a table of the first rows, of `count` in all."""
    shown = [_row("td", cells) for cells in islice(rows, ROWS)]
    more = f"<p>and {count - len(shown):,} more</p>" if count > len(shown) else ""
    body = "".join([_row("th", head), *shown])
    return f"<div><p><b>{cell(title)}</b></p><table>{body}</table>{more}</div>"


def _row(tag: str, cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell(c)}</{tag}>" for c in cells) + "</tr>"


def cell(value: object) -> str:
    """Escaped, control characters and direction marks shown, its middle cut out where it is long."""
    return html.escape(short(str(value)), quote=True)


def short(text: str, limit: int = WIDEST) -> str:
    """Fit for one line: no control characters, at most `limit` letters."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-(limit // 2 - 1) :]}"
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") else c
        for c in text
    )
