"""Pickled checkpoints as torch.save writes them: where their tensors lie, read one at a time. Nothing in them is run.

Since torch 1.6 a file is a zip archive: one pickle, and a member for each storage. Before, it was five pickles and then
the storages one after another. Both are read here, not by torch.load, which allocates what a pickle announces.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from permgraph.errors import FileError
from permgraph.weights.dtypes import Array, dtype_of
from permgraph.weights.rows import Rows, read_rows
from permgraph.weights.safetensors_io import Info
from permgraph.weights.tensors import tensor_of
from permgraph.weights.training_files import chosen_state, settings_of
from permgraph.weights.unpickling import Refused, Storage, Stored, Unpickler

if TYPE_CHECKING:
    import torch

MAX_PICKLE = 512 * 2**20
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of an old file
Spans = Mapping[str, tuple[int, int]]  # storage → where its bytes begin, and how many there are


class PickleFile:
    """One pickled file, with the same reading interface as SafetensorsFile. Raises FileError.

    state     which weights of several: "" for the model's, "ema" for their running average, or a key of the file
    settings  the training settings kept beside the weights: name → bool, number or text
    """

    def __init__(self, path: Path, state: str = "") -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        content, self._spans = _load(path)
        self._tensors = chosen_state(path, content, state)
        self.settings = settings_of(content)
        self.infos = {key: _info(path, key, tensor) for key, tensor in self._tensors.items()}

    def read(self, key: str) -> torch.Tensor:
        """The tensor, freshly read: the caller owns it."""
        return tensor_of(self.rows(key), self.infos[key].dtype)

    def rows(self, key: str, rows: Rows = None) -> Array:
        """The numbers of some of its rows, freshly read."""
        tensor, held = self._tensors[key], self.infos[key].dtype.held
        size = tensor.dtype.itemsize
        begin = self._spans[tensor.storage.key][0] + tensor.offset * size
        try:
            if tensor.contiguous:
                return read_rows(self.path, begin, tensor.shape, held, rows)
            whole = read_rows(self.path, begin, (tensor.extent,), held, None)
        except EOFError as error:
            raise FileError(
                f"{self.path}: {key!r} ends before its {tensor.extent * size:,} bytes."
            ) from error
        strides = [step * size for step in tensor.stride]
        found = np.lib.stride_tricks.as_strided(whole, tensor.shape, strides)
        return found if rows is None else found[rows]

    def verify(self) -> None:
        """Nothing to compare with."""

    @property
    def same(self) -> dict[str, object]:
        """Key → what is equal for tensors that are one: the same numbers of the file, seen the same way."""
        return dict(self._tensors)


def _load(path: Path) -> tuple[Any, Spans]:
    """What is pickled, and where the storages lie; every storage is there as announced."""
    try:
        with open(path, "rb") as stream:
            zipped = stream.read(2) == b"PK"
            if zipped and not zipfile.is_zipfile(path):
                raise FileError(f"{path}: incomplete: the end of the file is missing. Download it again.")
            content, storages, spans = _zipped(stream) if zipped else _plain(stream)
            size = path.stat().st_size
        for storage in storages.values():
            _check(storage, spans, size)
    except Refused as error:
        raise FileError(
            f"{path}: refused, nothing was run: the file asks for {error}, which weights do not need. "
            "Ask its author for a .safetensors file."
        ) from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error
    except Exception as error:  # whatever a damaged pickle makes of the reader
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileError(
            f"{path}: not a PyTorch checkpoint, refused or damaged, nothing was run: {reason}"
        ) from error
    return content, spans


def _zipped(stream: BinaryIO) -> tuple[Any, dict[str, Storage], Spans]:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        found = [m for m in members if m.filename.rpartition("/")[2] == "data.pkl"]
        if not found:
            raise ValueError("no data.pkl in it (a TorchScript or other archive)")
        top = found[0].filename.removesuffix("data.pkl")
        if any(m.filename == f"{top}constants.pkl" for m in members):
            raise ValueError("it is a TorchScript archive, a program")
        packed = [
            m.filename
            for m in members
            if m.filename.startswith(top) and m.compress_type != zipfile.ZIP_STORED
        ]
        if packed or found[0].file_size > MAX_PICKLE:
            raise ValueError(f"{(packed or ['data.pkl'])[0]} is compressed or too large")
        order = [m for m in members if m.filename == f"{top}byteorder"]
        if order and archive.read(order[0]) != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(found[0]) as pickled:
            unpickler = Unpickler(pickled)  # type: ignore[arg-type]
            content = unpickler.load()
    data = f"{top}data/"
    spans = {m.filename.removeprefix(data): _span(stream, m) for m in members if m.filename.startswith(data)}
    return content, unpickler.storages, spans


def _span(stream: BinaryIO, member: zipfile.ZipInfo) -> tuple[int, int]:
    stream.seek(member.header_offset)
    header = stream.read(30)
    if len(header) != 30 or not header.startswith(b"PK\x03\x04"):
        raise ValueError(f"no {member.filename} where the archive says")
    name, extra = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + name + extra, member.file_size


def _plain(stream: BinaryIO) -> tuple[Any, dict[str, Storage], Spans]:
    stream.seek(0)
    if Unpickler(stream).load() != MAGIC:
        raise ValueError("a pickle, but not one of torch.save")
    Unpickler(stream).load()  # the version of the format
    system = Unpickler(stream).load()
    if isinstance(system, dict) and not system.get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    unpickler = Unpickler(stream)
    content = unpickler.load()
    spans, keys = {}, Unpickler(stream).load()
    if not isinstance(keys, list) or set(map(str, keys)) != set(unpickler.storages):
        raise ValueError("its list of storages is not that of its tensors")
    for key in map(str, keys):
        storage, counted = unpickler.storages[key], stream.read(8)
        if len(counted) != 8 or struct.unpack("<q", counted)[0] != storage.count:
            raise ValueError(f"storage {key} is not there, or of another size")
        spans[key] = (stream.tell(), storage.count * storage.dtype.itemsize)
        stream.seek(spans[key][1], 1)
    return content, unpickler.storages, spans


def _check(storage: Storage, spans: Spans, size: int) -> None:
    begin, held = spans.get(storage.key, (0, 0))
    wanted = storage.count * storage.dtype.itemsize
    if wanted > held or begin + held > size:
        raise ValueError(
            f"storage {storage.key} announces {wanted:,} bytes, the file holds {min(held, size):,}"
        )


def _info(path: Path, key: str, tensor: Stored) -> Info:
    dtype = dtype_of(tensor.dtype)
    if dtype is None:
        raise FileError(
            f"{path}: {key!r} is a {tensor.dtype} tensor; only plain dense tensors can be permuted."
        )
    try:
        tensor.check(path.stat().st_size)
    except ValueError as error:
        raise FileError(f"{path}: {key!r}: {error}.") from error
    assert math.prod(tensor.shape) >= 0
    return Info(tensor.shape, dtype)
