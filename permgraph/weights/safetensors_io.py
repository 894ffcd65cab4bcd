"""The safetensors format, read and written tensor by tensor: memory is bounded by the largest tensor.

The library reads safely but writes a whole file at once, and it keeps silent about a duplicate key. The
format is 8 bytes of header length, a JSON header {key: dtype, shape, data_offsets}, then the bytes. A file
written here also carries the SHA-256 of those bytes and of its header in its metadata, so that a flipped bit is seen later.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import FileError
from permgraph.ir.files import strict_json

MAX_HEADER = 100 * 2**20
MAX_TENSORS = 1_000_000
DIGEST, HEADER = "data_sha256", "header_sha256"  # of the data; of all else, with the former

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Info:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

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
        info, (begin, end) = self.infos[key], self._spans[key]
        raw = torch.empty(end - begin, dtype=torch.uint8)
        with open(self.path, "rb") as stream:
            stream.seek(self._data + begin)
            if stream.readinto(raw.numpy().data) != end - begin:
                raise FileError(f"{self.path}: {key!r} ends before its {end - begin:,} bytes.")
        return raw.view(info.dtype).reshape(info.shape)

    def verify(self) -> None:
        """Compare the bytes with the SHA-256 in the metadata, when there is one. Raises FileError."""
        want = self.metadata.get(DIGEST)
        if want is None:
            return
        digest = hashlib.sha256()
        with open(self.path, "rb") as stream:
            stream.seek(self._data)
            while chunk := stream.read(2**22):
                digest.update(chunk)
        if digest.hexdigest() != want:
            raise FileError(f"{self.path}: the data has changed since it was written (SHA-256 differs).")

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
    path: Path,
    infos: Mapping[str, Info],
    read: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write `infos` to a new file, asking `read` for one tensor at a time; fsynced. Same input, same bytes.

    Raises FileError when `read` returns another shape or dtype than announced, OSError when writing fails.
    """
    order = sorted(infos, key=lambda key: (-infos[key].dtype.itemsize, key))  # keeps every tensor aligned
    digest = hashlib.sha256()
    with open(path, "xb") as stream:
        stream.write(_header(infos, order, {**metadata, DIGEST: "0" * 64}))
        for key in order:
            tensor, info = read(key).detach(), infos[key]
            if tuple(tensor.shape) != info.shape or tensor.dtype != info.dtype:
                raise FileError(
                    f"{key!r}: {tuple(tensor.shape)} {tensor.dtype} to write, "
                    f"{info.shape} {info.dtype} announced."
                )
            raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            stream.write(raw)
            digest.update(raw)
        stream.seek(0)
        stream.write(_header(infos, order, {**metadata, DIGEST: digest.hexdigest()}))
        stream.flush()
        os.fsync(stream.fileno())


def _header(infos: Mapping[str, Info], order: list[str], metadata: Mapping[str, str]) -> bytes:
    rows: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for key in order:
        info = infos[key]
        end = at + info.nbytes
        rows[key] = {"dtype": CODES[info.dtype], "shape": list(info.shape), "data_offsets": [at, end]}
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
