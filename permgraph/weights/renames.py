"""Checkpoints of other libraries under transformers' names: tables in `specs/architectures/renames/*.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from permgraph.data_files import read_toml, specs
from permgraph.errors import FileError

_TAIL = r"(\.(?:weight|bias|weight_g|weight_v))?"


@dataclass(frozen=True)
class Renames:
    """One table.

    when           keys that tell a checkpoint of this library
    names          its module → transformers' module; {i} stands for a number
    heads          beginnings of keys that are left out
    architectures  aliases whose shapes are tried for such a checkpoint
    sampling_rate  alias → Hz, where it is not 16,000
    settings       training setting → field of the configuration that must have its value
    refused        training setting → why a checkpoint with it on cannot be read
    """

    source: str
    when: tuple[str, ...]
    names: dict[str, str]
    heads: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    sampling_rate: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def key(self, key: str) -> str | None:
        """The key in transformers' names; as it is when no row fits; None for a head."""
        if key.startswith(self.heads):
            return None
        for module, renamed in self.names.items():
            found = re.fullmatch(re.escape(module).replace(r"\{i\}", r"(\d+)") + _TAIL, key)
            if found:
                *numbers, tail = found.groups()
                return renamed.replace("{i}", "".join(numbers)) + (tail or "")
        return key


@cache
def tables() -> tuple[Renames, ...]:
    """Every table, sorted by file name. Raises FileError when a data file is damaged."""
    return tuple(_read(path) for path in sorted((specs() / "architectures" / "renames").glob("*.toml")))


def table_for(keys: Iterable[str]) -> Renames | None:
    """The table whose `when` keys are all there."""
    held = set(keys)
    return next((table for table in tables() if held.issuperset(table.when)), None)


def _read(path: Path) -> Renames:
    try:
        data = read_toml(path)
        for name in ("when", "heads", "architectures"):
            data[name] = tuple(data.get(name, ()))
        return Renames(**data)
    except TypeError as error:
        raise FileError(f"{path}: cannot read this table of names: {error}.") from error
