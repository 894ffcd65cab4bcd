"""Where the data files lie: architectures, presets, tasks, golden specs."""

from __future__ import annotations

from pathlib import Path

from permgraph.errors import FileError


def specs() -> Path:
    """The folder of data files: packaged beside the code, or `specs/` of a checkout. Raises FileError."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_specs", here.parent / "specs"):
        if folder.is_dir():
            return folder
    raise FileError(f"{here / '_specs'}: permgraph's data files are missing. Install permgraph again.")
