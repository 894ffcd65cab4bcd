"""The font of the drawings: how wide a text is, and the font itself to embed.

DejaVu Sans Condensed, reduced to a few hundred characters by tools/font_asset.py. Every text is measured with it
and every SVG carries it, so that a drawing does not depend on the fonts of its reader.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("font")
FAMILY = "Permgraph Sans"
# For viewers that ignore embedded fonts: the same font, then ones that are narrower.
STACK = f"'{FAMILY}','DejaVu Sans Condensed',Helvetica,Arial,'Liberation Sans',sans-serif"
_WIDE, _OTHER = 1.0, 0.7  # width in em of characters the font lacks: East Asian wide ones, all others


@cache
def widths() -> dict[str, dict[str, int]]:
    """ "regular" and "bold": character → advance in thousandths of an em."""
    found: dict[str, dict[str, int]] = json.loads((FOLDER / "widths.json").read_text(encoding="utf-8"))
    return found


def _widths(bold: bool) -> dict[str, int]:
    return widths()["bold" if bold else "regular"]


def width(text: str, size: float, bold: bool = False) -> float:
    """Width of `text` in pixels at `size` pixels per em."""
    return size * sum(_em(character, bold) for character in text)


def has(text: str) -> bool:
    """Whether the font has every character of `text`."""
    return all(character in _widths(False) for character in text)


def _em(character: str, bold: bool) -> float:
    known = _widths(bold).get(character)
    if known is not None:
        return known / 1000
    return _WIDE if unicodedata.east_asian_width(character) in "WF" else _OTHER


def shortened(text: str, size: float, most: float, bold: bool = False) -> str:
    """`text`, its middle cut out when it is wider than `most` pixels."""
    if width(text, size, bold) <= most:
        return text
    keep = len(text)
    while keep > 1 and width(short := _cut(text, keep), size, bold) > most:
        keep -= 1
    return short


def _cut(text: str, keep: int) -> str:
    return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"


@cache
def css() -> str:
    """@font-face rules with the fonts in them (WOFF2, about 25 kB)."""
    return "".join(
        f"@font-face{{font-family:'{FAMILY}';font-weight:{weight};src:url(data:font/woff2;base64,{_base64(file)})"
        " format('woff2')}"
        for weight, file in ((400, "regular.woff2"), (700, "bold.woff2"))
    )


def _base64(file: str) -> str:
    return base64.b64encode((FOLDER / file).read_bytes()).decode()
