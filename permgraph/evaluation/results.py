"""What an evaluation gives: a prediction per clip, a number with its interval per encoder and task; their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from permgraph.atomic_write import replacing
from permgraph.errors import FileError, reason
from permgraph.evaluation.task import LOWER
from permgraph.inputs.csv_rows import csv_rows, delimiter_of
from permgraph.ir.notebook import html_table
from permgraph.reporting.columns import paragraphs, table, wrapped

RESULTS, PREDICTIONS, RETAINED = "results.csv", "predictions.csv", "retained.csv"


@dataclass(frozen=True)
class Prediction:
    """Of one test clip by one probe. `run` numbers the pre-training runs of an encoder, `seed` those of the probe.

    correct  whether `predicted` is `label`, the whole text where that is a transcript
    errors   words of a transcript that are wrong; `words`: those that it has, 0 where the label is a class
    """

    task: str
    domain: str
    encoder: str
    run: str
    seed: str
    head: str
    fold: str
    item: str
    cluster: str
    label: str
    predicted: str
    correct: int
    errors: int = 0
    words: int = 0


@dataclass(frozen=True)
class Result:
    """Of one encoder on one task: the mean over runs and seeds, and a 95 % interval (NaN where a number is quoted).

    unit    what the bootstrap drew
    chance  of the commonest label of train; a word error rate has 1, what an empty text gets
    gate    "above" where it is better than the strongest log-mel baseline by more than the task's margin, if that means a
            smaller number (wer); else "below"; "" for a baseline
    choice  what the first probe chose on valid: a layer, a penalty, weights
    """

    task: str
    domain: str
    encoder: str
    head: str
    metric: str
    value: float
    low: float
    high: float
    unit: str
    clips: int
    chance: float
    gate: str = ""
    choice: str = ""


@dataclass(frozen=True)
class Retained:
    """R² of a parent's layer from the same layer of an encoder, on the test clips of a task."""

    task: str
    encoder: str
    parent: str
    layer: int
    r2: float


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Results by task, predictions per clip, the label-free screen, and what a reader should know."""

    results: tuple[Result, ...]
    predictions: tuple[Prediction, ...]
    retained: tuple[Retained, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return f"Evaluation(results: {len(self.results)}, predictions: {len(self.predictions):,})"

    def _repr_html_(self) -> str:
        rows = [(r.task, *_cells(r)) for r in self.results]
        return html_table(repr(self), ("task", *_HEAD), rows, len(rows))

    def text(self) -> str:
        """The tables, for a terminal or a file: one for each task."""
        parts = [self._table(task) for task in dict.fromkeys(r.task for r in self.results)]
        if self.retained:
            parts.append(
                "\n".join(
                    [*wrapped("R² of a parent's layers (0, 1, …) from the encoder's:"), *self._screen()]
                )
            )
        if self.notes:
            parts.append("\n".join(paragraphs(self.notes)))
        return "\n\n".join(parts)

    def _table(self, task: str) -> str:
        mine = [r for r in self.results if r.task == task]
        drawn = next((f", drawn: {r.unit}" for r in mine if r.unit), "")
        clips = max(r.clips for r in mine)
        of, floor = mine[0].metric, f"chance {mine[0].chance:.3f}"
        if of in LOWER:
            of, floor = f"{of} (less is better)", f"an empty text has {mine[0].chance:.3f}"
        title = f"{task} ({mine[0].domain}): {of} on {clips} clips{drawn}; {floor}"
        return "\n".join([*wrapped(title), *table([_HEAD, *map(_cells, mine)])])

    def _screen(self) -> list[str]:
        layers: dict[tuple[str, str, str], list[str]] = {}
        for r in self.retained:
            layers.setdefault((r.task, r.encoder, r.parent), []).append(f"{r.r2:.2f}")
        lines: list[str] = []
        for task in dict.fromkeys(task for task, _, _ in layers):
            rows = [(f"{e} of {p}", "  ".join(v)) for (t, e, p), v in layers.items() if t == task]
            lines += [task, *table([("encoder of parent", "R²"), *rows])]
        return lines

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write results.csv and predictions.csv (and retained.csv) into a folder, which it returns. `force` replaces
        those that are there. Raises FileError."""
        folder = Path(folder)
        refuse_tables(folder, force)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: cannot make this folder: {error.strerror or error}.") from error
        write_table(folder / RESULTS, Result, self.results, force)
        write_table(folder / PREDICTIONS, Prediction, self.predictions, force)
        (folder / RETAINED).unlink(missing_ok=True)  # this evaluation may have no parents
        if self.retained:
            write_table(folder / RETAINED, Retained, self.retained, force)
        return folder


_HEAD = ("encoder", "head", "value", "95 % interval", "log-mel")
_GATE_OF_ERRORS = {"above": "better", "below": "not better", "": ""}  # a smaller number is above log-mel


def _cells(r: Result) -> tuple[str, ...]:
    gate = _GATE_OF_ERRORS[r.gate] if r.metric in LOWER else r.gate
    return (r.encoder, r.head, f"{r.value:.3f}", between(r.low, r.high), gate)


def refuse_tables(folder: Path, force: bool) -> None:
    """Refuse a folder that holds the tables of another evaluation, unless `force`. Raises FileError."""
    for name in (RESULTS, PREDICTIONS, RETAINED):
        if (folder / name).exists() and not force:
            raise FileError(
                f"{folder / name}: is here already. Give another folder, or --force to replace it."
            )


def write_table(path: Path, kind: type[Any], rows: Iterable[Any], force: bool = False) -> None:
    """Frozen dataclasses of one kind as a CSV file; numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    with replacing(path, folder=False, force=force) as partial:
        partial.write_bytes(
            text.getvalue().encode("utf-8", "backslashreplace")
        )  # else `score` could not read it


def read_table(path: Path) -> tuple[list[str], list[tuple[str, Mapping[str, str]]]]:
    """Columns and rows, each with where it stands, of a csv or tsv file. Raises FileError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            columns, found = csv_rows(stream, str(path), delimiter_of(path.name))
            rows: list[tuple[str, Mapping[str, str]]] = list(found)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot read: {reason(error)}.") from error
    if not rows:
        raise FileError(f"{path}: holds no rows.")
    return columns, rows


def between(low: float, high: float) -> str:
    """ "0.61 to 0.72", "" where there is no interval."""
    return "" if low != low else f"{low:.3f} to {high:.3f}"
