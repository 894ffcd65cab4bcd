"""The safetensors format, read and written tensor by tensor: memory is bounded by the largest tensor.

The library reads safely but writes a whole file at once, and it keeps silent about a duplicate key. The
format is 8 bytes of header length, a JSON header {key: dtype, shape, data_offsets}, then the bytes. A file
written here also carries checksums in its metadata, so that a flipped bit is seen later: of those bytes XXH3 of 128 bits,
of the header SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import xxhash

from permgraph.errors import FileError
from permgraph.ir.files import strict_json
from permgraph.weights.dtypes import DTYPES, Array, Dtype
from permgraph.weights.rows import BLOCK, Blocks, Rows, read_rows
from permgraph.weights.tensors import tensor_of

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100 * 2**20
MAX_TENSORS = 1_000_000
DIGEST, HEADER = "data_xxh3_128", "header_sha256"  # of the data; of all else, with the former
DIGESTS: dict[str, Callable[[], Any]] = {DIGEST: xxhash.xxh3_128, "data_sha256": hashlib.sha256}
AHEAD = 2  # blocks that wait to be written


@dataclass(frozen=True)
class Info:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsFile:
    """One .safetensors file: header checked on opening, tensors read when asked for. Raises FileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header, self._data = _read_header(path)
        sealed = header.get("__metadata__", {}).get(HEADER)
        if sealed is not None and sealed != _digest(header):
            raise FileError(f"{path}: its header has changed since it was written (SHA-256 differs).")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if len(header) > MAX_TENSORS:
            raise FileError(f"{path}: {len(header):,} tensors, more than {MAX_TENSORS:,}.")
        self.infos: dict[str, Info] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        for key, row in header.items():
            self.infos[key], self._spans[key] = _entry(path, key, row)
        self._check_spans()

    def read(self, key: str) -> torch.Tensor:
        """The tensor, freshly read: the caller owns it."""
        return tensor_of(self.rows(key), self.infos[key].dtype)

    def rows(self, key: str, rows: Rows = None) -> Array:
        """The numbers of some of its rows, freshly read."""
        info, (begin, end) = self.infos[key], self._spans[key]
        try:
            return read_rows(self.path, self._data + begin, info.shape, info.dtype.held, rows)
        except EOFError as error:
            raise FileError(f"{self.path}: {key!r} ends before its {end - begin:,} bytes.") from error

    def verify(self) -> None:
        """Compare the bytes with the checksum in the metadata, when there is one. Raises FileError."""
        name = next((name for name in DIGESTS if name in self.metadata), None)
        if name is None:
            return
        digest = DIGESTS[name]()
        with open(self.path, "rb") as stream:
            stream.seek(self._data)
            while chunk := stream.read(BLOCK):
                digest.update(chunk)
        if digest.hexdigest() != self.metadata[name]:
            raise FileError(
                f"{self.path}: the data has changed since it was written (checksum {name} differs)."
            )

    def _check_spans(self) -> None:
        at = 0
        for begin, end in sorted(self._spans.values()):
            if begin != at:
                raise FileError(f"{self.path}: damaged: tensors overlap or leave a hole at byte {at:,}.")
            at = end
        size, want = self.path.stat().st_size, self._data + at
        if size < want:
            raise FileError(f"{self.path}: incomplete, expected {want:,} bytes, found {size:,}.")
        if size > want:
            raise FileError(f"{self.path}: damaged: {size - want:,} bytes after the last tensor.")


def write_safetensors(
    path: Path, infos: Mapping[str, Info], blocks: Blocks, metadata: Mapping[str, str]
) -> None:
    """Write `infos` to a new file, asking `blocks` for one tensor at a time; fsynced. Same input, same bytes.

    While a block is written, the next is made. Raises FileError when `blocks` gives another type or size than
    announced, OSError when writing fails.
    """
    order = sorted(infos, key=lambda key: (-infos[key].dtype.itemsize, key))  # keeps every tensor aligned
    metadata = {key: value for key, value in metadata.items() if key not in DIGESTS}
    digest = xxhash.xxh3_128()
    with open(path, "xb", buffering=0) as stream:
        _write_all(stream, _header(infos, order, {**metadata, DIGEST: "0" * 32}))

        def write(block: Array) -> None:
            raw = block.reshape(-1).view("u1").data
            _write_all(stream, raw)
            digest.update(raw)

        with _behind(write) as put:
            for key in order:
                _write_tensor(key, infos[key], blocks, put)
        stream.seek(0)
        _write_all(stream, _header(infos, order, {**metadata, DIGEST: digest.hexdigest()}))
        os.fsync(stream.fileno())


def _write_tensor(key: str, info: Info, blocks: Blocks, put: Callable[[Array], None]) -> None:
    size = 0
    for block in blocks(key):
        if block.dtype != np.dtype(info.dtype.held):
            raise FileError(f"{key!r}: numbers of type {block.dtype} to write, {info.dtype} announced.")
        size += block.nbytes
        put(np.ascontiguousarray(block))
    if size != info.nbytes:
        raise FileError(
            f"{key!r}: {size:,} bytes to write, {info.nbytes:,} announced ({info.shape} {info.dtype})."
        )


@contextmanager
def _behind(write: Callable[[Array], None]) -> Iterator[Callable[[Array], None]]:
    """Runs `write` in a thread of its own, in order; the caller waits when several blocks are not written yet."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as thread:

        def put(block: Array) -> None:
            waiting.append(thread.submit(write, block))
            while len(waiting) > AHEAD:
                waiting.popleft().result()

        try:
            yield put
            for done in waiting:
                done.result()
        finally:
            for late in waiting:
                late.cancel()


def _write_all(stream: BinaryIO | Any, data: bytes | memoryview) -> None:
    room = memoryview(data)
    while room:
        room = room[stream.write(room) :]


def _header(infos: Mapping[str, Info], order: list[str], metadata: Mapping[str, str]) -> bytes:
    rows: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for key in order:
        info = infos[key]
        end = at + info.nbytes
        rows[key] = {"dtype": info.dtype.code, "shape": list(info.shape), "data_offsets": [at, end]}
        at = end
    rows["__metadata__"] = dict(sorted({**rows["__metadata__"], HEADER: _digest(rows)}.items()))
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _digest(rows: dict[str, Any]) -> str:
    """SHA-256 of a header, but for its own digest."""
    metadata = {key: text for key, text in rows["__metadata__"].items() if key != HEADER}
    text = json.dumps({**rows, "__metadata__": metadata}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
            if length is None:
                raise FileError(f"{path}: incomplete, expected 8 bytes at least, found {size}.")
            if length > MAX_HEADER:
                raise FileError(
                    f"{path}: not a safetensors file, or damaged: its header would take {length:,} bytes."
                )
            if size < 8 + length:
                raise FileError(
                    f"{path}: incomplete, expected {8 + length:,} bytes at least, found {size:,}."
                )
            header = strict_json(stream.read(length))
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a safetensors file, or damaged header: {error}.") from error
    if not isinstance(header, dict):
        raise FileError(f"{path}: not a safetensors file: its header is not an object.")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileError(f"{path}: damaged header: __metadata__ must map text to text.")
    return header, 8 + length


def _entry(path: Path, key: str, row: Any) -> tuple[Info, tuple[int, int]]:
    try:
        code, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        sound = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and isinstance(code, str)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise FileError(f"{path}: damaged header at {key!r}.")
    if code not in DTYPES:
        raise FileError(f"{path}: {key!r} has dtype {code}, which is packed or unknown; cannot be permuted.")
    info = Info(shape, DTYPES[code])
    if info.nbytes != end - begin:
        raise FileError(
            f"{path}: {key!r} {shape} {code} needs {info.nbytes:,} bytes, the header gives {end - begin:,}."
        )
    return info, (begin, end)
