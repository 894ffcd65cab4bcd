"""Rows of a CSV file, read strictly: a column named twice and a row of another width are refused with their line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from permgraph.errors import FileError


def csv_rows(
    lines: Iterable[str], where: str, delimiter: str = ","
) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """The columns, and (where it stands, row) for each row. Raises FileError, and csv.Error as the rows are read."""
    rows = csv.DictReader(lines, delimiter=delimiter)
    columns = list(rows.fieldnames or ())
    if len(set(columns)) < len(columns):
        raise FileError(f"{where}: a column is named twice: {', '.join(columns)}.")
    return columns, _whole(rows, where, len(columns))


def delimiter_of(name: str) -> str:
    """A tab in files that end in .tsv, a comma in all others."""
    return "\t" if name.lower().endswith(".tsv") else ","


def _whole(rows: csv.DictReader[str], where: str, width: int) -> Iterator[tuple[str, dict[str, str]]]:
    for row in rows:
        line = f"{where}, line {rows.line_num}"
        if None in row or None in row.values():
            raise FileError(f"{line}: has not as many fields as the header ({width}).")
        yield line, row
