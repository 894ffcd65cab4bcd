"""Kept: what was expensive to compute is saved when a later step fails, and the message says where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from permgraph.errors import PermgraphError


class Savable(Protocol):
    def save(self, path: str | Path) -> None: ...


@contextmanager
def kept_on_failure(values: Mapping[Path, Savable]) -> Iterator[None]:
    """When the body fails, save every value to its path; the notes of the error (`__notes__`) then say where.

    values  path → what is there so far; the body may add to it
    """
    try:
        yield
    except BaseException as error:
        notes = [_saved(path, value) for path, value in values.items()]
        error.__notes__ = [*getattr(error, "__notes__", ()), *notes]  # type: ignore[attr-defined, unused-ignore]
        raise


def _saved(path: Path, value: Savable) -> str:
    path = _free(path)
    try:
        value.save(path)
    except (PermgraphError, OSError) as error:
        return f"The {type(value).__name__.lower()} could not be kept: {error}"
    return f"The {type(value).__name__.lower()} computed so far: kept in {path}."


def _free(path: Path) -> Path:
    """This path, or one with a number, of which nothing is there: what an earlier run kept stays."""
    number = 2
    found = path
    while found.exists() or found.is_symlink():
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return found


def kept_path(out: Path, what: str) -> Path:
    """Where something is kept when the command that writes OUT fails: OUT.kept-moments.safetensors."""
    suffix = ".json" if what == "plan" else ".safetensors"
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.kept-{what}{suffix}")
