"""What `permgraph methods` prints: every matcher and merge method, a row each, with a link to its paper."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from permgraph.reporting.columns import terminal_width, wrapped

TITLES = {
    "matchers": "How units are matched (--matcher)",
    "merge_methods": "How A and the aligned B are merged (merge --method; pg.merge(…, method=…))",
    "corrections": "What is done beside or after the average (permgraph merge)",
}


def menu() -> dict[str, dict[str, dict[str, Any]]]:
    """Menu → name → `what` it does, `paper`; of merge methods also `base`, `extra` and whether it is `installed`."""
    from permgraph.matching.matchers import MATCHERS
    from permgraph.weights.methods import CORRECTIONS, METHODS

    return {
        "matchers": {name: {"what": row.what, "paper": row.paper} for name, row in MATCHERS.items()},
        "merge_methods": {
            name: {
                "what": row.what,
                "paper": row.paper,
                "base": row.base,
                "extra": row.extra,
                "installed": not row.extra or find_spec(row.extra) is not None,
            }
            for name, row in METHODS.items()
        },
        "corrections": {name: {"what": what, "paper": paper} for name, (what, paper) in CORRECTIONS.items()},
    }


def menu_text(width: int | None = None) -> str:
    """The menus, as wide as the terminal: a name and what it does, and below it the link."""
    width = width or terminal_width()
    lines: list[str] = []
    for key, rows in menu().items():
        lines += [*([""] if lines else []), *wrapped(TITLES[key], width), ""]
        space = max(map(len, rows)) + 2
        for name, row in rows.items():
            base = "; needs a base" if row.get("base") else ""
            extra = "" if row.get("installed", True) else f"; needs permgraph[{row['extra']}]"
            first, *more = wrapped(f"{row['what']}{base}{extra}", width - space, "")
            lines += [name.ljust(space) + first, *(" " * space + line for line in (*more, row["paper"]))]
    return "\n".join(line.rstrip() for line in lines)
