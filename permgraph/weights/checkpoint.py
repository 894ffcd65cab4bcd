"""Checkpoints: a file or a Hugging Face folder of tensors, read one tensor at a time, with suspicion."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from permgraph.errors import FileError
from permgraph.ir.files import read_bounded, strict_json
from permgraph.weights.conversion import Conversion, Read
from permgraph.weights.dtypes import Array
from permgraph.weights.links import inside
from permgraph.weights.names import first
from permgraph.weights.record import RECORD, Record, read_record
from permgraph.weights.renames import Renames, renamed
from permgraph.weights.rows import Blocks, Rows
from permgraph.weights.safetensors_io import Info, SafetensorsFile
from permgraph.weights.shard import RenamedFile, Shard
from permgraph.weights.tensors import held_by, tensor_of

if TYPE_CHECKING:
    import torch

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".th", ".pkl")
WEIGHT_FILES = (  # in the order in which transformers looks for them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors on disk. Nothing is read until `read`.

    path      the file or folder that was opened
    shards    its files of weights; keys are unique over all of them
    left_out  keys of pre-training heads in a checkpoint of another library, which are not read
    renames   the table through which such a checkpoint's keys became transformers'
    conversion  how the keys of a folder become the tensors of transformers' module, where these differ; tensors are
                then named and shaped as the module's, and written as they were stored
    """

    path: Path
    shards: tuple[Shard, ...]
    left_out: tuple[str, ...] = ()
    renames: Renames | None = None
    conversion: Conversion | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Training settings kept beside the weights of a pickled file; empty for other checkpoints."""
        return getattr(self.shards[0], "settings", {}) if len(self.shards) == 1 else {}

    @cached_property
    def home(self) -> dict[str, Shard]:
        """Stored key → the shard it lives in."""
        return {key: shard for shard in self.shards for key in shard.infos}

    @cached_property
    def stored(self) -> dict[str, Info]:
        """Stored key → shape and dtype."""
        return {key: shard.infos[key] for key, shard in self.home.items()}

    @cached_property
    def infos(self) -> dict[str, Info]:
        """Key → shape and dtype."""
        return self.conversion.infos(self.stored) if self.conversion else self.stored

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: info.shape for key, info in self.infos.items()}

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.infos.values())

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json of a folder; empty when there is none."""
        path = self.path / "config.json"
        return _json_object(inside(self.path, path.name)) if self.is_folder and path.is_file() else {}

    @cached_property
    def record(self) -> Record | None:
        """What permgraph noted when it wrote this checkpoint; None for one it did not write. Raises FileError."""
        path = self.path / RECORD
        if self.is_folder:
            return read_record(read_bounded(path), path) if path.is_file() else None
        text = self.shards[0].metadata.get("permgraph")
        return None if text is None else read_record(text, self.path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def read(self, key: str) -> torch.Tensor:
        """One tensor. Raises KeyError for an unknown key, FileError for a damaged file."""
        return self._read(key)

    def rows(self, key: str, rows: Rows = None) -> Array:
        """The numbers of some of its rows, along the first axis; of all when not given. Raises like `read`."""
        if self.conversion is None:
            return self.home[key].rows(key, rows)
        if key not in self._made:
            self._made.clear()
            self._made[key] = held_by(self._read(key))[0]
        return self._made[key] if rows is None else self._made[key][rows]

    @cached_property
    def _made(self) -> dict[str, Array]:
        """The converted tensor whose rows are being read."""
        return {}

    @cached_property
    def _read(self) -> Read:
        return self.conversion.reader(self._read_stored) if self.conversion else self._read_stored

    def _read_stored(self, key: str) -> torch.Tensor:
        return tensor_of(self.home[key].rows(key), self.stored[key].dtype)

    def as_stored(self, infos: Mapping[str, Info], blocks: Blocks) -> tuple[Mapping[str, Info], Blocks]:
        """Tensors like these as they are stored: shapes and dtypes, and the blocks of a stored key."""
        if self.conversion is None:
            return infos, blocks

        def whole(name: str) -> torch.Tensor:
            made = list(blocks(name))
            held = made[0] if len(made) == 1 else np.concatenate(made)
            return tensor_of(np.ascontiguousarray(held).reshape(infos[name].shape), infos[name].dtype)

        stored = self.conversion.writer(whole)
        return self.conversion.stored_infos(self.stored, infos), lambda key: iter([held_by(stored(key))[0]])

    @cached_property
    def mixed(self) -> str:
        """The dtypes of the floating-point tensors, in words, where there are several; "" otherwise."""
        kinds = Counter(
            str(i.dtype).removeprefix("torch.") for i in self.infos.values() if i.dtype.is_floating_point
        )
        listed = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        return f"{self.path.name}: tensors of several dtypes, each kept: {listed}" if len(kinds) > 1 else ""

    def verify(self) -> None:
        """Compare every shard with the checksum noted in it, if any, once. Raises FileError."""
        _ = self._verified

    @cached_property
    def _verified(self) -> bool:
        for shard in self.shards:
            shard.verify()
        return True


def open_checkpoint(path: str | Path, state: str = "", converted: bool = True) -> Checkpoint:
    """Open a file of weights (safetensors or torch.save, whatever its suffix), or a Hugging Face folder of such.

    state      which weights of a file that holds several: "ema" for the running average, or a key of the file
    converted  give a folder's tensors as transformers' module has them, where that is not how they are stored

    A file with the names of another library (fairseq's HuBERT) is read under those of transformers.
    No code is run, whatever the folder or the pickle holds. Raises FileError.
    """
    path = Path(path)
    if path.is_dir():
        if state:
            raise FileError(f"{path}: a folder holds one state; there is no {state!r} to choose.")
        return _converted_folder(path) if converted else _open_folder(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    if not path.is_file():
        raise FileError(f"{path}: not a regular file or folder.")
    return _renamed(path, _open_file(path, state))


def _converted_folder(path: Path) -> Checkpoint:
    return converted(_open_folder(path))


def converted(folder: Checkpoint) -> Checkpoint:
    """A folder under the names of transformers' module, where its stored keys are others. A file as it is."""
    if not folder.is_folder:
        return folder
    from permgraph.weights.transformers_names import conversion_of

    conversion = conversion_of(folder.path, folder.config, folder.stored)
    return folder if conversion is None else replace(folder, conversion=conversion)


def _renamed(path: Path, shard: Shard) -> Checkpoint:
    """A file as it is, or under transformers' names when a table knows its own."""
    found = renamed(shard.infos)
    if found is None:
        return Checkpoint(path, (shard,))
    names: dict[str, str] = {}
    for old, new in found[1].items():
        if new is not None and names.setdefault(new, old) != old:
            raise FileError(f"{path}: {names[new]!r} and {old!r} are both {new!r} in transformers' names.")
    left_out = tuple(old for old, new in found[1].items() if new is None)
    return Checkpoint(path, (RenamedFile(shard, names),), left_out, found[0])


def _open_file(path: Path, state: str = "") -> Shard:
    """A file of weights by what it holds, not by its name."""
    if _is_safetensors(path):
        if state:
            raise FileError(f"{path}: a safetensors file holds one state; there is no {state!r} to choose.")
        return SafetensorsFile(path)
    if _is_pickle(path):
        from permgraph.weights.pickles import PickleFile

        return PickleFile(path, state)
    raise FileError(f"{path}: expected a .safetensors file, one that torch.save wrote, or a model folder.")


def _is_safetensors(path: Path) -> bool:
    start, size = _start(path), path.stat().st_size
    announced = len(start) == 9 and start.endswith(b"{") and struct.unpack("<Q", start[:8])[0] <= size - 8
    return announced or (path.suffix == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80\x02")))


def _is_pickle(path: Path) -> bool:
    """Whether it begins as a pickle or a zip archive does; a name as torch's gives a reason why it does not."""
    return _start(path).startswith((b"PK", b"\x80")) or path.suffix in PICKLES


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(9)
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error


def _open_folder(folder: Path) -> Checkpoint:
    name = next((n for n in WEIGHT_FILES if (folder / n).is_file()), None)
    if name is None:
        held = sorted(p.name for p in folder.iterdir())[:10]
        raise FileError(
            f"{folder}: no weights: none of {', '.join(WEIGHT_FILES)} is there. "
            f"It holds {', '.join(held) or 'nothing'}. A single file can be named directly."
        )
    if not name.endswith(".index.json"):
        return Checkpoint(folder, (_open_file(inside(folder, name)),))
    return _open_shards(folder, inside(folder, name))


def _open_shards(folder: Path, index: Path) -> Checkpoint:
    weight_map = _json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise FileError(f"{index}: no weight_map from keys to file names.")
    names = sorted(set(weight_map.values()))
    absent = [n for n in names if not inside(folder, n).is_file()]
    if absent:
        raise FileError(f"{index}: {first(absent)} named here, not in the folder. Download again.")
    shards = tuple(_open_file(inside(folder, n)) for n in names)
    held = {name: shard.infos.keys() for name, shard in zip(names, shards, strict=True)}
    lost = [f"{key!r} ({name})" for key, name in weight_map.items() if key not in held[name]]
    if lost:
        raise FileError(f"{index}: {first(lost)} absent from the shard that should hold it.")
    stray = [f"{k!r} ({name})" for name, keys in held.items() for k in keys if weight_map.get(k) != name]
    if stray:
        raise FileError(f"{index}: {first(stray)} in a shard that the index does not give for it.")
    return Checkpoint(folder, shards)


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON object somebody else wrote."""
    text = read_bounded(path)
    try:
        found = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not valid JSON: {error or 'nested too deeply'}.") from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: expected a JSON object.")
    return found
