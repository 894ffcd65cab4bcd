"""Cards: the boxes of the graph as a reader sees them, measured. A title, what it is, and marks of groups.

    P⁻¹ ▪heads.0-11 ▪/v     un-permute: units of these groups are consumed here
    out_proj
    Linear 768 → 768
    P ▪ffn.0-11             permute: units are produced here

A mark says P only for the groups that the plan moves; names without it tell whose units these are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.reporting.drawing import colours
from permgraph.reporting.drawing.colours import Ink
from permgraph.reporting.drawing.fonts import shortened
from permgraph.reporting.drawing.graph import Box, Layout
from permgraph.reporting.drawing.scene import Group, Item, Rect, Text, moved
from permgraph.reporting.text import clean, fold_names

TITLE, SMALL = 11, 9  # pixels per em
_LINE = {TITLE: 15, SMALL: 12}  # height of a line of text
_PAD, _MOST = 9, 230  # beside the text; widest line
_SWATCH, _GAP = 7, 4


class Look:
    """How the groups of a network are shown: their inks, and which the plan moves."""

    def __init__(self, spec: PermSpec, plan: Plan | None = None) -> None:
        self.spec, self.inks = spec, colours.inks(spec)
        self.selected = set(spec.by_name) if plan is None else set(plan.selected)

    def strong(self, layouts: Iterable[Layout]) -> bool:
        """Whether the plan moves any group of these."""
        return any(name in self.selected for layout in layouts for name in layout)

    def strokes(self, layouts: Iterable[Layout]) -> list[tuple[Ink, bool]]:
        """Inks of the groups on a wire, outer groups first, each with whether the plan moves it."""
        found: dict[Ink, bool] = {}
        for name in (name for layout in sorted(layouts) for name in layout):
            found[self.inks[name]] = found.get(self.inks[name], False) or name in self.selected
        return list(found.items())


@dataclass(frozen=True)
class Card:
    """A box of the drawing: its size, and what is drawn in it, from its upper left corner."""

    width: float
    height: float
    items: tuple[Item, ...]

    def at(self, x: float, y: float, tip: str) -> Group:
        """The card with its centre at (x, y)."""
        left, top = x - self.width / 2, y - self.height / 2
        return Group(tuple(moved(item, left, top) for item in self.items), tip)


def card(box: Box, title: str, count: int, look: Look) -> Card:
    """The card of a box; `count` is of how many equal ones it stands for."""
    if box.kind == "port":
        return Card(1, 1, ())
    if box.kind == "join" and len(box.title) == 1:
        return _sign(box.title)
    times = f"  × {count}" if count > 1 else ""
    above, below = _marks(box, look)
    small = " · ".join(clean(word, 60) for word in (box.detail, *box.follows) if word)
    lines: list[list[Item]] = [
        *above,
        [Text(0, 0, shortened(clean(title), TITLE, _MOST, True) + times, TITLE, True)],
    ]
    if small:
        lines.append([Text(0, 0, shortened(small, SMALL, _MOST), SMALL, fill=colours.GREY)])
    lines += below
    return _stacked(lines, _frame(box, look))


def _sign(sign: str) -> Card:
    """A join of two streams: its sign in a circle."""
    size, text = 19.0, Text(0, 0, sign, 14, True)
    frame = Rect(0, 0, size, size, "#ffffff", colours.PINNED, 1, size / 2)
    return Card(size, size, (frame, replace(text, x=(size - text.width) / 2, y=size / 2 + 5)))


def _stacked(lines: list[list[Item]], frame: Rect) -> Card:
    """Lines of items beneath each other, each in the middle."""
    widths = [_right(line) for line in lines]
    heights = [_LINE[TITLE if any(getattr(i, "size", 0) == TITLE for i in line) else SMALL] for line in lines]
    width = max(widths) + 2 * _PAD
    items: list[Item] = [frame]
    y = 4.0
    for line, wide, high in zip(lines, widths, heights, strict=True):
        items += [moved(item, (width - wide) / 2, y + high - 3.5) for item in line]
        y += high
    items[0] = replace(frame, width=width, height=y + 4)
    return Card(width, y + 4, tuple(items))


def _right(line: list[Item]) -> float:
    return max(item.x + item.width for item in line if isinstance(item, (Text, Rect)))


def _frame(box: Box, look: Look) -> Rect:
    """Filled with a tint of the group whose units it makes."""
    frame = Rect(0, 0, 0, 0, "#ffffff", colours.PINNED, 1, 5)
    if box.kind in ("input", "output"):
        return replace(frame, fill="#E6E6E6", stroke=colours.GREY, radius=0)
    if box.kind == "beyond":
        return replace(frame, dash="3 2")
    if box.kind == "unknown":
        return replace(frame, stroke=colours.UNKNOWN, dash="5 2", line=1.6)
    makes = sorted(box.leaves or ()) if box.kind == "weight" else []
    if not makes:
        return frame
    ink = look.inks[makes[0][-1]]
    if not look.strong(makes):
        return replace(frame, stroke=colours.tint(ink.colour, 0.5))
    return replace(frame, stroke=ink.colour, fill=colours.tint(ink.colour, 0.14), line=1.3)


def _marks(box: Box, look: Look) -> tuple[list[list[Item]], list[list[Item]]]:
    """Lines of marks above and below the title of a box."""
    if box.kind == "unknown" or not (box.steps or box.kind == "weight"):
        return [], []
    if box.through:
        return [], _side("P", box.leaves or (), box.gives, look)
    return _side("P⁻¹", box.enters or (), box.takes, look), _side("P", box.leaves or (), box.gives, look)


def _side(mark: str, layouts: Iterable[Layout], moves: Collection[Layout], look: Look) -> list[list[Item]]:
    """One line for groups nested in one another; marked where a step moves any of them."""
    alike: dict[tuple[Ink, ...], list[Layout]] = {}
    for layout in sorted(layouts):
        alike.setdefault(tuple(look.inks[name] for name in layout), []).append(layout)
    return [_chain(mark, chains, any(chain in moves for chain in chains), look) for chains in alike.values()]


def _chain(mark: str, chains: list[Layout], moves: bool, look: Look) -> list[Item]:
    """ "P ▪heads.0-11 ▪/v": the groups that move, then those that stay, paler and without a mark."""
    columns = list(dict.fromkeys(zip(*chains, strict=True)))
    strong = [names for names in columns if moves and any(name in look.selected for name in names)]
    sign = Text(0, 0, mark, SMALL, True)
    line: list[Item] = [sign] if strong else []
    x = sign.width + _GAP if strong else 0.0
    for names in [*strong, *(names for names in columns if names not in strong)]:
        fill = colours.INK if names in strong else colours.PALE
        text = Text(x + _SWATCH + 3, 0, _names(names, columns, look), SMALL, fill=fill)
        line += [_swatch(x, look.inks[names[0]], names in strong), text]
        x = text.x + text.width + _GAP + 1
    return line


def _swatch(x: float, ink: Ink, strong: bool) -> Rect:
    fill = ink.colour if strong else "#ffffff"
    return Rect(x, -_SWATCH, _SWATCH, _SWATCH, fill, ink.colour, 1, 1)


def _names(names: tuple[str, ...], columns: list[tuple[str, ...]], look: Look) -> str:
    """Names of equal groups of several layers, folded: "ffn.0-11"; "/v" beside the group that it lives within."""
    within = {look.spec.by_name[name].within for name in names}
    folded = ", ".join(fold_names(dict.fromkeys(names)))
    if len(columns) > 1 and any(within <= set(other) for other in columns):
        return f"/{folded.rpartition('/')[2]}"
    return shortened(clean(folded), SMALL, _MOST - 40)
