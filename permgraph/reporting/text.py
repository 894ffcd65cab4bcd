"""Names from a model, made fit to print: control characters shown, lengths bounded, numbered names folded."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # Unicode categories that draw no glyph
_NUMBER = re.compile(r"(?<![^./])\d+(?![^./])")


def clean(text: str, limit: int = 120) -> str:
    """`text` without control characters (ESC becomes \\x1b), its middle cut out beyond `limit`."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-(limit // 2 - 1) :]}"
    return "".join(_visible(c) if unicodedata.category(c) in _HIDDEN else c for c in text)


def markdown(text: str, limit: int = 120) -> str:
    """A name in running Markdown, where it is neither a link, nor code, nor HTML."""
    plain = clean(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain)


def code(text: str, limit: int = 120) -> str:
    """A name between backticks, which it cannot end."""
    return f"`{clean(text, limit).replace('`', chr(39))}`"


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers as runs: 0, 1, 2, 5 is "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def listed(names: Sequence[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = [clean(n, 90) for n in names[:count]]
    return ", ".join(shown) + (f" and {len(names) - count} more" if len(names) > count else "")


def number_free(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A dotted name as what stands between its numbers, and the numbers."""
    return tuple(_NUMBER.split(name)), tuple(int(n) for n in _NUMBER.findall(name))


def fold_names(names: Iterable[str]) -> list[str]:
    """Dotted names that differ only in their numbers, as one: layers.0.fc and layers.1.fc are layers.0-1.fc.

    Only whole products are folded, so that every name a fold stands for was there.
    """
    families: dict[tuple[str, ...], dict[tuple[int, ...], None]] = {}
    for name in names:
        parts, numbers = number_free(name)
        families.setdefault(parts, {})[numbers] = None
    return [folded for parts, found in families.items() for folded in _fold(parts, list(found))]


def _fold(parts: Sequence[str], found: list[tuple[int, ...]]) -> list[str]:
    columns = [sorted(set(column)) for column in zip(*found, strict=True)]
    size = 1
    for column in columns:
        size *= len(column)
    if size == len(found):
        middle = [ranges(column) for column in columns]
        return ["".join(a + b for a, b in zip(parts, [*middle, ""], strict=True))]
    for i in range(len(columns)):  # not a whole product: part the names by what goes with their i-th number
        parted: dict[frozenset[tuple[int, ...]], list[tuple[int, ...]]] = {}
        for number in columns[i]:
            rows = [row for row in found if row[i] == number]
            parted.setdefault(frozenset(row[:i] + row[i + 1 :] for row in rows), []).extend(rows)
        if len(parted) > 1:
            return [folded for rows in parted.values() for folded in _fold(parts, rows)]
    raise AssertionError("numbers that no column parts are a whole product")
