"""A scene as SVG. Every text has the length it was measured to have, and the font goes with it.

A viewer that reads neither embedded fonts nor `textLength` uses a font no wider than the one that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from permgraph.reporting.drawing import curves, fonts
from permgraph.reporting.drawing.scene import Curve, Group, Item, Point, Rect, Scene, Text


def svg(scene: Scene) -> str:
    """The document. Equal scenes give equal text."""
    width, height = (_number(size) for size in (scene.width, scene.height))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' font-family="{escape(fonts.STACK)}" role="img">',
            f"<title>{escape(scene.title)}</title>",
            f"<style>{fonts.css()}text{{white-space:pre}}</style>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *(line for item in scene.items for line in _item(item)),
            "</svg>\n",
        ]
    )


def _item(item: Item) -> Iterable[str]:
    if isinstance(item, Group):
        yield "<g>" + (f"<title>{escape(item.tip)}</title>" if item.tip else "")
        yield from (line for inside in item.items for line in _item(inside))
        yield "</g>"
    elif isinstance(item, Text):
        if item.text.strip():
            yield _text(item)
    elif isinstance(item, Rect):
        yield _rect(item)
    else:
        yield from _curve(item)


def _text(text: Text) -> str:
    weight = ' font-weight="700"' if text.bold else ""
    return (
        f'<text x="{_number(text.x)}" y="{_number(text.y)}" font-size="{_number(text.size)}"{weight}'
        f' fill="{text.fill}" textLength="{_number(text.width)}" lengthAdjust="spacingAndGlyphs"'
        f' xml:space="preserve">{escape(text.text)}</text>'
    )


def _rect(rect: Rect) -> str:
    place = f'x="{_number(rect.x)}" y="{_number(rect.y)}" width="{_number(rect.width)}" height="{_number(rect.height)}"'
    radius = f' rx="{_number(rect.radius)}"' if rect.radius else ""
    return f"<rect {place}{radius} {_fill(rect.fill)}{_stroke(rect.stroke, rect.line, rect.dash)}/>"


def _fill(colour: str) -> str:
    """ "#rrggbbaa" as a colour and an opacity: not every viewer reads eight digits."""
    if len(colour) == 9:
        return f'fill="{colour[:7]}" fill-opacity="{_number(int(colour[7:], 16) / 255)}"'
    return f'fill="{colour}"'


def _stroke(colour: str, line: float, dash: str) -> str:
    if colour == "none":
        return ""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f' stroke="{colour}" stroke-width="{_number(line)}"{dashes}'


def _curve(curve: Curve) -> Iterable[str]:
    points = curve.points
    if curve.arrow:
        points, corners = curves.arrow(points, max(3.2, curve.line))
        yield f'<path d="M{"L".join(map(_pair, corners))}Z" fill="{curve.stroke}"/>'
    first, *rest = points
    way = f"M{_pair(first)}" + "".join(
        f"C{_pair(rest[i])} {_pair(rest[i + 1])} {_pair(rest[i + 2])}" for i in range(0, len(rest) - 2, 3)
    )
    yield f'<path d="{way}" fill="none"{_stroke(curve.stroke, curve.line, curve.dash)}/>'


def _pair(point: Point) -> str:
    return f"{_number(point[0])},{_number(point[1])}"


def _number(value: float) -> str:
    """At most two decimals, no trailing zeros, no negative zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
