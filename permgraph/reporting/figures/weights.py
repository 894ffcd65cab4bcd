"""Curves over λ, the weight of A in a merge: accuracy by domain, beside the parents and the log-mel baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from permgraph.reporting.drawing import colours
from permgraph.reporting.figures.files import write
from permgraph.reporting.text import clean

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255")
_MARKS = "osD^vPX*"
_LINES = ("-", ":", "-.", "--")


@dataclass(frozen=True)
class Panel:
    """Of one domain: what a number is, family → (λ, number) in order of λ, and a number of a name to compare with."""

    name: str
    what: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    beside: tuple[str, float] | None = None


NAME = "weights"


def draw(panels: Sequence[Panel], folder: Path, force: bool = True) -> Iterable[Path]:
    """Write `weights`, a panel for each, into `folder`. Yields its paths; `force` replaces files. Raises FileError."""
    yield from write({NAME: partial(_fill, panels)}, folder, force)


def _look(number: int) -> dict[str, str]:
    """Of one curve among many: no two of the first 64 share a colour and a mark."""
    turn, place = divmod(number, len(_COLOURS))
    return {
        "color": _COLOURS[place],
        "marker": _MARKS[(place + turn) % len(_MARKS)],
        "linestyle": _LINES[turn % len(_LINES)],
    }


def _fill(panels: Sequence[Panel], figure: Any) -> None:
    families = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    figure.set_size_inches(1.2 + 3.0 * max(1, len(panels)), 3.4)
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=False):
        for i, name in enumerate(families):
            points = panel.curves.get(name, ())
            if points:
                look = _look(i)
                axis.plot(*zip(*points, strict=True), **look, markersize=3, label=clean(name, 40))
        for name, value in () if panel.beside is None else (panel.beside,):
            axis.axhline(value, color=colours.PINNED, linestyle="--", linewidth=0.8)
            axis.annotate(
                clean(name, 30),
                (1, value),
                (-2, 2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=6,
                color=colours.GREY,
                ha="right",
            )
        axis.set_title(clean(panel.name, 40))
        axis.set_xlabel("λ, the weight of A")
        axis.set_ylabel(clean(panel.what, 60))
    handles = {
        label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False)
