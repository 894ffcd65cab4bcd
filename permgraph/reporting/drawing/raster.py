"""A scene as PNG or PDF, drawn by the Graphviz that pygraphviz brings: no layout, every position is given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path

import graphviz

from permgraph.reporting.drawing import curves, fonts, graphviz_layout
from permgraph.reporting.drawing.scene import Curve, Group, Item, Rect, Scene, Text

FORMATS = ("png", "pdf")
_FONTCONFIG = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>{folders}<cachedir>{cache}</cachedir></fontconfig>"""
_SYSTEM_FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "/System/Library/Fonts")


def drawn(scene: Scene, form: str, timeout: float = 60) -> bytes:
    """The picture as "png", two pixels for one of the scene, or as "pdf". Raises LayoutError."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fonts.conf"
        needed = (fonts.FOLDER, *(() if _in_our_font(scene) else _SYSTEM_FONTS))
        folders = "".join(f"<dir>{escape(str(path))}</dir>" for path in needed)
        config.write_text(_FONTCONFIG.format(folders=folders, cache=escape(folder)), encoding="utf-8")
        (found,) = graphviz_layout.run(
            [_dot(scene, 144 if form == "png" else 72)],
            form,
            "nop2",  # neato -n2: everything stays where it is
            timeout=timeout,
            environment={"FONTCONFIG_FILE": str(config)},
        )
    return found


def _in_our_font(scene: Scene) -> bool:
    """Whether our font has every character; reading all fonts of a system takes seconds."""
    return all(fonts.has(item.text) for item in _flat(scene.items) if isinstance(item, Text))


def _dot(scene: Scene, dpi: int) -> str:
    """Every item as a node at its place, or as an edge along its way; a point of Graphviz is a pixel."""
    dot = graphviz.Digraph("permgraph")
    dot.attr(dpi=str(dpi), bgcolor="white", pad="0", margin="0", outputorder="nodesfirst", splines="true")
    dot.attr("node", fixedsize="true", margin="0", label="", fontname=fonts.FAMILY)
    frame = Rect(0, 0, scene.width, scene.height, "#ffffff")
    for i, item in enumerate((frame, *_flat(scene.items))):
        if isinstance(item, Rect):
            _rect(dot, f"r{i}", item, scene.height)
        elif isinstance(item, Text):
            _text(dot, f"t{i}", item, scene.height)
        elif isinstance(item, Curve):
            _curve(dot, f"c{i}", item, scene.height)
    return str(dot.source)


def _flat(items: Iterable[Item]) -> Iterable[Item]:
    for item in items:
        if isinstance(item, Group):
            yield from _flat(item.items)
        else:
            yield item


def _at(x: float, y: float, height: float) -> str:
    return f"{x:.2f},{height - y:.2f}"


def _rect(dot: graphviz.Digraph, key: str, rect: Rect, height: float) -> None:
    style = ["filled", *(["rounded"] if rect.radius else []), *(["dashed"] if rect.dash else [])]
    dot.node(
        key,
        shape="ellipse" if rect.radius >= rect.width / 2 else "box",
        style=",".join(style),
        pos=_at(rect.x + rect.width / 2, rect.y + rect.height / 2, height),
        width=f"{rect.width / 72:.4f}",
        height=f"{rect.height / 72:.4f}",
        fillcolor="transparent" if rect.fill == "none" else rect.fill,
        color="transparent" if rect.stroke == "none" else rect.stroke,
        penwidth=f"{rect.line:.2f}",
    )


def _text(dot: graphviz.Digraph, key: str, text: Text, height: float) -> None:
    if not text.text.strip():
        return
    words = escape(text.text).replace(" ", "&#160;")
    words = f"<b>{words}</b>" if text.bold else words
    dot.node(
        key,
        f"<{words}>",
        shape="plaintext",
        fontsize=f"{0.97 * text.size:g}",  # Pango rounds the width of every letter, mostly up
        fontcolor=text.fill,
        pos=_at(text.x + text.width / 2, text.y - 0.35 * text.size, height),
        width=f"{text.width / 72:.4f}",
        height=f"{text.size / 72:.4f}",
    )


def _curve(dot: graphviz.Digraph, key: str, curve: Curve, height: float) -> None:
    """Two points that are not seen, and an edge between them along the curve."""
    ended, (tip, *_) = curves.arrow(curve.points, 1) if curve.arrow else (curve.points, curve.points[-1:])
    points = [(x, height - y) for x, y in ended]
    for end, (x, y) in (("a", points[0]), ("b", points[-1])):
        dot.node(f"{key}{end}", shape="point", style="invis", width="0.01", pos=f"{x:.2f},{y:.2f}")
    way = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    arrow = f"e,{tip[0]:.2f},{height - tip[1]:.2f} " if curve.arrow else ""
    dot.edge(
        f"{key}a",
        f"{key}b",
        pos=arrow + way,
        color=curve.stroke,
        penwidth=f"{curve.line:.2f}",
        style="dashed" if curve.dash else "solid",
        arrowhead="normal" if curve.arrow else "none",
        arrowsize=f"{max(0.65, curve.line / 5):.2f}",
    )
