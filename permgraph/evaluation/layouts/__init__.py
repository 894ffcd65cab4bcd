"""Manifests from the folders in which data sets are published: one reader per official layout.

A reader is given the folder and yields rows: `path`, relative to the folder, and columns of labels and splits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from permgraph.atomic_write import write_file
from permgraph.errors import FileError, UsageError, nearest
from permgraph.evaluation.layouts import music, sounds, speech
from permgraph.inputs.sources import is_text, shown

Values = dict[str, str]


@dataclass(frozen=True)
class Layout:
    """read: folder → rows; `columns`: what a row holds beside `path`."""

    read: Callable[[Path], Iterator[Values]]
    columns: tuple[str, ...]
    source: str


LAYOUTS = {
    "speech-commands-v1": Layout(
        speech.speech_commands, ("word", "keyword", "speaker", "split"), "https://arxiv.org/abs/1804.03209"
    ),
    "fluent-speech-commands": Layout(
        speech.fluent_speech_commands,
        ("intent", "action", "object", "location", "transcript", "speaker", "split"),
        "https://arxiv.org/abs/1904.03670",
    ),
    "voxceleb1": Layout(
        speech.voxceleb1,
        ("speaker", "recording", "split"),
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
    ),
    "iemocap": Layout(
        speech.iemocap, ("emotion", "speaker", "dialogue", "session"), "https://sail.usc.edu/iemocap/"
    ),
    "librispeech": Layout(
        speech.librispeech, ("transcript", "speaker", "chapter", "split"), "https://www.openslr.org/12"
    ),
    "vocalset": Layout(
        music.vocalset,
        ("singer", "technique", "context", "fold_of_singers", "fold_of_files"),
        "https://zenodo.org/records/1193957",
    ),
    "nsynth": Layout(
        music.nsynth,
        ("family", "pitch", "instrument", "split"),
        "https://magenta.tensorflow.org/datasets/nsynth",
    ),
    "gtzan": Layout(music.gtzan, ("genre", "split"), "https://arxiv.org/abs/1507.04761"),
    "esc-50": Layout(
        sounds.esc50, ("category", "recording", "fold"), "https://github.com/karolpiczak/ESC-50"
    ),
}


def read_layout(name: str, folder: str | Path) -> list[Values]:
    """The rows of a data set in its official layout, sorted by path. Raises UsageError, FileError."""
    if name not in LAYOUTS:
        raise UsageError(f"{name}: no such layout.{nearest(name, LAYOUTS)} There are: {', '.join(LAYOUTS)}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; it should hold {name} as it is published.")
    try:
        rows = sorted(LAYOUTS[name].read(folder), key=lambda row: row["path"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{folder}: cannot read as {name}: {error}.") from error
    if not rows:
        raise FileError(f"{folder}: no clip of {name} is here; the folder has another layout.")
    for row in rows:
        _refuse_unreadable(folder, row, [column for column in row if column != "path"])
    return rows


def _refuse_unreadable(folder: Path, row: Values, columns: Sequence[str]) -> None:
    """Names of folders become labels, and labels are written to tables: of bytes that are no text none can be read."""
    for column in columns:
        if not is_text(row[column]):
            raise FileError(
                f"{shown(folder / row['path'])}: its {column}, {shown(row[column])}, is not UTF-8. Rename it."
            )


def write_manifest(name: str, folder: str | Path, out: str | Path) -> int:
    """Write the rows as a CSV file beside the audio, `out` in `folder`; their number. Raises like `read_layout`."""
    rows = read_layout(name, folder)
    if Path(out).resolve().parent != Path(folder).resolve():
        raise UsageError(f"{out}: paths in a manifest are relative to it: write it into {folder}.")
    for row in rows:
        _refuse_unreadable(Path(folder), row, ["path"])
    text = io.StringIO()
    table = csv.DictWriter(text, ["path", *LAYOUTS[name].columns], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_file(Path(out), text.getvalue().encode())
    return len(rows)
