"""Checkpoints of other libraries under transformers' names: tables in `specs/architectures/renames/*.toml`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from permgraph.data_files import read_extended_toml, specs
from permgraph.errors import FileError, reason
from permgraph.ir.names import canonical

_TAIL = r"(\.(?:weight|bias|weight_g|weight_v|running_mean|running_var|num_batches_tracked))?"


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

    def prefix_in(self, keys: Collection[str]) -> str | None:
        """What stands before the names of this library in a checkpoint; None when it is not of this library."""
        ends = [key.removesuffix(self.when[0]) for key in keys if f".{key}".endswith(f".{self.when[0]}")]
        held = set(keys)
        return next((p for p in sorted(ends, key=len) if held.issuperset(p + key for key in self.when)), None)


@cache
def tables() -> tuple[Renames, ...]:
    """Every table, those that ask for more keys first. Raises FileError when a data file is damaged."""
    found = [_read(path) for path in sorted((specs() / "architectures" / "renames").glob("*.toml"))]
    return tuple(sorted(found, key=lambda table: -len(table.when)))


def renamed(keys: Iterable[str]) -> tuple[Renames, dict[str, str | None]] | None:
    """The table of a checkpoint's library, and stored key → transformers' name, None for what is left out.

    The names of wrappers and what stands before the encoder (`w2v_encoder.w2v_model.` in a fine-tuned model) do not count;
    what lies beside the encoder is a head.
    """
    plain = {key: ".".join(part for part in canonical(key).split(".") if part != "module") for key in keys}
    for table in tables():
        prefix = table.prefix_in(plain.values())
        if prefix is not None:
            inside = {
                k: name.removeprefix(prefix) if name.startswith(prefix) else None for k, name in plain.items()
            }
            return table, {k: None if name is None else table.key(name) for k, name in inside.items()}
    return None


def _read(path: Path) -> Renames:
    try:
        data = read_extended_toml(path)
        for name in ("when", "heads", "architectures"):
            data[name] = tuple(data.get(name, ()))
        return Renames(**data)
    except TypeError as error:
        raise FileError(f"{path}: cannot read this table of names: {reason(error)}.") from error
