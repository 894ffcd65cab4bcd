"""What a drawing is made of: texts, rectangles and curves in pixels, y downward. Free of any file format."""

from __future__ import annotations

from dataclasses import dataclass, replace

from permgraph.reporting.drawing import fonts

Point = tuple[float, float]


@dataclass(frozen=True)
class Text:
    """One line of text. `x` is its left end, `y` its base line."""

    x: float
    y: float
    text: str
    size: float = 11
    bold: bool = False
    fill: str = "#222222"

    @property
    def width(self) -> float:
        return fonts.width(self.text, self.size, self.bold)


@dataclass(frozen=True)
class Rect:
    """A rectangle, its corners rounded by `radius`; no fill or no stroke where "none"."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "none"
    stroke: str = "none"
    line: float = 1
    radius: float = 0
    dash: str = ""


@dataclass(frozen=True)
class Curve:
    """A chain of cubic Bézier curves: a point, then three for each curve."""

    points: tuple[Point, ...]
    stroke: str
    line: float = 1
    dash: str = ""
    arrow: bool = False


@dataclass(frozen=True)
class Group:
    """Items that belong together, with a text that is shown on hovering."""

    items: tuple[Item, ...]
    tip: str = ""


Item = Text | Rect | Curve | Group


@dataclass(frozen=True)
class Scene:
    """A drawing of a size."""

    width: float
    height: float
    items: tuple[Item, ...]
    title: str = ""


def moved(item: Item, dx: float, dy: float) -> Item:
    """The item, shifted."""
    if isinstance(item, Group):
        return replace(item, items=tuple(moved(inside, dx, dy) for inside in item.items))
    if isinstance(item, Curve):
        return replace(item, points=tuple((x + dx, y + dy) for x, y in item.points))
    return replace(item, x=item.x + dx, y=item.y + dy)
