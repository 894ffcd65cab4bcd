"""The drawing as a whole: texts fit, no wire crosses one, it is the same everywhere, no name can break out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from permgraph.errors import FileError, UsageError
from permgraph.ir.plan import Plan
from permgraph.reporting.drawing.curves import flattened
from permgraph.reporting.drawing.picture import Options, Picture, picture
from permgraph.reporting.drawing.render import render
from permgraph.reporting.drawing.scene import Curve, Group, Item, Rect, Scene, Text
from permgraph.reporting.drawing.svg import svg
from tests.reporting import made

SVG = "{http://www.w3.org/2000/svg}"


def drawn(layers: int = 12, options: Options | None = None, prefix: str = "encoder.layers") -> Picture:
    trace = made.trace(layers, prefix=prefix)
    spec = made.spec(trace, layers, prefix=prefix)
    return picture(trace, spec, Plan(spec, ("cnn.0", "heads.1", "heads.1/v", "ffn.1")), options)


def flat(items: tuple[Item, ...]) -> list[Item]:
    return [x for i in items for x in (flat(i.items) if isinstance(i, Group) else [i])]


def extent(text: Text) -> tuple[float, float, float, float]:
    return text.x, text.y - 0.76 * text.size, text.x + text.width, text.y + 0.2 * text.size


def faults(scene: Scene) -> list[str]:
    """What a reader would find ugly: texts over each other or outside of the picture, wires over texts."""
    items = flat(scene.items)
    texts = [item for item in items if isinstance(item, Text)]
    found = []
    for a, b in combinations(texts, 2):
        (left, top, right, low), (x, y, x2, y2) = extent(a), extent(b)
        if left < x2 and x < right and top < y2 and y < low:
            found.append(f"{a.text!r} lies on {b.text!r}")
    for text in texts:
        left, top, right, low = extent(text)
        if left < 0 or top < 0 or right > scene.width or low > scene.height:
            found.append(f"{text.text!r} is outside")
        if any(_crosses(curve, (left, top, right, low)) for curve in items if isinstance(curve, Curve)):
            found.append(f"a wire crosses {text.text!r}")
    return found


def _crosses(curve: Curve, box: tuple[float, float, float, float]) -> bool:
    left, top, right, low = box
    for (x0, y0), (x1, y1) in pairwise(flattened(curve.points)):
        for k in range(9):
            x, y = x0 + (x1 - x0) * k / 8, y0 + (y1 - y0) * k / 8
            if left <= x <= right and top <= y <= low:
                return True
    return False


KINDS = [
    Options(),
    Options(unfold=True),
    Options("LR"),
    Options(layer="encoder.layers.1"),
    Options(groups=("ffn.1", "heads.1")),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("options", KINDS, ids=["folded", "unfolded", "LR", "layer", "groups"])
def test_texts_lie_on_nothing_and_nothing_lies_on_them(options: Options) -> None:
    scene = drawn(4, options).scene()
    assert not faults(scene)
    frames = [item for item in flat(scene.items) if isinstance(item, Rect)]
    assert all(r.x >= 0 and r.x + r.width <= scene.width + 0.1 for r in frames)


def test_long_names_fit_too() -> None:
    scene = drawn(3, prefix="a_module_with_a_very_long_name_" * 4 + ".layers").scene()
    assert not faults(scene)
    assert scene.width < 2000


def test_a_wire_over_a_title_is_noticed() -> None:
    scene = drawn(2).scene()
    title = next(item for item in flat(scene.items) if isinstance(item, Text) and item.text == "q_proj")
    x, y = title.x + title.width / 2, title.y - 3
    wire = Curve(((x, y - 30), (x, y - 10), (x, y + 10), (x, y + 30)), "#000000")
    assert "a wire crosses 'q_proj'" in faults(replace(scene, items=(*scene.items, wire)))
    again = replace(title, x=title.x + 3)
    assert "'q_proj' lies on 'q_proj'" in faults(replace(scene, items=(*scene.items, again)))


def test_a_folded_network_is_of_a_screen_and_names_every_group() -> None:
    trace = made.trace(12)
    scene = picture(trace, made.spec(trace, 12)).scene()
    assert scene.width <= 1280 and scene.height <= 800
    words = [item.text for item in flat(scene.items) if isinstance(item, Text)]
    assert {"cnn.0", "cnn.1-2", "heads.0-11", "/qk", "/v", "ffn.0-11", "P", "P⁻¹", "× 12"} <= set(words)


def test_q_k_and_v_stand_in_one_order_in_every_layer() -> None:
    texts = [i for i in flat(drawn(12, Options(unfold=True)).scene().items) if isinstance(i, Text)]
    places = [[t.x for t in texts if t.text == name] for name in ("q_proj", "k_proj", "v_proj")]
    assert len(places[0]) == 12
    assert all(q < k < v for q, k, v in zip(*places, strict=True))


@pytest.mark.slow
def test_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    code = (
        "from tests.reporting.test_picture import drawn\n"
        "from permgraph.reporting.drawing.svg import svg\n"
        "print(svg(drawn(3).scene()), drawn(3).dot())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_every_text_says_how_long_it_is_and_the_picture_scales() -> None:
    root = ElementTree.fromstring(svg(drawn(2).scene()))
    texts = list(root.iter(f"{SVG}text"))
    assert texts and all(float(t.attrib["textLength"]) > 0 for t in texts)
    width, height = root.attrib["width"], root.attrib["height"]
    assert root.attrib["viewBox"] == f"0 0 {width} {height}"
    (style,) = (s.text or "" for s in root.iter(f"{SVG}style"))
    assert style.count("font/woff2;base64,") == 2


HOSTILE = [
    "</title><script>alert(1)</script>",
    "a\x1b[31mred",
    "x" * 10_000,
    "<b>bold</b>",
    "<<table><tr><td>x</td></tr></table>>",
    'quote" ] ; evil [label="x',
    "back\\slash\\",
    "\\N{a|b}\\l",
    "&lt;i&gt; &amp; &#x41;",
    "javascript:alert(1)",
    "a\u202eb\x00c\ud800",
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_nothing_else(name: str) -> None:
    trace = made.trace(1, prefix=name, model=name)
    spec = made.spec(trace, 1, prefix=name)
    spec = replace(spec, pinned=tuple(replace(p, reason=name) for p in spec.pinned))
    text = svg(picture(trace, spec, Plan(spec, ("ffn.0",), selection=name)).scene())
    text.encode()
    root = ElementTree.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "title", "style", "text", "path", "rect"}
    assert not any(k.startswith("on") or k.endswith("href") for e in root.iter() for k in e.attrib)
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 200_000
    if len(name) < 40 and name.isprintable():
        assert name in [t.text for t in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg")])
def test_formats_by_suffix_and_by_option(tmp_path: Path, form: str, start: bytes) -> None:
    small = drawn(1, Options(groups=("ffn.0",)))
    assert render(small, tmp_path / f"a.{form}").read_bytes().startswith(start)
    assert render(small, tmp_path / "b.out", form).read_bytes().startswith(start)


def test_dot_is_text_for_another_tool(tmp_path: Path) -> None:
    text = render(drawn(1), tmp_path / "a.dot").read_text()
    assert text.startswith("digraph") and "q_proj" in text and "heads.0/qk  4 × 6" in text


@pytest.mark.parametrize("name", ["a.bmp", "a"])
def test_an_unknown_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot draw a .* Use svg, png, pdf or dot\."):
        render(drawn(1), tmp_path / name)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(UsageError, match="'up': use TB"):
        Options("up")


def test_a_layout_that_takes_too_long_leaves_the_dot(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"took more than 0\.001 s\. Wrote .*a\.dot instead"):
        render(drawn(1), tmp_path / "a.svg", timeout=0.001)
    assert "q_proj" in (tmp_path / "a.dot").read_text()
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="rsvg-convert (librsvg2-bin) is not here")
def test_rsvg_draws_it(tmp_path: Path) -> None:
    path = render(drawn(1), tmp_path / "a.svg")
    done = subprocess.run(["rsvg-convert", path], capture_output=True, check=True)
    assert done.stdout.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, named, absent",
    [
        (Options(groups=("heads.1", "ffn.1")), ("heads.1   ", "ffn.1   "), ("cnn.", "ffn.0-2")),
        (Options(groups=("ffn.0", "ffn.2")), ("ffn.0,2   ",), ("cnn.", "heads.")),
        (Options(layer="encoder.layers.1"), ("heads.1   ", "ffn.1   "), ("ffn.0-2",)),
        (Options(), ("cnn.", "heads.0-2   ", "ffn.0-2   "), ()),
    ],
)
def test_the_legend_of_a_part_names_what_is_drawn(
    options: Options, named: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    scene = drawn(3, options).scene()
    texts = [item.text for item in flat(scene.items) if isinstance(item, Text) and "   S" in item.text]
    assert all(any(t.startswith(name) for t in texts) for name in named), texts
    assert not any(t.startswith(name) for t in texts for name in absent), texts
    assert not faults(scene)
