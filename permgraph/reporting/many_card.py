"""The model card of several models merged into one, and what is printed of their matching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.reporting.card import card_text, matching_text
from permgraph.reporting.text import clean, markdown

SAID = {
    "first": "each matched with the first alone",
    "many": "each matched with the mean of all others, in turn",
    "universe": "matched by all pairs at once",
}


def many_card(
    names: Sequence[str],
    plan: Plan,
    perms: Sequence[Permutations],
    weights: Sequence[float],
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """README.md of a model merged from several: how it was made, from what, and how well the units of each matched.

    perms   of each but the first
    """
    shares = [f"{weights[0]:g} · {markdown(names[0])}"]
    shares += [f"{w:g} · aligned {markdown(n)}" for w, n in zip(weights[1:], names[1:], strict=True)]
    how = (
        "Made by permgraph: the units of all others were permuted to match the first model's, then the weights of all "
        "averaged."
    )
    return card_text(
        " + ".join(shares),
        how,
        plan,
        [(markdown(name), one.report) for name, one in zip(names[1:], perms, strict=True)],
        [all_pairs_text(perms[0].report)],
        command,
        notes,
    )


def all_pairs_text(report: dict[str, Any]) -> str:
    """What the matching of several networks reached, over all pairs."""
    row = report.get("many")
    if not row:
        return f"Alignment: {SAID['first']}."
    most = row.get("most")
    scale, unit = (most or 1.0, "of the largest that there can be") if "most" in row else (1.0, "per unit")
    return (
        f"Alignment: {SAID.get(row['way'], row['way'])}. Over all pairs of the {row['models']} models the score is "
        f"{row['objective'] / scale:.3f} {unit}, {row['first'] / scale:.3f} with each matched with the first alone and "
        f"{row['in_place'] / scale:.3f} in place; the best of {row['starts']} starts."
    )


def many_text(names: Sequence[str], perms: Sequence[Permutations]) -> Iterator[str]:
    """What is printed: a table for each model but the first, and a sentence on all."""
    for name, one in zip(names[1:], perms, strict=True):
        yield f"{clean(name)} to {clean(names[0])}:\n{matching_text(one.report)}\n"
    yield all_pairs_text(perms[0].report)
