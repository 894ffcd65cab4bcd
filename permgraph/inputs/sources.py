"""Sources of audio: what folders, globs, manifests, tars and cut lists stand for. Nothing of them is executed or fetched.

folder, glob, file          audio files
list.csv, list.tsv          a manifest with a column `path`, relative to the manifest
shard.tar                   the audio in it, read in place (webdataset's shards)
cuts.jsonl, cuts.jsonl.gz   Lhotse's cuts or recordings: stretches of audio files
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from permgraph.errors import FileError, nearest, reason
from permgraph.inputs.csv_rows import csv_rows, delimiter_of
from permgraph.ir.files import MAX_BYTES

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
CUTS = (".jsonl", ".jsonl.gz")
MAX_LINE = 2**24  # bytes of one cut
LATEST = 1e9  # seconds: thirty years


@dataclass(frozen=True)
class Source:
    """An audio file, or a part of one, and the argument (folder, pattern, manifest) that named it.

    member    its name in the tar `path`, where it lies `size` bytes long from byte `offset` on
    start     where the stretch begins, in seconds; seconds: its length, None for all of the file
    channels  of those channels; () for all
    why       why it cannot be used; "" when it may
    """

    path: Path
    argument: str
    member: str = ""
    offset: int = 0
    size: int = 0
    start: float = 0.0
    seconds: float | None = None
    channels: tuple[int, ...] = ()
    why: str = ""

    @property
    def name(self) -> str:
        """How it is called in messages."""
        text = shown(f"{os.fsdecode(self.path)}/{self.member}" if self.member else self.path)
        if self.seconds is None:
            return text
        return f"{text} from {self.start:g} s to {self.start + self.seconds:g} s"

    @property
    def stretch(self) -> str:
        """What part of the file it is; "" for all of it."""
        return "" if self.seconds is None else f" {self.start} {self.seconds} {self.channels}"

    def open(self) -> BinaryIO:
        """Its bytes. Raises OSError."""
        return _Window(self.path, self.offset, self.size) if self.member else open(self.path, "rb")  # type: ignore[return-value]


class _Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        count = max(min(len(buffer), self._size - self._at), 0)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def gather(
    arguments: Sequence[str | Path], where: Mapping[str, str] | None = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """The files that folders (searched whole), globs, manifests (.csv, .tsv), tars, cuts and file names stand for.

    Sorted by path, each file once, whatever the order of the arguments; then (file, argument) for each that
    was named again. `where` keeps only the manifest rows whose columns have these values.
    Raises FileError for an argument that stands for nothing.
    """
    found: dict[tuple[bytes, str, str], Source] = {}
    again: list[tuple[str, str]] = []
    for argument in sorted(map(str, arguments)):
        sources = list(_expand(argument, where or {}))
        if not sources:
            kept = f" where {dict(where)}" if where else ""
            raise FileError(f"{shown(argument)}: no audio files{kept} (looked for {' '.join(SUFFIXES)}).")
        for source in sources:
            key = os.fsencode(os.path.realpath(source.path)), source.member, source.stretch + source.why
            if key in found:
                again.append((source.name, shown(found[key].argument)))
            found.setdefault(key, source)
    if not found:
        raise FileError("no audio was given. Pass folders, files, globs, or a manifest with a path column.")
    return sorted(found.values(), key=_order), sorted(again)


def _order(source: Source) -> tuple[Any, ...]:
    return os.fsencode(source.path), source.member, source.start, source.stretch


def _expand(argument: str, where: Mapping[str, str]) -> Iterator[Source]:
    paths = list(expand(argument, (*SUFFIXES, ".tar", *CUTS)))
    if Path(
        argument
    ).is_dir():  # audio, or a folder of shards: beside audio files, a tar may hold the same again
        audio = [p for p in paths if p.name.lower().endswith(SUFFIXES)]
        paths = audio or [p for p in paths if p.name.lower().endswith(".tar")]
    for path in paths:
        yield from _of_file(path, argument, where)


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


def _of_file(path: Path, argument: str, where: Mapping[str, str]) -> Iterator[Source]:
    name = path.name.lower()
    if name.endswith((".csv", ".tsv")) and path.is_file():
        yield from (_named(p, path, argument) for p in _manifest(path, where))
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        yield from _members(path, argument)
    elif name.endswith(CUTS):
        if where:
            raise FileError(f"{shown(path)}: --where keeps rows of a csv or tsv manifest, not of cuts.")
        yield from _cuts(path, argument)
    else:
        yield Source(path, argument)


def _named(file: Path, manifest: Path, argument: str) -> Source:
    """A file that a list names; a name that no file can have comes back with the reason."""
    if "\0" in str(file):
        return Source(manifest, argument, why=f"names {shown(file)}, which no file can be called")
    return Source(file, argument)


def _members(path: Path, argument: str) -> Iterator[Source]:
    """The audio in a tar. Raises FileError when it is damaged or compressed."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isreg() and member.name.lower().endswith(SUFFIXES):
                    whole = member.offset_data + member.size <= path.stat().st_size
                    why = "truncated: the tar ends before it does" if not whole else ""
                    if member.sparse is not None:
                        why = "a sparse file"
                    yield Source(path, argument, member.name, member.offset_data, member.size, why=why)
    except (OSError, tarfile.TarError) as error:
        raise FileError(
            f"{shown(path)}: not a tar that can be read in place: {error}. A compressed one has to be decompressed first."
        ) from error


def _cuts(path: Path, argument: str) -> Iterator[Source]:
    """The stretches of audio that a list of Lhotse's cuts or recordings names. Raises FileError."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as stream:
            for number, line in enumerate(_lines(stream, path), 1):
                if line.strip():
                    yield _cut(json.loads(line), path, argument, number)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise FileError(f"{shown(path)}: cannot read these cuts: {reason(error)}.") from error


def _lines(stream: Any, path: Path) -> Iterator[bytes]:
    """The lines of a file that may be packed: it may hold far more than its size. Raises FileError."""
    total = 0
    while line := stream.readline(MAX_LINE + 1):
        total += len(line)
        if len(line) > MAX_LINE or total > MAX_BYTES:
            raise FileError(
                f"{shown(path)}: more than {MAX_LINE:,} bytes in a line, or {MAX_BYTES:,} in all. Split it."
            )
        yield line


def _cut(data: Any, manifest: Path, argument: str, number: int) -> Source:
    """One cut or recording. What is no stretch of a file as it is comes back with the reason."""
    where = Path(f"{os.fsdecode(manifest)}, line {number}")
    if not isinstance(data, dict):
        return Source(where, argument, why="not a cut: no JSON object")
    recording = data if "sources" in data else data.get("recording")
    if not isinstance(recording, dict):
        return Source(where, argument, why=f"a {data.get('type', 'cut')} without a recording of its own")
    if recording.get("transforms"):
        return Source(
            where, argument, why="its recording is transformed (speed, volume): save it as audio first"
        )
    chosen = [] if data is recording else _numbers(data.get("channel"))
    files = [s for s in recording.get("sources") or () if isinstance(s, dict)]
    own = [s for s in files if not chosen or set(chosen) & set(_numbers(s.get("channels")))]
    if len(own) != 1 or (chosen and not set(chosen) <= set(_numbers(own[0].get("channels")))):
        return Source(where, argument, why=f"its channels are in {len(own)} files; one is needed")
    if own[0].get("type") != "file" or not isinstance(own[0].get("source"), str):
        return Source(where, argument, why=f"audio from a {own[0].get('type')} is neither run nor fetched")
    columns = _numbers(own[0].get("channels"))
    path = Path(own[0]["source"])
    if "\0" in str(path):
        return Source(where, argument, why=f"names {shown(path)}, which no file can be called")
    if not path.exists() and not path.is_absolute():
        path = manifest.parent / path  # Lhotse's are relative to the working directory
    picked = () if set(chosen) in (set(), set(columns)) else tuple(columns.index(c) for c in chosen)
    if data is recording:
        return Source(path, argument)
    start, seconds = data.get("start", 0.0), data.get("duration")
    if not _is_time(start, 0.0) or not _is_time(seconds, 1e-9):
        return Source(where, argument, why=f"from {start!r} s on, {seconds!r} s long")
    return Source(path, argument, start=float(start), seconds=float(seconds), channels=picked)


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool)]


def _is_time(value: Any, least: float) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < LATEST


def _manifest(path: Path, where: Mapping[str, str]) -> Iterator[Path]:
    """The files of a manifest's path column, relative to the manifest."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            columns, rows = csv_rows(stream, shown(path), delimiter_of(path.name))
            for name in ("path", *where):
                if name not in columns:
                    raise FileError(
                        f"{shown(path)}: no column {name!r}.{nearest(name, columns)} "
                        f"It has: {', '.join(columns) or 'nothing'}."
                    )
            for line, row in rows:
                if not row["path"]:
                    raise FileError(f"{line}: the path is empty.")
                if all(row[name] == value for name, value in where.items()):
                    yield path.parent / row["path"]
    except (OSError, csv.Error) as error:
        raise FileError(f"{shown(path)}: cannot read: {reason(error)}.") from error


def is_text(name: str) -> bool:
    """Whether a name has no bytes that are not UTF-8, as names of files may have."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def shown(path: str | Path) -> str:
    """A path that can be printed: control characters and bytes that are not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
