"""The permutation graph: what is in it, that it folds, that it is laid out, that no name can break out."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest

from permgraph.errors import FileError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.drawing import svg
from permgraph.reporting.drawing.colours import BY_ROLE, of_roles, tint
from permgraph.reporting.drawing.columns import columns, split
from permgraph.reporting.drawing.dot import draw
from permgraph.reporting.drawing.fold import fold
from permgraph.reporting.drawing.graph import build
from permgraph.reporting.drawing.tags import TAG, tagged
from tests.reporting import made

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph:
    trace = made.trace()
    return build(trace, made.spec(trace))


def wire(graph: nx.DiGraph, tail: str, head: str):
    return graph.edges[tail, head]["wire"]


def test_boxes_are_weights_and_joins(graph: nx.DiGraph) -> None:
    kinds = [box.kind for _, box in graph.nodes(data="box")]
    assert {k: kinds.count(k) for k in kinds} == {"input": 1, "weight": 4 + 3 * 8, "join": 3 * 3, "output": 1}
    assert graph.nodes["conv.1"]["box"].detail == "Conv1d 16 → 16, k3, s2"
    assert graph.nodes["conv.1"]["box"].follows == ("gelu",)


def test_wires_carry_the_groups_of_the_weights_at_their_ends(graph: nx.DiGraph) -> None:
    m = "encoder.layers.1"
    assert wire(graph, "conv.0", "conv.1").layouts == {("cnn.0",)}
    assert wire(graph, f"{m}.attention.q_proj", f"{m}.sdpa").layouts == {("heads.1", "heads.1/qk")}
    assert wire(graph, f"{m}.sdpa", f"{m}.attention.out_proj").layouts == {("heads.1", "heads.1/v")}
    assert not wire(graph, f"{m}.add", f"{m}.norm").layouts
    assert wire(graph, f"{m}.add2", f"{m}.last_norm").reasons == ("output",)


def test_marks_stand_where_steps_are(graph: nx.DiGraph) -> None:
    """Each place of a group is at the tail (P) or the head (P⁻¹) of a wire that carries it."""
    m = "encoder.layers.1"
    produced, consumed = (
        wire(graph, f"{m}.attention.q_proj", f"{m}.sdpa"),
        wire(graph, f"{m}.sdpa", f"{m}.attention.out_proj"),
    )
    assert (produced.permute, produced.unpermute) == (True, False)
    assert (consumed.permute, consumed.unpermute) == (False, True)
    for tail, head, w in graph.edges(data="wire"):
        sides = [(p.side, p.layout) for n in (tail, head) for p in graph.nodes[n]["box"].steps]
        assert not w.permute or any(s == "permute" and layout in w.layouts for s, layout in sides)
        assert not w.unpermute or any(s == "un-permute" and layout in w.layouts for s, layout in sides)


def test_a_plan_marks_its_own_steps_only() -> None:
    trace = made.trace()
    spec = made.spec(trace)
    graph = build(trace, spec, Plan(spec, ("ffn.0",)))
    marked = [w.layouts for *_, w in graph.edges(data="wire") if w.permute or w.unpermute]
    assert marked == [{("ffn.0",)}]
    one_sided = build(trace, spec, Plan(spec, ("ffn.0",), "one-sided"))
    assert not any(w.permute for *_, w in one_sided.edges(data="wire"))


def test_folding_keeps_every_group_and_draws_each_layer_once() -> None:
    trace = made.trace(12)
    spec = made.spec(trace, 12)
    whole = build(trace, spec)
    folded = fold(whole, trace, spec)
    assert folded.copies == {"conv.1": 2, "encoder.layers.0": 12}
    assert folded.titles["encoder.layers.0"] == "layers.0-11"

    def carried(graph: nx.DiGraph) -> set[tuple[str, ...]]:
        return {layout for *_, w in graph.edges(data="wire") for layout in w.layouts}

    assert carried(folded.graph) == carried(whole)
    assert len(folded.graph) == len(fold(build(t := made.trace(2), s := made.spec(t, 2)), t, s).graph)


def test_a_layer_that_differs_is_not_folded_away() -> None:
    trace = made.trace(6)
    spec = made.spec(trace, 6)
    folded = fold(build(trace, spec, Plan(spec, ("ffn.2",))), trace, spec)
    assert folded.copies == {"conv.1": 2, "encoder.layers.0": 2, "encoder.layers.3": 3}


def test_columns_hold_every_box_once_and_no_wire_between_them() -> None:
    trace = made.trace(12)
    graph = build(trace, made.spec(trace, 12))
    parts = columns(graph, {})
    assert [name for part in parts for name in part] == list(graph)
    assert len(parts) > 2
    pieces = split(graph, parts)
    assert all(nx.is_weakly_connected(piece) for piece in pieces)
    signs = [box.title for piece in pieces for _, box in piece.nodes(data="box") if box.kind == "sign"]
    assert signs and all(signs.count(sign) >= 2 for sign in signs)


def test_tags_name_each_group(graph: nx.DiGraph) -> None:
    boxes = [box for _, box in tagged(graph).nodes(data="box")]
    named = {layout for box in boxes if box.kind == TAG for layout in box.leaves}
    assert named == {layout for *_, w in graph.edges(data="wire") for layout in w.layouts}


def test_selected_groups_are_strong_and_the_rest_pale() -> None:
    trace = made.trace()
    spec = made.spec(trace)
    dot = draw(trace, spec, Plan(spec, tuple(g.name for g in spec.groups if g.role == "ffn")))
    assert f'color="{BY_ROLE["ffn"]}"'.lower() in dot.lower()
    assert BY_ROLE["cnn"].lower() not in dot.lower()
    assert tint(BY_ROLE["cnn"], 0.3) in dot


def test_every_role_has_its_own_hue() -> None:
    roles = [*BY_ROLE, "slots", "slots/in", "residual/inner"]
    spec = PermSpec("m", "", tuple(Group(f"{r}.0", r, 2) for r in roles), ())
    assert len(set(of_roles(spec).values())) == len(roles)


@pytest.mark.parametrize("unfold", [False, True])
def test_layout_is_well_formed_and_of_a_screen_when_folded(tmp_path: Path, unfold: bool) -> None:
    trace = made.trace(12)
    path = svg.render(draw(trace, made.spec(trace, 12), unfold=unfold), tmp_path / "made.svg")
    root = ElementTree.parse(path).getroot()
    words = [t.text for t in root.iter(f"{SVG}text")]
    assert words.count("q_proj") == (12 if unfold else 1)
    assert {"P", "P⁻¹"} <= set(words)
    assert unfold or {"ffn.0-11", "× 12"} <= set(words)
    width, height = (float(root.attrib[k].removesuffix("pt")) * 4 / 3 for k in ("width", "height"))
    assert unfold or (width <= 1600 and height <= 1100)


def test_columns_stand_in_order(tmp_path: Path) -> None:
    """Also when the first has no clusters: Graphviz would put it last."""
    trace = made.trace(12, prefix="layers")
    dot = draw(trace, made.spec(trace, 12, prefix="layers"), unfold=True)
    root = ElementTree.parse(svg.render(dot, tmp_path / "made.svg")).getroot()
    at: dict[str | None, list[float]] = {}
    for text in root.iter(f"{SVG}text"):
        at.setdefault(text.text, []).append(float(text.attrib["x"]))
    signs = [at[letter] for letter in "ABC"]
    assert all(max(sign) - min(sign) > 100 for sign in signs)
    assert [min(sign) for sign in signs] == sorted(min(sign) for sign in signs)
    assert max(at["audio"]) < min(at["output"])


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


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_nothing_else(name: str, tmp_path: Path) -> None:
    trace = made.trace(1, prefix=name, model=name)
    spec = made.spec(trace, 1, prefix=name)
    spec = replace(spec, pinned=tuple(replace(p, reason=name) for p in spec.pinned))
    path = svg.render(draw(trace, spec, Plan(spec, ("ffn.0",), selection=name)), tmp_path / "made.svg")
    text = path.read_text()
    root = ElementTree.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "title", "a", "text", "path", "polygon", "ellipse", "polyline", "tspan"}
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert not any(k.startswith("on") for e in root.iter() for k in e.attrib)
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 200_000
    if len(name) < 40 and name.isprintable():
        assert name in [t.text for t in root.iter(f"{SVG}text")]


def test_dot_file_is_the_text_itself(tmp_path: Path) -> None:
    assert svg.render("digraph {}", tmp_path / "a.dot").read_text() == "digraph {}"


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot draw a \.bmp\. Use \.svg or \.dot\."):
        svg.render("digraph {}", tmp_path / "a.bmp")


def test_a_layout_that_takes_too_long_leaves_the_dot(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"took more than 0\.001 s\. Wrote .*a\.dot instead"):
        svg.render("digraph {}", tmp_path / "a.svg", timeout=0.001)
    assert (tmp_path / "a.dot").read_text() == "digraph {}"
    assert not (tmp_path / "a.svg").exists()


def test_a_layout_that_fails_leaves_the_dot(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"Graphviz failed: .* Wrote .*a\.dot instead"):
        svg.render("digraph { a -> ", tmp_path / "a.svg")
    assert (tmp_path / "a.dot").exists()


def test_report_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, permgraph.reporting.drawing.dot, permgraph.reporting.drawing.svg, permgraph.reporting.tables\n"
        "print(sorted({'torch', 'transformers', 'pygraphviz'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_graphviz_never_sees_a_name_where_it_has_syntax() -> None:
    """Ids of nodes and clusters are our own, whatever the network calls its modules."""
    trace = made.trace(1, prefix="a;b->c")
    dot = draw(trace, made.spec(trace, 1, prefix="a;b->c"))
    outside = re.sub(r'"(\\.|[^"\\])*"', "", re.sub(r"<(?:[^<>]|<[^<>]*>)*>(?=[ \]\n])", "", dot))
    assert "a;b" not in outside
