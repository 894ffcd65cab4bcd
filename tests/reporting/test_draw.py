"""The permutation graph: what is in it, that it folds, that it is laid out, that no name can break out."""

from __future__ import annotations

import re
import subprocess
import sys

import networkx as nx
import pytest

from permgraph.errors import UsageError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group as SpecGroup
from permgraph.ir.spec import PermSpec
from permgraph.reporting.drawing import dot
from permgraph.reporting.drawing.cards import Look, card
from permgraph.reporting.drawing.colours import BY_ROLE, INK, PALE, Ink, inks
from permgraph.reporting.drawing.columns import columns, crossings, split
from permgraph.reporting.drawing.fold import fold
from permgraph.reporting.drawing.graph import build
from permgraph.reporting.drawing.part import of_groups, of_layer
from permgraph.reporting.drawing.picture import picture
from permgraph.reporting.drawing.scene import Text
from tests.reporting import made


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
    """Each step of the plan is a mark on the side of its box where the units enter or leave."""
    m = "encoder.layers.1"
    box = {name: box for name, box in graph.nodes(data="box")}
    assert box[f"{m}.attention.q_proj"].gives == {("heads.1", "heads.1/qk")}
    assert box[f"{m}.attention.out_proj"].takes == {("heads.1", "heads.1/v")}
    assert not box[f"{m}.attention.q_proj"].takes and not box[f"{m}.attention.out_proj"].gives
    steps = {(s.side, s.layout) for b in box.values() for s in b.steps}
    marks = {("permute", x) for b in box.values() for x in b.gives}
    assert marks | {("un-permute", x) for b in box.values() for x in b.takes} == steps


def test_a_plan_marks_its_own_steps_only() -> None:
    trace = made.trace()
    spec = made.spec(trace)

    def marked(plan: Plan) -> list[tuple[str, str]]:
        boxes = [box for _, box in build(trace, spec, plan).nodes(data="box")]
        return [(b.title, side) for b in boxes for side in ("takes", "gives") if getattr(b, side)]

    assert marked(Plan(spec, ("ffn.0",))) == [("up", "gives"), ("down", "takes")]
    assert marked(Plan(spec, ("ffn.0",), "one-sided")) == [("down", "takes")]


def test_a_mark_names_the_groups_that_move_and_no_others() -> None:
    """q moves with the order of heads: its channels, which stay, are named behind the mark and pale."""
    trace = made.trace()
    spec = made.spec(trace)
    plan = Plan(spec, ("heads.1", "heads.1/v"))
    look = Look(spec, plan)
    boxes = {name: box for name, box in build(trace, spec, plan).nodes(data="box")}
    q, v, up = (boxes[f"encoder.layers.1.{n}"] for n in ("attention.q_proj", "attention.v_proj", "ffn.up"))
    texts = {b.title: [t for t in card(b, b.title, 1, look).items if isinstance(t, Text)] for b in (q, v, up)}
    assert [t.text for t in texts["q_proj"]][-3:] == ["P", "heads.1", "/qk"]
    assert [t.text for t in texts["v_proj"]][-3:] == ["P", "heads.1", "/v"]
    assert [t.text for t in texts["up"]][-1] == "ffn.1" and "P" not in [t.text for t in texts["up"]]
    ink = {t.text: t.fill for t in texts["q_proj"]}
    assert ink["heads.1"] == INK and ink["/qk"] == PALE


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
    parts = columns(graph, {}, 4)
    assert [name for part in parts for name in part] == list(graph)
    assert len(parts) == 4
    pieces = split(graph, parts)
    assert [n for p in pieces for n, box in p.nodes(data="box") if box.kind != "port"] == list(graph)
    ways = {(out.removeprefix("out "), j) for _, out, j, _, _ in crossings(pieces)}
    home = {name: i for i, part in enumerate(parts) for name in part}
    assert ways == {(a, home[b]) for a, b in graph.edges if home[a] != home[b]}


def test_every_row_of_the_table_has_an_ink_of_its_own() -> None:
    names = [f"{role}.{i}" for i in range(12) for role in ("cnn", "ffn", "residual")]
    sizes = range(2, 2 + len(names))  # all different, so that no two share a row
    groups = [SpecGroup(n, n.rpartition(".")[0], size) for n, size in zip(names, sizes, strict=True)]
    found = inks(PermSpec("m", "", tuple(groups), ()))
    assert len(set(found.values())) == len(groups)
    assert found["cnn.0"] == BY_ROLE["cnn"] and found["ffn.0"] == BY_ROLE["ffn"]


def test_inks_differ_for_a_colour_blind_eye_and_in_grey() -> None:
    """The hues that roles own differ by lightness, or by the dashes of their lines."""

    def grey(ink: Ink) -> float:
        red, green, blue = (int(ink.colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    own = list(BY_ROLE.values())
    for i, a in enumerate(own):
        for b in own[i + 1 :]:
            assert a.dash != b.dash or abs(grey(a) - grey(b)) > 0.05, (a, b)


def test_layers_and_groups_alone() -> None:
    trace = made.trace()
    spec = made.spec(trace)
    graph = build(trace, spec)
    layer = of_layer(graph, "encoder.layers.1")
    inside = {n for n, box in layer.nodes(data="box") if box.kind != "beyond"}
    assert inside == {n for n, box in graph.nodes(data="box") if box.module.startswith("encoder.layers.1")}
    ffn = of_groups(graph, ["ffn.2"])
    assert list(ffn) == ["encoder.layers.2.ffn.up", "encoder.layers.2.ffn.down"]
    with pytest.raises(UsageError, match=r"--layer encoder.layer.1: no module .*Did you mean"):
        of_layer(graph, "encoder.layer.1")


def test_report_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, permgraph.reporting.drawing.render, permgraph.reporting.tables\n"
        "print(sorted({'torch', 'transformers', 'pygraphviz'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["a;b->c", 'quote" ] ; evil [label="x', "back\\", "<b>x</b>", "\\N{a|b}\\l"])
def test_graphviz_never_sees_a_name_where_it_has_syntax(name: str) -> None:
    """Ids of nodes and clusters are our own, whatever the network calls its modules."""
    trace = made.trace(1, prefix=name)
    drawn = picture(trace, made.spec(trace, 1, prefix=name))
    sizes = dot.sizes(drawn._part(drawn.folded.graph, {}), "TB")
    assert not any(part in sizes for part in ("evil", "a;b", "{a|b}", "<b>", "q_proj"))
    outside = re.sub(r'"(\\.|[^"\\])*"', "", drawn.dot())
    assert "a;b" not in outside and "evil" not in outside
