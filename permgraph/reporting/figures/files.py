"""Figures as files: each as SVG and PDF, the same bytes for the same numbers. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from permgraph.errors import FileError
from permgraph.ir.files import write_bytes

FORMATS = ("svg", "pdf")
# Equal figures give equal files.
_STYLE = {"svg.hashsalt": "permgraph", "axes.spines.top": False, "axes.spines.right": False, "font.size": 8}
_METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

Fill = Callable[[Any], None]  # draws on a figure of matplotlib


def paths(names: Iterable[str], folder: Path) -> list[Path]:
    """The files of these figures in `folder`."""
    return [folder / f"{name}.{form}" for name in names for form in FORMATS]


def write(figures: Mapping[str, Fill], folder: Path, force: bool = True) -> Iterable[Path]:
    """Write every figure under its name into `folder`. Yields their paths. `force` replaces files.

    Raises FileError when matplotlib is not installed or the folder cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise FileError("--figures needs matplotlib: pip install 'permgraph[figures]'.") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(_STYLE):
            for name, fill in figures.items():
                figure = Figure(layout="constrained")
                fill(figure)
                for form, path in zip(FORMATS, paths([name], folder), strict=True):
                    data = BytesIO()
                    figure.savefig(data, format=form, metadata=_METADATA[form])
                    write_bytes(data.getvalue(), path, force)
                    yield path
    except OSError as error:
        raise FileError(f"{folder}: cannot write: {error.strerror or error}.") from error
