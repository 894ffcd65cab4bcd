"""Data files: where they lie (architectures, presets, tasks, golden specs), and how TOML is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from permgraph.errors import FileError

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
