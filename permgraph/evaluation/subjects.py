"""Encoders to evaluate, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from permgraph.errors import UsageError
from permgraph.evaluation.logmel import NAME

Encoders = Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]]


@dataclass(frozen=True)
class Subject:
    """An encoder by name, and the paths of its pre-training runs."""

    name: str
    runs: tuple[Path, ...]


def listed(names: str | Path | Iterable[str | Path]) -> list[str]:
    """Names as a list; a single one is not taken for its letters."""
    return [str(names)] if isinstance(names, (str, Path)) else [str(name) for name in names]


def subjects_of(encoders: Encoders) -> list[Subject]:
    """Encoders by name: a mapping, or paths (named as their last part) and NAME=PATH; a name that comes again is
    another pre-training run. Raises UsageError."""
    pairs: list[tuple[str, Path, bool]] = []
    if isinstance(encoders, Mapping):
        for name, value in encoders.items():
            paths = [value] if isinstance(value, (str, Path)) else list(value)
            pairs += [(name, Path(path), True) for path in paths]
    else:
        for text in listed(encoders):
            name, sign, path = text.partition("=")
            named = bool(sign and name) and not Path(text).expanduser().exists()
            where = Path(path if named else text).expanduser()
            stem = where.resolve().name if where.is_dir() else where.stem
            pairs.append((name if named else stem, where, named))
    found: dict[str, list[Path]] = {}
    for name, where, named in pairs:
        if name.startswith(NAME) or not name:
            raise UsageError(f"{where}: the name {name!r} is not an encoder's. Write NAME=PATH.")
        if name in found and not named:
            raise UsageError(f"{where} and {found[name][0]} are both named {name}. Write NAME=PATH for each.")
        found.setdefault(name, []).append(where)
        if len({path.resolve() for path in found[name]}) < len(found[name]):
            raise UsageError(f"{where}: given twice as a run of {name}.")
    if not found:
        raise UsageError("no encoder was given.")
    return [Subject(name, tuple(paths)) for name, paths in found.items()]
