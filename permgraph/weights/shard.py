"""Shards: one file of weights each, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from permgraph.weights.dtypes import Array
from permgraph.weights.rows import Rows
from permgraph.weights.safetensors_io import Info


class Shard(Protocol):
    """One file of weights."""

    path: Path
    metadata: dict[str, str]
    infos: dict[str, Info]

    def rows(self, key: str, rows: Rows = None) -> Array: ...

    def verify(self) -> None: ...


class RenamedFile:
    """A file whose keys are read under other names."""

    def __init__(self, inner: Shard, names: Mapping[str, str]) -> None:
        self.path = inner.path
        self.metadata = inner.metadata
        self.settings: dict[str, Any] = getattr(inner, "settings", {})
        self.infos = {new: inner.infos[old] for new, old in names.items()}
        self._inner, self._names = inner, names

    def rows(self, key: str, rows: Rows = None) -> Array:
        return self._inner.rows(self._names[key], rows)

    def verify(self) -> None:
        self._inner.verify()
