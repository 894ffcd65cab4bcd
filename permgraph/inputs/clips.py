"""Clips: equal pieces of audio files, or of parts of files, read through a window."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from permgraph.inputs.containers import cut, implausible
from permgraph.inputs.sources import Source

LONGEST = 30.0  # seconds; whole clips longer than this are read in pieces
BLOCK = 2**22  # samples of all channels that are read at once
SHORTEST = 0.025  # seconds; one frame of a wav2vec-like front end (400 samples at 16 kHz)

Samples = NDArray[np.float32]


class BadAudio(Exception):
    """One file that cannot be used, and why. Skipped and listed by the caller."""


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


def header(source: Source) -> Header:
    """Read the header of a source. Raises BadAudio."""
    import soundfile

    path = source.path
    if source.why:
        raise BadAudio(source.why)
    try:
        if not path.exists():
            raise BadAudio("broken link" if path.is_symlink() else "no such file")
        if not path.is_file():
            raise BadAudio("not a regular file")
        with source.open() as stream:
            size = stream.seek(0, os.SEEK_END)
            if size == 0:
                raise BadAudio("empty file")
            digest = _digest(stream, size, source.stretch)
            if why := cut(stream, size):
                raise BadAudio(why)
            stream.seek(0)
            info: Any = soundfile.info(stream if source.member else _name(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadAudio(_reason(error)) from error
    if info.frames <= 0 or info.samplerate <= 0:
        raise BadAudio("holds no samples")
    if why := implausible(str(info.format), size, int(info.frames), int(info.samplerate)):
        raise BadAudio(why)
    if any(channel >= info.channels for channel in source.channels):
        raise BadAudio(f"has {info.channels} channels, and no channel {max(source.channels)}")
    return Header(int(info.samplerate), int(info.frames), len(source.channels) or int(info.channels), digest)


def pieces(source: Source, head: Header, seconds: float | None, per_file: int | None) -> list[Clip]:
    """Windows of exactly `seconds`, one after another; or the whole source, in pieces of at most LONGEST.

    With `per_file`, so many of them, evenly spread. Empty when the source is too short. Raises BadAudio when it names a stretch
    beyond the end of its file.
    """
    first, end = _stretch(source, head)
    step = max(round((LONGEST if seconds is None else seconds) * head.rate), 1)
    shortest = max(round(SHORTEST * head.rate), 1) if seconds is None else step
    starts = [s for s in range(first, end, step) if min(step, end - s) >= shortest]
    if per_file is not None:
        starts = spread(starts, per_file)
    return [Clip(source, s, min(step, end - s), head.rate, head.channels) for s in starts]


def _stretch(source: Source, head: Header) -> tuple[int, int]:
    """Its first sample, and the one after its last. Times are rounded by who wrote them, by 10 ms at most."""
    if source.seconds is None:
        return 0, head.frames
    first, end = (round(t * head.rate) for t in (source.start, source.start + source.seconds))
    if end > head.frames + head.rate // 100:
        raise BadAudio(f"ends after its file, which is {head.frames / head.rate:g} s long")
    return first, min(end, head.frames)


def spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spaced."""
    if count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def read(clip: Clip) -> Samples:
    """One clip as mono float32, (frames,), channels averaged. Raises BadAudio."""
    import soundfile

    try:
        with _opened(clip.source) as where, soundfile.SoundFile(where) as file:
            file.seek(clip.start)
            parts = list(_mono(file, clip))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadAudio(_reason(error)) from error
    data = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(data) < clip.frames:
        raise BadAudio(f"truncated: ends at sample {clip.start + len(data):,}, before its header says")
    return data


def _mono(file: Any, clip: Clip) -> Iterator[Samples]:
    """The channels of a clip averaged, piece by piece: memory is asked for what is there, not for what a header says."""
    block, left = max(BLOCK // file.channels, 1), clip.frames
    while left:
        data = file.read(min(block, left), dtype="float32", always_2d=True)
        if not len(data):
            return
        if not np.isfinite(data).all():
            raise BadAudio("holds NaN or infinite samples")
        data = data[:, list(clip.source.channels)] if clip.source.channels else data
        left -= len(data)
        yield np.ascontiguousarray(data.mean(axis=1, dtype=np.float32))


def resample(data: Samples, clip: Clip, rate: int) -> Samples:
    """A clip at another rate, exactly `clip.length_at(rate)` samples long."""
    import soxr

    if rate == clip.rate:
        return data
    data, length = soxr.resample(data, clip.rate, rate), clip.length_at(rate)
    return np.pad(data[:length], (0, max(length - len(data), 0)))


def _opened(source: Source) -> AbstractContextManager[Any]:
    """What soundfile reads: the path of a file of its own, else the bytes of the member."""
    return source.open() if source.member else nullcontext(_name(source.path))


def _name(path: Path) -> str | bytes:
    """As soundfile opens it: on POSIX as bytes, which need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _digest(stream: BinaryIO, size: int, stretch: str) -> str:
    ends = 1 << 16
    stream.seek(0)
    body = stream.read(ends)
    if size > 2 * ends:
        stream.seek(-ends, os.SEEK_END)
    return hashlib.sha256(b"%d " % size + body + stream.read(ends) + stretch.encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "error_string", "") or error).strip().rstrip(".")
