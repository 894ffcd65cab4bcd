"""Data sets of environmental sound: ESC-50."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.layouts.reading import table

FOLDS = ("1", "2", "3", "4", "5")


def esc50(folder: Path) -> Iterator[dict[str, str]]:
    """meta/esc50.csv and audio/; five folds, clips of one recording in one fold. A part of them is another protocol."""
    file = folder / "meta" / "esc50.csv"
    folds = set()
    for _, row in table(file, ("filename", "fold", "category", "src_file")):
        folds.add(row["fold"])
        yield {
            "path": f"audio/{row['filename']}",
            "category": row["category"],
            "recording": row["src_file"],
            "fold": row["fold"],
        }
    if folds != set(FOLDS):
        raise FileError(
            f"{file}: its folds are {', '.join(sorted(folds)) or 'none'}, not {', '.join(FOLDS)}, as published."
        )
