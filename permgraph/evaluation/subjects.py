"""Encoders to evaluate, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from permgraph.errors import UsageError
from permgraph.evaluation.logmel import NAME
from permgraph.inputs.sources import is_text, shown

Encoders = Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]]
Run = tuple[Path, ...]  # one encoder; or several, whose features stand side by side


@dataclass(frozen=True)
class Subject:
    """An encoder by name, and the paths of its pre-training runs."""

    name: str
    runs: tuple[Run, ...]


def listed(names: str | Path | Iterable[str | Path]) -> list[str]:
    """Names as a list; a single one is not taken for its letters."""
    return [str(names)] if isinstance(names, (str, Path)) else [str(name) for name in names]


def subjects_of(encoders: Encoders) -> list[Subject]:
    """Encoders by name: a mapping, or paths (named as their last part) and NAME=PATH; a name that comes again is
    another pre-training run, and PATH+PATH several encoders side by side. Raises UsageError."""
    pairs: list[tuple[str, Run, bool]] = []
    if isinstance(encoders, Mapping):
        for name, value in encoders.items():
            paths = [value] if isinstance(value, (str, Path)) else list(value)
            pairs += [(name, _run(str(path)), True) for path in paths]
    else:
        for text in listed(encoders):
            name, sign, path = text.partition("=")
            named = bool(sign and name) and not Path(text).expanduser().exists()
            run = _run(path if named else text)
            pairs.append((name if named else "+".join(map(_stem, run)), run, named))
    found: dict[str, list[Run]] = {}
    for name, run, named in pairs:
        where = _shown(run)
        if name != name.strip() or not is_text(name):  # in a table it would be another name
            what = "is not UTF-8" if not is_text(name) else "has blanks about it"
            raise UsageError(f"{shown(where)}: the name {shown(name)!r} {what}. Write NAME=PATH.")
        if name.startswith(NAME) or not name:
            raise UsageError(f"{where}: the name {name!r} is not an encoder's. Write NAME=PATH.")
        if name in found and not named:
            raise UsageError(
                f"{where} and {_shown(found[name][0])} are both named {name}. Write NAME=PATH for each."
            )
        found.setdefault(name, []).append(run)
        if len({_resolved(one) for one in found[name]}) < len(found[name]):
            raise UsageError(f"{where}: given twice as a run of {name}.")
        if len(_resolved(run)) < len(run):
            raise UsageError(f"{where}: an encoder beside itself.")
    if not found:
        raise UsageError("no encoder was given.")
    return [Subject(name, tuple(paths)) for name, paths in found.items()]


def _run(text: str) -> Run:
    """A path, or several joined by "+" where there is no such path."""
    whole = Path(text).expanduser()
    parts = [Path(part).expanduser() for part in text.split("+")]
    return (whole,) if whole.exists() or not text.strip("+") or "" in text.split("+") else tuple(parts)


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _shown(run: Run) -> str:
    return "+".join(map(str, run))


def _resolved(run: Run) -> frozenset[Path]:
    return frozenset(path.resolve() for path in run)
