"""JSON files that are read with suspicion and written whole or not at all. Used by every stage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from permgraph.errors import FileError

MAX_BYTES = 512 * 2**20


def write_bytes(data: bytes, path: str | Path) -> None:
    """Write beside, fsync, rename: `path` holds the old file or the new one, never half of it.

    Raises FileError when the target is not a regular file or cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: not a regular file, refusing to write over it. Choose another -o.")
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot write: {error.strerror or error}.") from error


def write_json(data: dict[str, Any], path: str | Path) -> None:
    """Write compact JSON through `write_bytes`. Raises FileError."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_bytes(f"{text}\n".encode(), path)


def read_json(path: str | Path, kind: str, newest_format: int) -> dict[str, Any]:
    """Read a permgraph file of `kind` ("trace", "spec", "plan").

    Refuses what `json` accepts silently: duplicate keys, NaN, huge or deeply nested files. Raises FileError.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(
                f"{path}: {path.stat().st_size:,} bytes is more than a {kind} file can be ({MAX_BYTES:,})."
            )
        data = strict_json(path.read_bytes())
    except FileNotFoundError as error:
        hint = " Run `permgraph trace MODEL` first." if kind == "trace" else ""
        raise FileError(f"{path}: no such file.{hint}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a permgraph {kind} file: {error or 'nested too deeply'}.") from error
    found = data.get("permgraph") if isinstance(data, dict) else None
    if found != kind:
        raise FileError(f"{path}: expected a permgraph {kind} file, found {found or 'something else'}.")
    if not isinstance(data.get("format"), int) or data["format"] > newest_format:
        raise FileError(
            f"{path}: {kind} format {data.get('format')!r} needs a newer permgraph (this one reads {newest_format})."
        )
    return dict(data)


def strict_json(text: bytes | str) -> Any:
    """`json.loads` that refuses duplicate keys, NaN and Infinity. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")
