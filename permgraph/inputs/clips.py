"""Clips: which audio files there are, and equal pieces of them, read through a window."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import FileError, nearest

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
LONGEST = 30.0  # seconds; whole clips longer than this are read in pieces
SHORTEST = 0.025  # seconds; one frame of a wav2vec-like front end (400 samples at 16 kHz)

Samples = NDArray[np.float32]


class BadAudio(Exception):
    """One file that cannot be used, and why. Skipped and listed by the caller."""


@dataclass(frozen=True)
class Source:
    """A file, and the argument (folder, pattern, manifest) that named it."""

    path: Path
    argument: str


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    rate: int
    frames: int
    channels: int
    digest: str  # of its size, beginning and end: equal for copies


@dataclass(frozen=True)
class Clip:
    """`frames` samples of a file from sample `start` on, at the file's own rate."""

    source: Source
    start: int
    frames: int
    rate: int
    channels: int

    def length_at(self, rate: int) -> int:
        """Its number of samples at another rate."""
        return round(self.frames * rate / self.rate)


def gather(
    arguments: Sequence[str | Path], where: Mapping[str, str] | None = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """The files that folders (searched whole), globs, manifests (.csv, .tsv) and file names stand for.

    Sorted by path, each file once, whatever the order of the arguments; then (file, argument) for each that
    was named again. `where` keeps only the manifest rows whose columns have these values.
    Raises FileError for an argument that stands for nothing.
    """
    found: dict[bytes, Source] = {}
    again: list[tuple[str, str]] = []
    for argument in sorted(map(str, arguments)):
        paths = list(_expand(argument, where or {}))
        if not paths:
            kept = f" where {dict(where)}" if where else ""
            raise FileError(f"{shown(argument)}: no audio files{kept} (looked for {' '.join(SUFFIXES)}).")
        for path in paths:
            real = os.fsencode(os.path.realpath(path))
            if real in found:
                again.append((shown(path), shown(found[real].argument)))
            found.setdefault(real, Source(path, argument))
    if not found:
        raise FileError("no audio was given. Pass folders, files, globs, or a manifest with a path column.")
    return sorted(found.values(), key=lambda s: os.fsencode(s.path)), sorted(again)


def _expand(argument: str, where: Mapping[str, str]) -> Iterator[Path]:
    path = Path(argument)
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        yield from _manifest(path, where)
    else:
        yield from expand(argument, SUFFIXES)


def expand(argument: str, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files of a folder, of a glob, or one file, with these suffixes. Raises FileError where there is none."""
    path = Path(argument)
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (Path(folder) / n for n in names if n.lower().endswith(suffixes) and n[0] != ".")
    elif path.exists():
        yield path
    elif glob.has_magic(argument):
        yield from (Path(p) for p in glob.glob(argument, recursive=True) if p.lower().endswith(suffixes))
    else:
        raise FileError(f"{shown(argument)}: no such file or folder.")


def _manifest(path: Path, where: Mapping[str, str]) -> Iterator[Path]:
    """The files of a manifest's path column, relative to the manifest."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            rows = csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            columns = list(rows.fieldnames or ())
            for name in ("path", *where):
                if name not in columns:
                    raise FileError(
                        f"{shown(path)}: no column {name!r}.{nearest(name, columns)} "
                        f"It has: {', '.join(columns) or 'nothing'}."
                    )
            for row in rows:
                if not row["path"]:
                    raise FileError(f"{shown(path)}, line {rows.line_num}: the path is empty.")
                if all(row[name] == value for name, value in where.items()):
                    yield path.parent / row["path"]
    except (OSError, csv.Error) as error:
        raise FileError(f"{shown(path)}: cannot read: {error}.") from error


def header(path: Path) -> Header:
    """Read the header of a file. Raises BadAudio."""
    import soundfile

    if not path.exists():
        raise BadAudio("broken link" if path.is_symlink() else "no such file")
    try:
        if path.stat().st_size == 0:
            raise BadAudio("empty file")
        digest = _digest(path)
        info: Any = soundfile.info(_name(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadAudio(_reason(error)) from error
    if info.frames <= 0 or info.samplerate <= 0:
        raise BadAudio("holds no samples")
    _refuse_cut_wav(path)
    return Header(int(info.samplerate), int(info.frames), int(info.channels), digest)


def pieces(source: Source, head: Header, seconds: float | None, per_file: int | None) -> list[Clip]:
    """Windows of exactly `seconds`, one after another; or the whole file, in pieces of at most LONGEST.

    With `per_file`, so many of them, evenly spread. Empty when the file is too short.
    """
    step = max(round((LONGEST if seconds is None else seconds) * head.rate), 1)
    shortest = max(round(SHORTEST * head.rate), 1) if seconds is None else step
    starts = [s for s in range(0, head.frames, step) if min(step, head.frames - s) >= shortest]
    if per_file is not None:
        starts = spread(starts, per_file)
    return [Clip(source, s, min(step, head.frames - s), head.rate, head.channels) for s in starts]


def spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spaced."""
    if count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def read(clip: Clip) -> Samples:
    """One clip as mono float32, (frames,), channels averaged. Raises BadAudio."""
    import soundfile

    try:
        with soundfile.SoundFile(_name(clip.source.path)) as file:
            file.seek(clip.start)
            data = file.read(clip.frames, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadAudio(_reason(error)) from error
    if len(data) < clip.frames:
        raise BadAudio(f"truncated: ends at sample {clip.start + len(data):,}, before its header says")
    if not np.isfinite(data).all():
        raise BadAudio("holds NaN or infinite samples")
    return np.ascontiguousarray(data.mean(axis=1, dtype=np.float32))


def resample(data: Samples, clip: Clip, rate: int) -> Samples:
    """A clip at another rate, exactly `clip.length_at(rate)` samples long."""
    import soxr

    if rate == clip.rate:
        return data
    data, length = soxr.resample(data, clip.rate, rate), clip.length_at(rate)
    return np.pad(data[:length], (0, max(length - len(data), 0)))


def shown(path: str | Path) -> str:
    """A path that can be printed: control characters and bytes that are not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _name(path: Path) -> str | bytes:
    """As soundfile opens it: on POSIX as bytes, which need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _digest(path: Path) -> str:
    size, ends = path.stat().st_size, 1 << 16
    with open(path, "rb") as stream:
        body = stream.read(ends)
        if size > 2 * ends:
            stream.seek(-ends, os.SEEK_END)
        return hashlib.sha256(b"%d " % size + body + stream.read(ends)).hexdigest()


def _refuse_cut_wav(path: Path) -> None:
    """libsndfile shortens a cut WAV without a word; its RIFF header still knows the length."""
    with open(path, "rb") as stream:
        start = stream.read(12)
    promised = int.from_bytes(start[4:8], "little") + 8
    streamed = promised < 12 or promised >= 2**32  # written to a pipe: the length was never filled in
    if start[:4] == b"RIFF" and not streamed and path.stat().st_size < promised:
        raise BadAudio(f"truncated: {path.stat().st_size:,} of {promised:,} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "error_string", "") or error).strip().rstrip(".")
