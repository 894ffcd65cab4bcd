"""What `permgraph factors` and `permgraph multiply` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.text import clean, fold_names

if TYPE_CHECKING:
    from permgraph.ir.spec import PermSpec
    from permgraph.transformations.checkpoints import FittedFactors
    from permgraph.transformations.transformation import Factor

MEANING = {
    "signs": "each unit may be negated",
    "scales": "each unit may be multiplied by a positive number",
    "rotations": "an orthogonal matrix may be applied to all units of a copy",
}


def factors_text(spec: PermSpec, found: Sequence[Factor], kinds: Sequence[str]) -> str:
    """A row for alike groups that have any, and how many ways of each kind."""
    names = list(dict.fromkeys(factor.group for factor in found))
    if not names:
        return f"No unit of {clean(spec.model)} may be multiplied by anything: {', '.join(kinds)} were looked for."
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        group = spec.by_name[name]
        units = f"{group.copies} x {group.size}" if group.copies > 1 else str(group.size)
        counts = (sum(f.group == name and f.kind == kind for f in found) for kind in kinds)
        alike.setdefault((units, *(str(n) if n else "" for n in counts)), []).append(name)
    rows = [("groups", "units", *kinds)]
    for cells, groups in alike.items():
        rows += [(folded, *cells) for folded in fold_names(groups)]
    said = [f"{kind}: {MEANING[kind]}." for kind in kinds if any(f.kind == kind for f in found)]
    more = [
        "A number above 1 says that there are so many independent ways. `--json` gives the places and exponents."
    ]
    right = tuple(range(1, 2 + len(kinds)))
    return "\n".join([*table(rows, right=right), "", *paragraphs([*said, *more])])


def factors_json(spec: PermSpec, found: Sequence[Factor]) -> dict[str, Any]:
    """The model, and of every factor the group, the kind and the exponents by place."""
    rows = [
        {
            "group": factor.group,
            "kind": factor.kind,
            "places": [
                {"tensor": p.place.tensor, "axis": p.place.axis, "exponents": list(p.exponents)}
                for p in factor.powers
            ],
        }
        for factor in found
    ]
    return {"model": spec.model, "fingerprint": spec.fingerprint, "factors": rows}


def fitted_text(fitted: FittedFactors) -> str:
    """How far B was from A, and is."""
    counts = fitted_json(fitted)["counts"]
    what = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    if not what:
        return "The plan moves no group whose units may be multiplied: B is as it was."
    return "\n".join(
        paragraphs(
            [
                f"Factors fitted: {what}. Distance of the weights they touch, |A - B| / |A|: {fitted.before:.3f} before, "
                f"{fitted.after:.3f} after."
            ]
        )
    )


def fitted_json(fitted: FittedFactors) -> dict[str, Any]:
    """The same for machines."""
    counts: dict[str, int] = {}
    for one in fitted.done:
        counts[one.factor.kind] = counts.get(one.factor.kind, 0) + 1
    return {"counts": counts, "before": fitted.before, "after": fitted.after}
