"""The drawing of a permutation graph: what is drawn, in columns that fit a screen, with its legend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx

from permgraph.errors import UsageError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.drawing import colours, dot, facts, fonts, lanes, part, titles
from permgraph.reporting.drawing.cards import TITLE, Look, card
from permgraph.reporting.drawing.columns import columns, crossings, split
from permgraph.reporting.drawing.dot import BAND, Part
from permgraph.reporting.drawing.fold import Folded, fold
from permgraph.reporting.drawing.graph import Box, Wire, build
from permgraph.reporting.drawing.graphviz_layout import Positions, positions
from permgraph.reporting.drawing.legend import legend
from permgraph.reporting.drawing.modules import Module, frames
from permgraph.reporting.drawing.scene import Curve, Group, Item, Point, Rect, Scene, Text, moved
from permgraph.reporting.drawing.siblings import in_order
from permgraph.reporting.text import clean

SCREEN = (1280.0, 800.0)
_MARGIN = 14.0
_STROKES = 4  # lines inside each other on one wire; the cards name all groups
_MANY = 150  # boxes above which only one number of columns is tried


@dataclass(frozen=True)
class Options:
    """How to draw.

    direction   "TB", from the top down in columns, or "LR", from the left to the right
    unfold      draw every copy of repeated layers instead of one, "× 12"
    groups      only the boxes and wires of these groups; all when empty
    layer       only the module of this path and what it is connected to
    """

    direction: str = "TB"
    unfold: bool = False
    groups: tuple[str, ...] = ()
    layer: str = ""

    def __post_init__(self) -> None:
        if self.direction not in ("TB", "LR"):
            raise UsageError(f"direction {self.direction!r}: use TB (top to bottom) or LR (left to right).")


@dataclass(frozen=True)
class Picture:
    """What is to be drawn: a graph, folded or not, and how its groups look."""

    model: str
    folded: Folded
    look: Look
    plan: Plan | None = None
    options: Options = field(default_factory=Options)

    def dot(self) -> str:
        """As DOT with all texts, for another tool."""
        return dot.text(self._part(self.folded.graph, {}), self.look, self.options.direction)

    def scene(self, timeout: float = 60) -> Scene:
        """Laid out for a screen. Raises LayoutError when Graphviz fails or takes more than `timeout` seconds."""
        body = min(self._bodies(timeout), key=_scale)
        head = legend(self.look, self.plan, max(body.width, 640), self._drawn())
        width = max(head.width, body.width) + 2 * _MARGIN
        left = (width - body.width) / 2
        items = [*(moved(i, _MARGIN, _MARGIN) for i in head.items)]
        items += [moved(i, left, head.height + 2 * _MARGIN) for i in body.items]
        return Scene(width, head.height + body.height + 3 * _MARGIN, tuple(items), clean(self.model, 200))

    def _drawn(self) -> set[str] | None:
        """Names of the groups in a drawing of a part; None where all are drawn."""
        if not (self.options.layer or self.options.groups):
            return None
        graph = self.folded.graph
        boxes = [
            (box.enters or frozenset()) | (box.leaves or frozenset()) for _, box in graph.nodes(data="box")
        ]
        wires = [wire.layouts for *_, wire in graph.edges(data="wire")]
        return {name for layouts in (*boxes, *wires) for layout in layouts for name in layout}

    def _counts(self) -> list[int]:
        if self.options.direction == "LR":
            return [1]
        size = len(self.folded.graph)
        return [1, 2, 3, 4, 5] if size <= _MANY else [max(1, min(40, round((size / 8) ** 0.5)))]

    def _part(self, graph: nx.DiGraph, widths: dict[str, float]) -> Part:
        boxes: list[Box] = [box for _, box in graph.nodes(data="box")]
        root, captions = frames(boxes, self.folded.copies, self.folded.titles)
        cards = {b.name: card(b, captions[b.name].title, captions[b.name].count, self.look) for b in boxes}
        needed = {m.path: max(_title_width(m), widths.get(m.path, 0)) for m in root.walk()}
        return Part(graph, cards, captions, root, needed)

    def _bodies(self, timeout: float) -> list[Scene]:
        """The drawing without its legend, in several numbers of columns."""
        graph, home = self.folded.graph, folded_home(self.folded)
        cuts = {len(c): c for c in (columns(graph, home, count) for count in self._counts())}
        ways = [split(graph, parts) for parts in cuts.values()]
        laid = iter(self._laid_out([column for way in ways for column in way], timeout))
        return [self._body(way, [next(laid) for _ in way]) for way in ways]

    def _body(self, parts: list[nx.DiGraph], laid: list[_Column]) -> Scene:
        found = crossings(parts)
        ways = [lanes.Way(i, j, laid[i].at(out), laid[j].at(into)) for i, out, j, into, _ in found]
        offsets, curves = lanes.route(ways, [(c.where.width, c.where.height) for c in laid])
        items: list[Item] = [
            wire_item(wire, curve, self.look, arrow=False)
            for (*_, wire), curve in zip(found, curves, strict=True)
        ]
        for column, (x, y) in zip(laid, offsets, strict=True):
            items += [moved(item, x, y) for item in column.items(self.look)]
        width = offsets[-1][0] + laid[-1].where.width
        lowest = max((y for curve in curves for _, y in curve), default=0.0)
        height = max(offsets[0][1] + max(c.where.height for c in laid), lowest)
        return Scene(width, height, tuple(items))

    def _laid_out(self, graphs: list[nx.DiGraph], timeout: float) -> list[_Column]:
        """Every column laid out; frames whose title a wire would cross are made wider, and laid out again."""
        widths: list[dict[str, float]] = [{} for _ in graphs]
        found = self._columns(graphs, widths, timeout)
        for attempt in (1, 2):
            crossed = [column.crossed() for column in found]
            again = [i for i, modules in enumerate(crossed) if modules]
            if not again or len(self.folded.graph) > _MANY:
                break
            for i in again:
                widths[i] |= {m.path: (attempt + 1) * (_title_width(m) + 16) for m in crossed[i]}
            wider = self._columns([graphs[i] for i in again], [widths[i] for i in again], timeout)
            for i, column in zip(again, wider, strict=True):
                found[i] = column
        return found

    def _columns(
        self, graphs: list[nx.DiGraph], widths: list[dict[str, float]], timeout: float
    ) -> list[_Column]:
        parts = [self._part(graph, known) for graph, known in zip(graphs, widths, strict=True)]
        laid = positions([dot.sizes(column, self.options.direction) for column in parts], timeout)
        return [_Column(column, in_order(column, where)) for column, where in zip(parts, laid, strict=True)]


def picture(
    trace: Trace, spec: PermSpec, plan: Plan | None = None, options: Options | None = None
) -> Picture:
    """The permutation graph of a network, ready to be drawn.

    Args:
        trace, spec: the network and its groups.
        plan: groups it selects are drawn strong and all others pale; without it all are strong.
    """
    options = options or Options()
    graph = build(trace, spec, plan)
    if options.layer:
        graph = part.of_layer(graph, options.layer)
    if options.groups:
        graph = part.of_groups(graph, options.groups)
    folded = Folded(graph, {}, {}) if options.unfold else fold(graph, trace, spec)
    return Picture(trace.model, folded, Look(spec, plan), plan, options)


def _scale(body: Scene) -> float:
    """By how much a drawing has to shrink for a screen; a little is nothing, the fewest columns win then."""
    return max(1.0, body.width / (SCREEN[0] - 40), body.height / (SCREEN[1] - 130))


def _title_width(module: Module) -> float:
    return _title(module, 0, 0)[-1].x + _title(module, 0, 0)[-1].width


def _title(module: Module, x: float, y: float) -> list[Text]:
    name = Text(x, y, fonts.shortened(clean(module.title), TITLE - 1, 260), TITLE - 1, fill=colours.GREY)
    times = [Text(x + name.width + 6, y, f"× {module.count}", TITLE, True)] if module.count > 1 else []
    return [name, *times]


def folded_home(folded: Folded) -> dict[str, str]:
    """Box → the outermost folded module it is in, if any: a column must not end inside it."""
    home: dict[str, str] = {}
    for name, box in folded.graph.nodes(data="box"):
        found = [path for path in folded.copies if f"{box.module}.".startswith(f"{path}.")]
        if found:
            home[name] = min(found, key=len)
    return home


@dataclass(frozen=True)
class _Column:
    """One column, and where everything in it stands."""

    part: Part
    where: Positions

    def at(self, name: str) -> Point:
        return self.where.nodes[self.part.ids[name]]

    def crossed(self) -> list[Module]:
        """Frames whose title has no place that no wire crosses."""
        return [m for key, m in self.part.frames.items() if self._place(key, m) is None]

    def _place(self, key: str, module: Module) -> float | None:
        left, top, right, _ = self.where.frames[key]
        band = (top + 5, top + BAND - 3)
        return titles.place((left + 8, right - 6), band, _title_width(module), self.where.wires.values())

    def items(self, look: Look) -> Iterable[Item]:
        """Frames, then wires, then titles and cards, so that no wire lies over a text."""
        for key, module in self.part.frames.items():
            left, top, right, bottom = self.where.frames[key]
            box = Rect(left, top, right - left, bottom - top, "#0000000A", "#C8C8C8", 1, 6)
            yield Group((box,), clean(module.path, 300))
        names = {key: name for name, key in self.part.ids.items()}
        for (tail, head), curve in self.where.wires.items():
            wire: Wire = self.part.graph.edges[names[tail], names[head]]["wire"]
            ends = [self.part.graph.nodes[names[key]]["box"].kind == "port" for key in (tail, head)]
            begin, end = (
                (self.where.nodes[key],) if port else () for key, port in zip((tail, head), ends, strict=True)
            )
            curve = (*(begin or curve[:1]), *curve[1:-1], *(end or curve[-1:]))
            yield wire_item(wire, curve, look, arrow=not ends[1])
        for key, module in self.part.frames.items():
            yield from self._titled(key, module)
        for name in self.part.graph:
            yield self.part.cards[name].at(*self.at(name), facts.of_box(self.part.graph.nodes[name]["box"]))

    def _titled(self, key: str, module: Module) -> Iterable[Item]:
        """The title where no wire is; where there is no such place, on a ground of its own."""
        left, top, *_ = self.where.frames[key]
        x = self._place(key, module)
        if x is None:
            yield Rect(left + 5, top + 2, _title_width(module) + 6, BAND - 4, "#F5F5F5")
        yield from _title(module, left + 8 if x is None else x, top + 14)


def wire_item(wire: Wire, curve: tuple[Point, ...], look: Look, arrow: bool) -> Group:
    """A wire: a line of the colour of the groups on it; the groups that live within others inside their line."""
    strokes = look.strokes(wire.layouts)[:_STROKES]
    lines = [] if strokes else [Curve(curve, colours.PINNED, 1.1, "", arrow)]
    for i, (ink, strong) in enumerate(strokes):
        outer = len(strokes) - 1 - i  # lines drawn over this one
        colour = ink.colour if strong else colours.tint(ink.colour, 0.42)
        line = (2.2 if strong else 1.5) + (2.4 if len(strokes) < 3 else 1.8) * outer
        lines.append(Curve(curve, colour, line, "" if outer else ink.dash, arrow and i == 0))
    return Group(tuple(lines), facts.of_wire(wire, look.spec))
