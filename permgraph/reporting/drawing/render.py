"""A picture to a file: SVG, PNG, PDF or DOT."""

from __future__ import annotations

from pathlib import Path

from permgraph.errors import FileError, UsageError
from permgraph.ir.files import write_bytes
from permgraph.reporting.drawing import raster
from permgraph.reporting.drawing.graphviz_layout import LayoutError
from permgraph.reporting.drawing.picture import Picture
from permgraph.reporting.drawing.svg import svg

FORMATS = ("svg", *raster.FORMATS, "dot")
_SUFFIXES = {f".{form}": form for form in FORMATS} | {".gv": "dot"}


def form_of(path: Path, form: str | None = None) -> str:
    """The format `form`, or that of the suffix. Raises UsageError for one that is not known."""
    form = form or _SUFFIXES.get(path.suffix)
    if form not in FORMATS:
        what = form or path.suffix or "file without suffix"
        raise UsageError(f"{path}: cannot draw a {what}. Use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    return form


def render(
    picture: Picture, path: str | Path, form: str | None = None, timeout: float = 60, force: bool = True
) -> Path:
    """Lay the picture out and write it to `path`, in the format `form` or that of the path's suffix. `force` replaces a file.

    Returns the path written. Raises UsageError for a format that is not known, and FileError when the layout
    fails or takes more than `timeout` seconds; the DOT text is then beside `path`, for another tool.
    """
    path = Path(path)
    form = form_of(path, form)
    if form == "dot":
        write_bytes(picture.dot().encode(), path, force)
        return path
    try:
        scene = picture.scene(timeout)
        data = svg(scene).encode() if form == "svg" else raster.drawn(scene, form, timeout)
    except LayoutError as error:
        text = path.with_suffix(".dot")
        write_bytes(picture.dot().encode(), text, force)
        raise FileError(
            f"{path}: {error}. Wrote {text} instead; fold repeated layers, or lay it out elsewhere."
        ) from error
    write_bytes(data, path, force)
    return path
