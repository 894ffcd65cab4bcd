"""Frames of clips: all layers of a frozen encoder at every frame, kept on disk and read through a memory map.

Clips differ in length, so their frames lie one after another, in a folder of two files: frames.bin, float32 (frames of all
clips, layers, width), and frames.json, which says where each clip ends. They are named as features of whole clips are.
float32, since a channel with a large mean and a small deviation would lose its digits in half of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from permgraph.atomic_write import replacing, sweep, write_file
from permgraph.errors import FileError
from permgraph.evaluation.features import Array, FrozenEncoder, Progress, cache_name, of_each_file

FORMAT = 1  # of what the files hold
DATA, ENDS = "frames.bin", "frames.json"


@dataclass(frozen=True)
class Frames:
    """Of every file: rows of `array` (frames of all files, layers, width) up to its entry in `ends`, in the order of
    `files`. The digest of each file's content."""

    files: tuple[Path, ...]
    array: Array
    ends: tuple[int, ...]
    digests: tuple[str, ...]

    @cached_property
    def _where(self) -> dict[Path, slice]:
        return {
            path: slice(start, end)
            for path, start, end in zip(self.files, (0, *self.ends), self.ends, strict=False)
        }

    def of(self, file: Path) -> Array:
        """(frames, layers, width) of a file; it is read when it is used."""
        return self.array[self._where[file]]


def encoder_frames(
    encoder: FrozenEncoder, files: Sequence[Path], cache: Path, progress: Progress | None = None
) -> Frames:
    """Of every layer. Raises FileError for a file that cannot be used, and where the disk is too small."""
    return cached_frames(encoder.name, encoder.digest, encoder.of_file, files, cache, progress)


def cached_frames(
    name: str,
    digest: str,
    of_file: Callable[[Path], Iterable[NDArray[Any]]],
    files: Sequence[Path],
    cache: Path,
    progress: Progress | None = None,
) -> Frames:
    """What `of_file` gives for every file, in pieces of (layers, frames, width), from the cache when it is there."""
    stem, digests = cache_name(name, ["frames", FORMAT, digest], files)
    out = cache / f"{stem}.frames"
    if out.exists():
        sweep(out)
    else:
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(out, folder=True, force=True, mark=ENDS) as partial:
            with open(partial / DATA, "xb") as stream:
                clips = of_each_file(lambda path: _joined(of_file(path)), files, progress)
                written = _write(stream, clips, files, cache)
            write_file(partial / ENDS, json.dumps(written).encode())
    return Frames(tuple(files), *_opened(out, len(files)), digests)


def _joined(pieces: Iterable[NDArray[Any]]) -> Array:
    """(frames, layers, width) of pieces of a clip, each (layers, frames, width)."""
    return np.concatenate([piece.swapaxes(0, 1) for piece in pieces]).astype("<f4")


def _write(stream: BinaryIO, clips: Iterator[Array], files: Sequence[Path], cache: Path) -> dict[str, Any]:
    ends: list[int] = []
    shape: tuple[int, ...] = ()
    for clip in clips:
        if not ends:
            shape = clip.shape[1:]
            _refuse_full(cache, clip.nbytes, files)
        stream.write(np.ascontiguousarray(clip).data)
        ends.append((ends[-1] if ends else 0) + len(clip))
    return {"layers": shape[0], "width": shape[1], "ends": ends}


def _refuse_full(cache: Path, size: int, files: Sequence[Path]) -> None:
    """Refuse a disk that is too small, from what the first one takes: audio files of a data set are of one kind."""
    needed = size / files[0].stat().st_size * sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise FileError(
            f"{cache}: the frames of {len(files)} clips need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free. "
            "Give a folder on another disk (--cache), or a part of the data."
        )


def _opened(folder: Path, count: int) -> tuple[Array, tuple[int, ...]]:
    try:
        known = json.loads((folder / ENDS).read_bytes())
        ends = tuple(map(int, known["ends"]))
        shape = (ends[-1], int(known["layers"]), int(known["width"]))
        size = (folder / DATA).stat().st_size
        if len(ends) != count or size != 4 * np.prod(shape, dtype=np.int64):
            raise ValueError(f"{size} bytes for {len(ends)} clips")
        array: Array = np.memmap(folder / DATA, "<f4", "r", shape=shape)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(
            f"{folder}: damaged features: {error}. Remove the folder to compute them anew."
        ) from error
    return array, ends
