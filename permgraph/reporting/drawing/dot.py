"""The permutation graph as DOT: modules are clusters, groups are colours, P and P⁻¹ stand at the weights."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import graphviz
import networkx as nx

from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.drawing import colours
from permgraph.reporting.drawing.columns import columns, split
from permgraph.reporting.drawing.fold import Folded, fold
from permgraph.reporting.drawing.graph import Box, Layout, Wire, build
from permgraph.reporting.drawing.legend import legend
from permgraph.reporting.drawing.modules import Module, last_level, tree
from permgraph.reporting.drawing.tags import TAG, tagged
from permgraph.reporting.text import clean, fold_names

FONT = "Helvetica,Arial,DejaVu Sans,sans-serif"
PALE = 0.3  # how much is left of a group's colour when the plan does not move it
_SIGN = {"shape": "circle", "width": "0.26", "height": "0.26", "margin": "0", "fixedsize": "true"}


def draw(trace: Trace, spec: PermSpec, plan: Plan | None = None, unfold: bool = False) -> str:
    """The permutation graph of a network as DOT.

    Args:
        trace, spec: the network and its groups.
        plan: groups it selects are drawn strong and all others pale; without it all are strong.
        unfold: draw every copy of repeated layers instead of one, "× 12".
    """
    graph = build(trace, spec, plan)
    folded = Folded(graph, {}, {}) if unfold else fold(graph, trace, spec)
    parts = split(folded.graph, columns(folded.graph, _folded_home(folded)))
    dot = graphviz.Digraph("permgraph")
    dot.attr(rankdir="TB", nodesep="0.25", ranksep="0.2", bgcolor="white", pad="0.15")
    # Columns hold no wire between them, so Graphviz lays out each alone and packs them in a row.
    dot.attr(pack="24", packmode=f"array_ti{len(parts)}")
    dot.attr(label=legend(spec, plan, colours.of_roles(spec)), labelloc="t", labeljust="l")
    dot.attr(fontname=FONT, fontsize="11", tooltip=_quoted(spec.model))
    dot.attr("node", fontname=FONT, fontsize="11", shape="box", style="rounded,filled", margin="0.13,0.05")
    dot.attr("node", fillcolor="white", color=colours.PINNED, height="0.3")
    dot.attr("edge", fontname=FONT, arrowsize="0.6", labelfontsize="10")
    for i, part in enumerate(parts):
        # A cluster that is not seen: Graphviz packs what has clusters first, and keeps their order.
        with dot.subgraph(name=f"cluster_{i}") as column:
            column.attr(label="", peripheries="0", margin="0")
            _Column(column, tagged(part), i, folded, spec, plan).draw()
    return str(dot.source)


def _folded_home(folded: Folded) -> dict[str, str]:
    """Box → the outermost folded module it is in, if any: a column must not end inside it."""
    home: dict[str, str] = {}
    for name, box in folded.graph.nodes(data="box"):
        found = [path for path in folded.copies if f"{box.module}.".startswith(f"{path}.")]
        if found:
            home[name] = min(found, key=len)
    return home


class _Column:
    """Writes one column of the drawing into `dot`."""

    def __init__(
        self,
        dot: graphviz.Digraph,
        graph: nx.DiGraph,
        number: int,
        folded: Folded,
        spec: PermSpec,
        plan: Plan | None,
    ) -> None:
        self.dot, self.graph, self.number, self.folded, self.spec = dot, graph, number, folded, spec
        self.selected = {g.name for g in spec.groups} if plan is None else set(plan.selected)
        self.hues = colours.of_roles(spec)
        # Ids are ours: a name from the model never stands where DOT has syntax.
        self.ids = {name: f"c{number}n{i}" for i, name in enumerate(graph)}

    def draw(self) -> None:
        boxes = [box for _, box in self.graph.nodes(data="box")]
        root = tree(boxes, self.folded.copies)
        for name in root.boxes:
            self._node(self.dot, name, self._box(name).title)
        for i, module in enumerate(root.inside.values()):
            self._module(self.dot, module, f"{self.number}_{i}")
        for tail, head, wire in self.graph.edges(data="wire"):
            self._wire(self.ids[tail], self.ids[head], wire, self._box(head).kind == TAG)

    def _box(self, name: str) -> Box:
        box: Box = self.graph.nodes[name]["box"]
        return box

    def _module(self, dot: graphviz.Digraph, module: Module, key: str, above: str = "") -> None:
        """A cluster; but a module with one box is that box, and one with one module a longer name for it."""
        title = _dotted(above, self.folded.titles.get(module.path, last_level(module.path)))
        count = self.folded.copies.get(module.path, 1)
        inside = list(module.inside.values())
        if len(module.all_boxes()) == 1:
            (name,) = module.all_boxes()
            self._only(dot, module, name, title)
            return
        if not module.boxes and len(inside) == 1 and count == 1:
            self._module(dot, inside[0], key, title)
            return
        with dot.subgraph(name=f"cluster_{key}") as cluster:
            times = f'  <b><font point-size="12">× {count}</font></b>' if count > 1 else ""
            cluster.attr(label=f'<<font color="#555555">{_html(title)}</font>{times}>', labeljust="l")
            cluster.attr(
                style="rounded,filled", color="#C8C8C8", fillcolor="#00000008", margin="7", peripheries="1"
            )
            cluster.attr(tooltip=_quoted(module.path))
            for name in module.boxes:
                self._node(cluster, name, self._box(name).title)
            for i, child in enumerate(inside):
                self._module(cluster, child, f"{key}_{i}")

    def _only(self, dot: graphviz.Digraph, module: Module, name: str, title: str) -> None:
        box = self._box(name)
        rest = box.module.removeprefix(module.path).strip(".")
        own = box.title if box.kind != "weight" or rest else ""
        count = max(self.folded.copies.get(path, 1) for path in (module.path, box.module))
        self._node(dot, name, _dotted(title, own), count)

    def _node(self, dot: graphviz.Digraph, name: str, title: str, count: int = 1) -> None:
        box, key = self._box(name), self.ids[name]
        tip = _tooltip(_facts(box))
        if box.kind == "sign":
            look = {"fillcolor": "#444444", "fontcolor": "white", "fontsize": "10"}
            dot.node(key, title, tooltip=tip, **_SIGN, **look)
            return
        if box.kind == TAG:
            ink = colours.INK if self._strong(box.leaves or ()) else "#999999"
            text = self._groups(box.leaves or ())
            look = {"shape": "plain", "style": "", "fontsize": "10", "height": "0", "fontcolor": ink}
            dot.node(key, f"<{_html(text)}>", tooltip=_quoted(text), **look)
            return
        if box.kind == "join" and len(box.title) == 1:
            dot.node(key, f"<<b>{_html(box.title)}</b>>", tooltip=tip, fontsize="15", **_SIGN)
            return
        lines = [f"<b>{_html(title)}</b>" + (f"  <b>× {count}</b>" if count > 1 else "")]
        if small := " · ".join(word for word in (box.detail, *box.follows) if word):
            lines.append(f'<font point-size="9" color="#555555">{_html(small)}</font>')
        if box.through and box.steps and box.kind == "weight":
            words = ", ".join(dict.fromkeys(s.tensor.rpartition(".")[2] for s in box.steps))
            lines.append(f'<font point-size="9"><b>P</b> {_html(words)}</font>')
        dot.node(key, f"<{'<br/>'.join(lines)}>", tooltip=tip, **self._look(box))

    def _look(self, box: Box) -> dict[str, str]:
        """Filled with a tint of the group whose units it makes."""
        if box.kind in ("input", "output"):
            return {"style": "filled", "color": "#555555", "fillcolor": "#E4E4E4"}
        if box.kind == "unknown":
            return {"color": colours.UNKNOWN, "style": "rounded,filled,dashed", "penwidth": "1.6"}
        made = sorted(box.leaves or ()) if box.kind == "weight" else []
        if not made:
            return {}
        hue = self.hues[self.spec.by_name[made[0][-1]].role]
        strong = self._strong(made)
        return {
            "color": hue if strong else colours.tint(hue, PALE),
            "fillcolor": colours.tint(hue, 0.22 if strong else 0.07),
        }

    def _wire(self, a: str, b: str, wire: Wire | None, into_tag: bool) -> None:
        if wire is None:
            self.dot.edge(a, b, style="invis")
            return
        if not wire.layouts:
            why = f"pinned by {', '.join(wire.reasons[:3])}" if wire.reasons else "no group lives here"
            self.dot.edge(a, b, color=colours.PINNED, penwidth="1.1", tooltip=_tooltip([why]))
            return
        strong = self._strong(wire.layouts)
        marks = {"taillabel": "P", "labelangle": "50", "labeldistance": "1.5"} if wire.permute else {}
        marks |= {"headlabel": "P⁻¹", "labelangle": "68", "labeldistance": "1.9"} if wire.unpermute else {}
        self.dot.edge(
            a,
            b,
            color=self._stripes(wire.layouts),
            penwidth="2.4" if strong else "1.6",
            labelfontcolor=colours.INK if strong else "#999999",
            arrowhead="none" if into_tag else "normal",
            weight="4",  # keeps tags straight above what they belong to, and the marks clear of them
            tooltip=_tooltip([self._groups(wire.layouts)]),
            **marks,
        )

    def _strong(self, layouts: Iterable[Layout]) -> bool:
        return any(name in self.selected for layout in layouts for name in layout)

    def _groups(self, layouts: Iterable[Layout]) -> str:
        """Names and sizes: "heads.0-11/v  12 × 64"."""
        ordered = sorted(layouts)
        innermost = [n for layout in ordered for n in layout if not self._holds(n, layout)]
        names = ", ".join(fold_names(innermost))
        sizes = (tuple(self.spec.by_name[n].size for n in layout) for layout in ordered)
        return f"{names}  {', '.join(' × '.join(map(str, size)) for size in dict.fromkeys(sizes))}"

    def _holds(self, name: str, layout: Layout) -> bool:
        return any(self.spec.by_name[other].within == name for other in layout)

    def _stripes(self, layouts: Iterable[Layout]) -> str:
        """A line for each role on the wire, side by side; strong when a group of the role is selected."""
        hues: dict[str, bool] = {}
        for name in (n for layout in sorted(layouts) for n in layout):
            hue = self.hues[self.spec.by_name[name].role]
            hues[hue] = hues.get(hue, False) or name in self.selected
        return ":".join(hue if strong else colours.tint(hue, PALE) for hue, strong in hues.items())


def _facts(box: Box) -> Iterable[str]:
    """Lines of a box's tooltip: its module, its tensors, its steps, why it is pinned."""
    yield f"{box.module or box.name}: {box.op}"
    for step in box.steps[:8]:
        yield f"{step.side} {step.tensor}[{step.axis}]: {', '.join(step.layout)}"
    touched = {step.tensor for step in box.steps}
    yield from [t for t in box.tensors if t not in touched][:4]
    for pin in box.pins[:6]:
        yield f"{pin.tensor}[{pin.axis}]: {pin.count} pinned by {pin.reason}"


def _dotted(*parts: str) -> str:
    return ".".join(p for p in parts if p)


def _html(text: str) -> str:
    return escape(clean(text, 60), quote=True)


def _quoted(text: str) -> str:
    """Text for a plain DOT attribute, in which Graphviz reads backslashes, quotes and entities."""
    quoted: str = graphviz.nohtml(graphviz.escape(clean(text, 300).replace("&", "&amp;")))
    return quoted


def _tooltip(lines: Iterable[str]) -> str:
    joined: str = graphviz.nohtml("\\n".join(_quoted(line) for line in lines))
    return joined
