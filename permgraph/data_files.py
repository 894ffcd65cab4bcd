"""Data files: where they lie (architectures, presets, tasks, golden specs), and how TOML is read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from permgraph.errors import FileError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def specs() -> Path:
    """The folder of data files: packaged beside the code, or `specs/` of a checkout. Raises FileError."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_specs", here.parent / "specs"):
        if folder.is_dir():
            return folder
    raise FileError(f"{here / '_specs'}: permgraph's data files are missing. Install permgraph again.")


def read_toml(path: Path) -> dict[str, Any]:
    """One TOML file. Raises FileError."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOML's and Unicode's errors are ValueErrors
        raise FileError(f"{path}: cannot read this TOML file: {error or 'nested too deeply'}.") from error
    return data


def read_extended_toml(path: Path) -> dict[str, Any]:
    """One TOML file, laid over the file beside it that `extends` names; tables are merged key by key. Raises FileError."""
    data = read_toml(path)
    base = read_extended_toml(path.with_name(f"{data.pop('extends')}.toml")) if "extends" in data else {}
    tables = {key: base[key] | data[key] for key in data if key in base and isinstance(data[key], dict)}
    return base | data | tables


def refuse_unknown(where: str, what: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises FileError for a key that a table has not. `where`: the file, and the part of it that the table is."""
    for key in table:
        if key not in known:
            raise FileError(
                f"{where}: unknown {what} {key!r}.{nearest(key, known)} Known: {', '.join(known)}."
            )


def refuse_missing(where: str, table: Mapping[str, Any], needed: Collection[str]) -> None:
    """Raises FileError for a key that a table lacks, or that is empty there."""
    for key in needed:
        if not table.get(key):
            raise FileError(f"{where}: {key} is missing.")


def fields_of(
    kind: type, what: str, table: Mapping[str, Any], where: str, but: Collection[str] = ()
) -> dict[str, Any]:
    """A table as the fields of a dataclass, all or some: strings, numbers, truth values and lists of them, as tuples.

    `but`: fields that no table gives. Raises FileError for an unknown key and for a value of another type.
    """
    hints = get_type_hints(kind)
    refuse_unknown(where, what, table, [f.name for f in fields(kind) if f.name not in but])
    return {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}


_ONE = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
_MANY = {str: "a list of strings", int: "a list of whole numbers", float: "a list of numbers"}


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint in _ONE:
        if _is(hint, value):
            return hint(value)
        raise FileError(f"{where}: expected {_ONE[hint]}, found {value!r}.")
    (one, _) = get_args(hint)  # tuple[one, ...]
    if isinstance(value, list) and all(_is(one, v) for v in value):
        return tuple(map(one, value))
    raise FileError(f"{where}: expected {_MANY[one]}, found {value!r}.")


def _is(kind: type, value: Any) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)
