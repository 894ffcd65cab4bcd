"""Data sets of environmental sound: ESC-50."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from permgraph.evaluation.layouts.reading import table


def esc50(folder: Path) -> Iterator[dict[str, str]]:
    """meta/esc50.csv and audio/; five folds, clips of one recording in one fold."""
    for _, row in table(folder / "meta" / "esc50.csv", ("filename", "fold", "category", "src_file")):
        yield {
            "path": f"audio/{row['filename']}",
            "category": row["category"],
            "recording": row["src_file"],
            "fold": row["fold"],
        }
