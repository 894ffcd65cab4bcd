"""A colour and a line pattern for every kind of group, distinguished by colour-blind readers and in grey print.

The hues are those of Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, then of Paul Tol's muted scheme,
https://personal.sron.nl/~pault/. Hues that are alike in grey have different patterns of dashes.
"""

from __future__ import annotations

from typing import NamedTuple

from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.tables import family, rows


class Ink(NamedTuple):
    """A colour "#rrggbb" and the dashes of its lines, as in SVG ("" is a solid line)."""

    colour: str
    dash: str = ""


# Role → its hue where a network has one kind of groups of the role.
BY_ROLE = {
    "cnn": Ink("#0072B2"),
    "heads": Ink("#D55E00"),
    "heads/qk": Ink("#E69F00"),
    "heads/v": Ink("#CC79A7", "4 1.5"),
    "ffn": Ink("#009E73", "9 1.5"),
    "residual": Ink("#56B4E9", "9 1.5"),
    "embed": Ink("#882255"),
}
_ALL = (*BY_ROLE.values(), Ink("#332288", "4 1.5"), Ink("#999933", "2 1.5"), Ink("#117733", "4 1.5"))
_DASHES = ("6 2 1.5 2", "1.5 2", "10 3")  # once all are used, the hues come again with these
PINNED = "#8C8C8C"
UNKNOWN = "#B00020"
INK = "#222222"
GREY = "#555555"
PALE = "#8A8A8A"  # text that names what the plan leaves in order


def inks(spec: PermSpec) -> dict[str, Ink]:
    """Group → its ink. Groups in one row of the table of groups share it; no two rows do, up to forty."""
    free = _in_order(spec)
    found: dict[str, Ink] = {}
    for row in rows(spec):
        mine: dict[str, Ink] = {}  # role → ink, within this row
        for group in row.groups:
            for member in family(spec, group):
                if member.role not in mine:
                    mine[member.role] = _within(spec, member, mine) or _take(free, BY_ROLE.get(member.role))
                found[member.name] = mine[member.role]
    return found


def _within(spec: PermSpec, group: Group, inks: dict[str, Ink]) -> Ink | None:
    """A paler ink for the only kind of groups that lives within others; None for all other groups."""
    if group.within is None:
        return None
    kinds = {other.role for other in spec.groups if other.within == group.within}
    outer = inks[spec.by_name[group.within].role]
    return Ink(tint(outer.colour, 0.55), outer.dash) if len(kinds) == 1 else None


def _in_order(spec: PermSpec) -> list[Ink]:
    """All inks, those that no role of the network claims first; dashed again once all are used."""
    claimed = {BY_ROLE[group.role] for group in spec.groups if group.role in BY_ROLE}
    first = [ink for ink in _ALL if ink not in claimed] + [ink for ink in _ALL if ink in claimed]
    return first + [Ink(ink.colour, dash) for dash in _DASHES for ink in first]


def _take(free: list[Ink], own: Ink | None) -> Ink:
    ink = own if own in free else free[0]
    if len(free) > 1:  # the last one serves all that remain
        free.remove(ink)
    return ink


def tint(colour: str, share: float) -> str:
    """`colour` mixed with white: share 1 is the colour itself, 0 is white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in parts)
