"""The permutation graph as DOT: with sizes alone, for the layout, or with texts, for another tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import graphviz
import networkx as nx

from permgraph.reporting.drawing import colours, fonts
from permgraph.reporting.drawing.cards import TITLE, Card, Look
from permgraph.reporting.drawing.facts import carried
from permgraph.reporting.drawing.graph import Box, Wire
from permgraph.reporting.drawing.modules import Caption, Module
from permgraph.reporting.text import clean

BAND = 19  # height of the band above a frame's boxes, for its title


@dataclass(frozen=True)
class Part:
    """What is laid out as one: a column of the drawing, or all of it.

    graph, cards, captions   boxes and wires; the card and the caption of each box
    root                     the frames
    titles                   width to keep for the title of each frame, by path
    """

    graph: nx.DiGraph
    cards: Mapping[str, Card]
    captions: Mapping[str, Caption]
    root: Module
    titles: Mapping[str, float]

    @property
    def ids(self) -> dict[str, str]:
        """Box → its id. Ids are ours: a name from the model never stands where DOT has syntax."""
        return {name: f"n{i}" for i, name in enumerate(self.graph)}

    @property
    def frames(self) -> dict[str, Module]:
        """Id of a cluster → its frame."""
        return {f"cluster_{i}": module for i, module in enumerate(self.root.walk())}


def sizes(part: Part, direction: str) -> str:
    """DOT that says only how large everything is."""
    dot = graphviz.Digraph("permgraph")
    dot.attr(rankdir=direction, nodesep="0.2", ranksep="0.24", pad="0", margin="0")
    dot.attr("node", shape="box", fixedsize="true", label="")
    dot.attr("edge", dir="none")
    ids = part.ids

    def node(dot: graphviz.Digraph, name: str) -> None:
        card = part.cards[name]
        dot.node(ids[name], width=f"{card.width / 72:.4f}", height=f"{card.height / 72:.4f}")

    def frame(dot: graphviz.Digraph, module: Module) -> None:
        table = (
            f'<<table border="0" cellborder="0" fixedsize="true" width="{round(part.titles[module.path])}"'
        )
        dot.attr(label=f'{table} height="{BAND - 4}"><tr><td></td></tr></table>>', labeljust="l", margin="8")

    _nest(dot, part, node, frame)
    _ends(dot, part)
    for tail, head in part.graph.edges:
        dot.edge(ids[tail], ids[head])
    return str(dot.source)


def text(part: Part, look: Look, direction: str) -> str:
    """DOT with titles, groups and colours, for Graphviz or another tool to lay out."""
    dot = graphviz.Digraph("permgraph")
    dot.attr(rankdir=direction, fontname=fonts.FAMILY)
    dot.attr(
        "node",
        shape="box",
        style="rounded,filled",
        fillcolor="white",
        color=colours.PINNED,
        fontsize=str(TITLE),
    )
    ids = part.ids

    def node(dot: graphviz.Digraph, name: str) -> None:
        box: Box = part.graph.nodes[name]["box"]
        caption = part.captions[name]
        times = f" × {caption.count}" if caption.count > 1 else ""
        groups = carried(box.leaves, look.spec) if box.kind == "weight" and box.leaves else ""
        lines = [caption.title + times, box.detail, groups]
        dot.node(ids[name], "\\n".join(_quoted(line) for line in lines if line), color=_colour(box, look))

    def frame(dot: graphviz.Digraph, module: Module) -> None:
        times = f" × {module.count}" if module.count > 1 else ""
        dot.attr(label=_quoted(module.title + times), labeljust="l", color="#C8C8C8")

    _nest(dot, part, node, frame)
    for tail, head, wire in part.graph.edges(data="wire"):
        dot.edge(ids[tail], ids[head], **_line(wire, look))
    return str(dot.source)


def _colour(box: Box, look: Look) -> str:
    makes = sorted(box.leaves or ()) if box.kind == "weight" else []
    return look.inks[makes[0][-1]].colour if makes else colours.PINNED


def _line(wire: Wire, look: Look) -> dict[str, str]:
    strokes = look.strokes(wire.layouts)
    if not strokes:
        return {"color": colours.PINNED}
    return {
        "color": ":".join(ink.colour if strong else colours.tint(ink.colour, 0.4) for ink, strong in strokes),
        "penwidth": "2",
        "tooltip": _quoted(carried(wire.layouts, look.spec)),
    }


Draw = Callable[[graphviz.Digraph, str], None]
Frame = Callable[[graphviz.Digraph, Module], None]


def _nest(dot: graphviz.Digraph, part: Part, node: Draw, frame: Frame) -> None:
    """Nodes in clusters inside clusters, as the frames are."""
    keys = {module.path: key for key, module in part.frames.items()}

    def fill(dot: graphviz.Digraph, module: Module) -> None:
        for name in module.boxes:
            node(dot, name)
        for child in module.inside.values():
            with dot.subgraph(name=keys[child.path]) as cluster:
                frame(cluster, child)
                fill(cluster, child)

    fill(dot, part.root)


def _ends(dot: graphviz.Digraph, part: Part) -> None:
    """Ports at the upper or at the lower edge."""
    for rank, kind in (("source", "into"), ("sink", "out")):
        boxes = [box for _, box in part.graph.nodes(data="box") if box.kind == "port" and box.op == kind]
        if boxes:
            with dot.subgraph() as edge:
                edge.attr(rank=rank)
                for box in boxes:
                    edge.node(part.ids[box.name])


def _quoted(text: str) -> str:
    """Text for a plain DOT attribute, in which Graphviz reads backslashes, quotes and entities."""
    quoted: str = graphviz.nohtml(graphviz.escape(clean(text, 300).replace("&", "&amp;")))
    return quoted
