"""One hue per role, told apart by colour-blind readers: the palette of Okabe and Ito (2008).

https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

from permgraph.ir.spec import PermSpec

BY_ROLE = {
    "cnn": "#0072B2",
    "heads": "#D55E00",
    "heads/qk": "#E69F00",
    "heads/v": "#CC79A7",
    "ffn": "#009E73",
    "residual": "#56B4E9",
    "embed": "#8C6D00",
}
_FURTHER = ("#8C6D00", "#5D3A9B", "#AA4499", "#117733", "#882255", "#44AA99", "#332288", "#999933")
PINNED = "#9A9A9A"
UNKNOWN = "#B00020"
INK = "#222222"


def of_roles(spec: PermSpec) -> dict[str, str]:
    """Role → "#rrggbb"; a role without a hue of its own takes the next one that is free."""
    roles = dict.fromkeys(group.role for group in spec.groups)
    taken = {BY_ROLE[role] for role in roles if role in BY_ROLE}
    free = [hue for hue in _FURTHER if hue not in taken]
    others = [role for role in roles if role not in BY_ROLE]
    further = {role: free[i % len(free)] for i, role in enumerate(others)}
    return {role: BY_ROLE.get(role) or further[role] for role in roles}


def tint(colour: str, share: float) -> str:
    """`colour` mixed with white: share 1 is the colour itself, 0 is white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in parts)
