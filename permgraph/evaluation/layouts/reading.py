"""What the readers of layouts share: lines of a list, rows of a table, audio files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from permgraph.errors import FileError
from permgraph.inputs.csv_rows import csv_rows
from permgraph.inputs.sources import SUFFIXES


def lines(path: Path) -> list[str]:
    """Lines that are not empty, blanks about them removed. Raises FileError when the file is not there."""
    _refuse_missing(path)
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(where it stands, row) of a CSV file that has these columns. Raises FileError."""
    _refuse_missing(path)
    with open(path, newline="", encoding="utf-8-sig") as stream:
        header, rows = csv_rows(stream, str(path))
        for name in columns:
            if name not in header:
                raise FileError(f"{path}: no column {name!r}. It has: {', '.join(header)}.")
        yield from rows


def audio_below(folder: Path, root: Path) -> Iterator[str]:
    """Audio files below a folder as paths relative to `root`, with slashes; hidden ones left out."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and name[0] != ".":
                yield (Path(where) / name).relative_to(root).as_posix()


def only_folder(root: Path, *names: str) -> Path:
    """The first of these folders below root that is there; root itself for "". Raises FileError."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise FileError(f"{root}: has none of the folders {', '.join(names)}.")


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise FileError(f"{path}: no such file, which the official layout has.")
