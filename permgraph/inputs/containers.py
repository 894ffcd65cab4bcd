"""Containers: what an audio file says of its own length, held against the bytes that are there.

libsndfile reads a cut file to where it ends, and believes a header that promises hours in a few kilobytes. Neither is told.
"""

from __future__ import annotations

import os
from typing import BinaryIO

W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
UNKNOWN = 2**32 - 1  # written to a pipe: the length was never filled in
TAIL = 1 << 17  # two Ogg pages at most

# Samples of a channel that one byte can hold: silence in the densest coding of each format. All others are at most 128.
DENSEST = {"FLAC": 8192, "OGG": 4096, "CAF": 4096}
USUAL = 128
RATES = range(1_000, 1_000_001)  # Hz


def implausible(form: str, size: int, frames: int, rate: int) -> str:
    """Why a header cannot be true of a file of `size` bytes; "" when it can."""
    if rate not in RATES:
        return f"its header gives {rate:,} Hz, which is no rate of audio"
    if frames > size * DENSEST.get(form, USUAL):
        return f"its header promises {frames:,} samples, more than {size:,} bytes can hold"
    return ""


def cut(stream: BinaryIO, size: int) -> str:
    """How a file is shorter than it says; "" when it is whole, or says nothing."""
    stream.seek(0)
    start = stream.read(1 << 13)
    if start.startswith(b"OggS"):
        return _cut_ogg(stream, size)
    promised = _promised(start)
    return f"truncated: {size:,} of {promised:,} bytes" if promised > size else ""


def _promised(start: bytes) -> int:
    """Bytes that a file should have by its first ones; 0 where they do not say."""
    kind, length = start[:4], start[4:8]
    if kind in (b"RIFF", b"RIFX", b"FORM"):
        found = int.from_bytes(length, "little" if kind == b"RIFF" else "big")
        return found + 8 if 4 <= found < UNKNOWN - 8 else 0
    if kind in (b"RF64", b"BW64") and start[12:16] == b"ds64":
        return int.from_bytes(start[20:28], "little") + 8
    if start.startswith(W64):
        return int.from_bytes(start[16:24], "little")
    if kind in (b".snd", b"dns."):
        order = "big" if kind == b".snd" else "little"
        offset, data = (int.from_bytes(start[at : at + 4], order) for at in (4, 8))  # type: ignore[arg-type]
        return offset + data if data != UNKNOWN else 0
    if kind == b"caff":
        return _promised_caf(start)
    return _promised_mp3(start)


def _promised_caf(start: bytes) -> int:
    """To the end of the chunk of samples, where it begins in what was read."""
    at = 8
    while at + 12 <= len(start):
        size = int.from_bytes(start[at + 4 : at + 12], "big", signed=True)
        if start[at : at + 4] == b"data" or size < 0:
            return at + 12 + size if size >= 0 else 0
        at += 12 + size
    return 0


def _promised_mp3(start: bytes) -> int:
    """Of an MP3 whose first frame holds a Xing or Info header with the number of bytes."""
    found = min((at for mark in (b"Xing", b"Info") if (at := start.find(mark)) >= 0), default=-1)
    frame = start.rfind(b"\xff", max(found - 40, 0), found) if found >= 0 else -1
    if frame < 0 or start[frame + 1] & 0xE0 != 0xE0:
        return 0
    flags = int.from_bytes(start[found + 4 : found + 8], "big")
    at = found + 8 + 4 * (flags & 1)
    return frame + int.from_bytes(start[at : at + 4], "big") if flags & 2 else 0


def _cut_ogg(stream: BinaryIO, size: int) -> str:
    """The last page has to be whole, and to say that it is the last."""
    stream.seek(max(size - TAIL, 0), os.SEEK_SET)
    tail = stream.read(TAIL)
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(segments) == page[26] and len(page) >= 27 + len(segments) + sum(segments)
    if whole and page[5] & 4:
        return ""
    return "truncated: its last page is not the end of the stream"
