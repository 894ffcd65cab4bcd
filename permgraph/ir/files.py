"""Files of what flows: JSON read with suspicion, checked, and written whole or not at all.

{"permgraph": "plan", "format": 2, "digest": "…", every field of the dataclass}

The digest is of all fields, so a file that was changed since it was written is refused: what a plan says cannot be
told from what it should say.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from permgraph.atomic_write import replacing, write_file
from permgraph.errors import FileError, PermgraphError, reason
from permgraph.ir.codec import Mismatch, decode, encode

MAX_BYTES = 512 * 2**20
T = TypeVar("T")
D = TypeVar("D", bound="Document")


class Document:
    """A frozen dataclass that is also a file. `check` raises PermgraphError when its fields contradict each other."""

    kind: ClassVar[str]
    format: ClassVar[int]
    written_by: ClassVar[str]  # the command that writes such a file

    def check(self) -> None:
        raise NotImplementedError

    @cached_property
    def digest(self) -> str:
        """SHA-256 of every field, 32 hex digits."""
        return digest_of(encode(self))

    def document(self) -> dict[str, Any]:
        """The contents of the file."""
        return {"permgraph": self.kind, "format": self.format, "digest": self.digest, **encode(self)}

    def to_bytes(self) -> bytes:
        """The file; equal values give equal bytes."""
        text = json.dumps(self.document(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return f"{text}\n".encode(errors="surrogatepass")

    def save(self, path: str | Path, force: bool = True) -> None:
        """Write the file, whole or not at all; `force` replaces what is there. Raises FileError."""
        write_bytes(self.to_bytes(), path, force)

    @classmethod
    def load(cls: type[D], path: str | Path) -> D:
        """Read and check what `save` wrote. Raises FileError; PlanError, TraceError for what contradicts itself."""
        data = read_json(path, cls.kind, cls.format)
        written = data.pop("digest", None)
        value = fitted(cls, data, path)
        try:
            value.check()
        except PermgraphError as error:
            raise type(error)(f"{path}: {error}") from error
        if written != value.digest:
            raise FileError(
                f"{path}: the {cls.kind} was changed after permgraph wrote it. Make it again with "
                f"`permgraph {cls.written_by}`."
            )
        return value


def digest_of(data: Any) -> str:
    """SHA-256 of JSON data in its one spelling, 32 hex digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fitted(cls: type[T], data: Any, where: str | Path) -> T:
    """`decode`, with the file in the message. Raises FileError."""
    try:
        return decode(cls, data)
    except Mismatch as error:
        raise FileError(f"{where}: {error}") from error


def write_bytes(data: bytes, path: str | Path, force: bool = True) -> None:
    """`path` holds the old file or the new one, never half of it.

    Raises FileError when the target is not a regular file, cannot be written, or is there and `force` is not given.
    """
    with replacing(Path(path), folder=False, force=force) as partial:
        write_file(partial, data)


def read_json(path: str | Path, kind: str, format: int) -> dict[str, Any]:
    """Read a permgraph file of `kind` ("trace", "spec", "plan") in this format; its fields without those two.

    Refuses what `json` accepts silently: duplicate keys, NaN, huge or deeply nested files. Raises FileError.
    """
    try:
        text = read_bounded(path)
    except FileError as error:
        hint = " Run `permgraph trace MODEL` first." if kind == "trace" and not Path(path).exists() else ""
        raise FileError(f"{error}{hint}") from error
    return opened(text, kind, format, path)


def read_bounded(path: str | Path) -> bytes:
    """The bytes of a file, unless it is too large to be one of ours. Raises FileError."""
    path = Path(path)
    try:
        refuse_special(path)
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path}: {path.stat().st_size:,} bytes, larger than {MAX_BYTES:,}.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error


def refuse_special(path: Path) -> None:
    """A pipe or a device, which may never end. Raises FileError, and OSError when it is not there."""
    if not stat.S_ISREG(path.stat().st_mode):
        what = "a folder" if path.is_dir() else "not a regular file"
        raise FileError(f"{path}: cannot read: {what}.")


def opened(text: bytes | str, kind: str, format: int, where: str | Path) -> dict[str, Any]:
    """The fields of a document whose head says that it is of this kind and format. Raises FileError."""
    try:
        data = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: not a permgraph {kind} file: {reason(error)}.") from error
    head = data.pop("permgraph", None) if isinstance(data, dict) else None
    if head != kind:
        found = f"a permgraph {head} file" if isinstance(head, str) and len(head) < 20 else "something else"
        raise FileError(f"{where}: expected a permgraph {kind} file, found {found}.")
    number = data.pop("format", None)
    if type(number) is not int or not 0 < number < 2**31:
        raise FileError(f"{where}: not a permgraph {kind} file: its format is not a positive integer.")
    if number != format:
        advice = "needs a newer permgraph" if number > format else "is of an older permgraph: make it again"
        raise FileError(f"{where}: {kind} format {number} {advice} (this one reads {format}).")
    return dict(data)


def strict_json(text: bytes | str) -> Any:
    """`json.loads` that refuses duplicate keys, NaN and Infinity. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


Arrays = Mapping[str, NDArray[Any]]


def save_arrays(kind: str, format: int, header: Any, arrays: Arrays) -> bytes:
    """A safetensors file whose metadata is a document. Its digest is of the arrays too. Equal values, equal bytes."""
    from safetensors.numpy import save

    fields, ordered = encode(header), {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    head = {"permgraph": kind, "format": format, "digest": digest_with_arrays(fields, ordered), **fields}
    # one metadata key: safetensors writes several in an order that changes from run to run
    return bytes(save(ordered, {"permgraph": json.dumps(head, sort_keys=True, allow_nan=False)}))


def load_arrays(
    path: str | Path, kind: str, format: int, header: type[T], written_by: str
) -> tuple[T, dict[str, NDArray[Any]]]:
    """Header and arrays of what `save_arrays` wrote. Raises FileError."""
    from safetensors import safe_open

    try:
        refuse_special(Path(path))
        with safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("permgraph")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file. `permgraph {written_by}` writes it.") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error
    except Exception as error:  # safetensors' own, OSError, dtypes that numpy lacks
        raise FileError(f"{path}: not a {kind} file (safetensors): {reason(error)}.") from error
    if text is None:
        raise FileError(f"{path}: not a permgraph {kind} file: its metadata has no entry 'permgraph'.")
    data = opened(text, kind, format, path)
    written = data.pop("digest", None)
    value = fitted(header, data, path)
    if written != digest_with_arrays(encode(value), arrays):
        raise FileError(
            f"{path}: the {kind} were changed after permgraph wrote them. Make them again with `permgraph {written_by}`."
        )
    return value, arrays


def digest_with_arrays(fields: dict[str, Any], arrays: Arrays) -> str:
    """SHA-256 of JSON data and of arrays, 32 hex digits."""
    digest = hashlib.sha256(digest_of(fields).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:60]!r} appears twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")
