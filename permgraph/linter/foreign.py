"""Foreign specifications: groups that somebody else wrote down, and what they are on a network of ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from permgraph.errors import nearest
from permgraph.ir.spec import IntArray, PermSpec
from permgraph.linter.claims import Claim, ClaimPlace


@dataclass(frozen=True)
class ForeignPlace:
    """An axis as it was written.

    layout  letters "u", "c", numbers and "*", slowest first; empty when the units fill the axis
    start   first coordinate of a window of the axis, None when the layout fills it
    """

    tensor: str
    axis: int
    layout: tuple[str, ...] = ()
    start: int | None = None
    rows_axis: int | None = None
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]"


@dataclass(frozen=True)
class ForeignGroup:
    """A group as it was written. `size` None: what its first axis has room for."""

    name: str
    places: tuple[ForeignPlace, ...]
    size: int | None = None
    copies: int = 1


@dataclass(frozen=True)
class Foreign:
    """A specification: notation ("git-re-basin", "mergekit", "permgraph"), groups, and what else the file says."""

    notation: str
    groups: tuple[ForeignGroup, ...]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What is wrong with, or noted about, a foreign group.

    kind      "unknown tensor", "shape mismatch", "single axis", "moved twice", "tied tensor", "forgotten buffer",
              "forgotten tensor", "not a symmetry", "lacking"
    group     its name in the foreign specification ("" when about the whole)
    where     the tensor and axis concerned, or ""
    text      one sentence
    severity  "error": the specification does not keep the function; "note": it could say more
    change    relative change of the network's output when the group moves at random, if it was measured
    """

    kind: str
    group: str
    where: str
    text: str
    severity: str = "error"
    change: float | None = None


def resolve(group: ForeignGroup, spec: PermSpec) -> tuple[Claim, list[Finding]]:
    """A foreign group on the tensors of a network: what fits, as a claim, and findings about what does not."""
    findings, fitting = [], []
    size = group.size
    for place in group.places:
        tensor = spec.first_name(place.tensor)
        shape = spec.tensors.get(tensor)
        if shape is None:
            text = f"the network has no tensor {place.tensor!r}.{nearest(place.tensor, spec.tensors, 1)}"
            findings.append(Finding("unknown tensor", group.name, str(place), text))
            continue
        if place.axis >= len(shape):
            text = f"{place.tensor} has shape {shape}: there is no axis {place.axis}."
            findings.append(Finding("shape mismatch", group.name, str(place), text))
            continue
        size = size or _left(place.layout or ("u",), "u", shape[place.axis], 1, group.copies)
        fitted = _fit(place, tensor, shape, size, group.copies)
        if isinstance(fitted, str):
            findings.append(Finding("shape mismatch", group.name, str(place), fitted))
        else:
            fitting.append(fitted)
    return Claim(group.name, size or 0, tuple(fitting), group.copies), findings


def _fit(
    place: ForeignPlace, tensor: str, shape: tuple[int, ...], size: int, copies: int
) -> ClaimPlace | str:
    """A place with its coordinates, or what does not fit."""
    length = shape[place.axis]
    layout = place.layout or ("u",)
    layout = tuple(str(_left(layout, "*", length, size, copies)) if x == "*" else x for x in layout)
    start, count = place.start or 0, _count(layout, size, copies)
    if start + count > length or (place.start is None and count != length):
        owned = (
            f" = {size} × {length // size}: each unit owns {length // size} of them"
            if length % size == 0
            else ""
        )
        return f"the group has {size} units, {tensor} has {length} on axis {place.axis}{owned}."
    units = _coordinates(layout, size, copies) + start
    if place.rows_axis is None:
        return ClaimPlace(tensor, place.axis, units)
    fits = place.rows_axis < len(shape) and _count(place.rows, size, copies) <= shape[place.rows_axis]
    if not fits or "*" in place.rows:
        return f"{tensor} has shape {shape}: the rows of axis {place.rows_axis} do not fit."
    rows = _coordinates(place.rows, size, copies).reshape(copies, -1)
    return ClaimPlace(tensor, place.axis, units, rows, place.rows_axis)


def _left(layout: tuple[str, ...], letter: str, length: int, size: int, copies: int) -> int:
    """How often `letter` fits into an axis beside the rest of its layout."""
    rest = _count(tuple(x for x in layout if x != letter), size, copies)
    return max(1, length // max(1, rest))


def _count(layout: tuple[str, ...], size: int, copies: int) -> int:
    """How many coordinates a layout takes up."""
    known = {"u": size, "c": copies, "*": 1}
    return math.prod(known[x] if x in known else int(x) for x in layout)


def _coordinates(layout: tuple[str, ...], size: int, copies: int) -> IntArray:
    """Coordinates of a layout, shape (copies, size, m); all copies are the same where it has no `c`."""
    sizes = [size if x == "u" else copies if x == "c" else int(x) for x in layout]
    grid: IntArray = np.arange(math.prod(sizes)).reshape(sizes)
    for letter in ("u", "c"):  # each to the front: c, then u
        if letter in layout:
            at = layout.index(letter)
            grid, layout = np.moveaxis(grid, at, 0), (letter, *layout[:at], *layout[at + 1 :])
        else:
            grid, layout = grid[None], (letter, *layout)
    grid = grid.reshape(*grid.shape[:2], -1)
    return np.broadcast_to(grid, (copies, *grid.shape[1:]))
