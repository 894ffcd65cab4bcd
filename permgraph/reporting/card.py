"""The model card of a merged model, and the tables of a matching (the paper's Table II)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from permgraph.inputs.audio_report import used_text
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.reporting.columns import paragraphs, table
from permgraph.reporting.text import clean, code, fold_names, markdown

if TYPE_CHECKING:
    from permgraph.weights.methods import Chosen

_HEAD = ("groups", "units", "moved", "matched", "in place", "shuffled")
_MEASURED = 3  # where correlations begin
_MEANS = (
    "Mean correlation of matched units, beside units left in place and shuffled ones; percent of units moved:"
)


def matching_rows(report: dict[str, Any], by_role: bool = True) -> list[tuple[str, ...]]:
    """One row per role (or group): units, percent moved, mean correlation matched, in place and shuffled."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, row in report.get("groups", {}).items():
        rows.setdefault(row["role"] if by_role else name, []).append(row)
    shown = []
    for label, found in rows.items():
        units = sum(r["units"] for r in found)
        means = [mean_of(found, key) for key in ("moved", "correlation", "identity", "shuffled")]
        moved = "" if means[0] is None else f"{means[0]:.2f} %"
        rest = tuple("" if m is None else f"{m:.3f}" for m in means[1:])
        count = f" ({len(found)})" if len(found) > 1 else ""
        shown.append((f"{clean(label)}{count}", f"{units:,}", moved, *rest))
    return shown


def matching_cells(report: dict[str, Any], by_role: bool = True) -> list[tuple[str, ...]]:
    """The rows under their head, without correlations where none was measured."""
    cells = [_HEAD, *matching_rows(report, by_role)]
    shown = [i for i in range(len(_HEAD)) if i < _MEASURED or any(row[i] for row in cells[1:])]
    return [tuple(row[i] for i in shown) for row in cells]


def mean_of(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Mean weighted by units; None when it was not measured."""
    known = [(r[key], r["units"]) for r in rows if r.get(key) is not None]
    total = sum(n for _, n in known)
    return sum(v * n for v, n in known) / total if total else None


def matching_text(report: dict[str, Any], by_role: bool = True) -> str:
    """The rows as an aligned plain-text table, with the warnings below."""
    rows = text_table(matching_cells(report, by_role), report)
    return "\n".join([rows, *paragraphs(weights_text(report))])


def weights_text(report: dict[str, Any]) -> list[str]:
    """What a matching by weights reached; nothing for one by activations."""
    row = report.get("weights")
    if not row:
        return []
    most = row["most"] or 1.0
    return [
        f"Weights: the inner product of A and the permuted B is {row['objective'] / most:.3f} of the largest that there can "
        f"be, {row['in_place'] / most:.3f} with B in place; the best of {row['starts']} starts, after {len(row['history']) - 1} "
        "passes."
    ]


def text_table(cells: Sequence[tuple[str, ...]], report: dict[str, Any]) -> str:
    """Rows under a head, aligned, with the warnings of a report below; groups with the same one share it."""
    told: dict[str, list[str]] = {}
    for name, row in report.get("groups", {}).items():
        for text in row.get("warnings", ()):
            told.setdefault(text, []).append(name)
    warnings = [f"{clean(', '.join(fold_names(names)))}: {text}" for text, names in told.items()]
    shown = warnings[:10] + ([f"and {len(warnings) - 10} more warnings"] if len(warnings) > 10 else [])
    return "\n".join([*table(cells, right=range(1, len(cells[0]))), *paragraphs(shown)])


def _calibrated(calibration: dict[str, Any]) -> list[str]:
    """What was used to calibrate, not what was named. Reports of an earlier permgraph name the audio only."""
    if sources := calibration.get("sources", {}):
        head = f"- calibration, clips of {calibration.get('seconds', 0):g} s:"
        return [head, *(f"  - {markdown(used_text(name, used), 400)}" for name, used in sources.items())]
    named = ", ".join(calibration.get("data", calibration.get("audio", ()))) or "none"
    return [f"- calibration: {markdown(named, 400)}"]


def model_card(
    a: str,
    b: str,
    plan: Plan,
    perms: Permutations,
    weights: tuple[float, float],
    command: str = "",
    notes: Sequence[str] = (),
    method: Chosen | None = None,
) -> str:
    """README.md of a merged model: how it was made, from what, and how well the units matched."""
    title = f"{weights[0]:g} · {markdown(a)} + {weights[1]:g} · aligned {markdown(b)}"
    done = "averaged"
    if method is not None:
        title = (
            f"{markdown(method.name)} of {weights[0]:g} {markdown(a)}, {weights[1]:g} aligned {markdown(b)}"
        )
        done = f"merged by {markdown(method.text())}"
    how = f"Made by permgraph: the units of the second model were permuted to match the first, then the weights {done}."
    return card_text(title, how, plan, [("", perms.report)], (), command, notes)


def card_text(
    title: str,
    how: str,
    plan: Plan,
    reports: Sequence[tuple[str, dict[str, Any]]],
    said: Sequence[str],
    command: str,
    notes: Sequence[str],
) -> str:
    """A model card from what was made, how, and a matching for each model that was aligned.

    reports   name of the model, "" where there is only one, and the report of its permutations
    said      further lines on the matching
    """
    report = reports[0][1]
    kept = (
        "exact: the permuted B computes what B computed"
        if plan.mode == "exact"
        else f"{plan.mode}, not a symmetry"
    )
    if len(reports) > 1 and plan.mode == "exact":
        kept = "exact: every permuted model computes what it computed"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [model-merging, permgraph]",
        "---",
        "",
        f"# {title}",
        "",
        how,
        "",
        f"- groups: {code(plan.selection)}, mode {kept}",
        f"- matcher: {markdown(str(report.get('matcher', 'none')))}, seed {markdown(str(report.get('seed', 0)))}",
        *_calibrated(report.get("calibration", {})),
        *(f"- {text}" for text in (weights_text(report) if len(reports) == 1 else said)),
        f"- plan digest: `{plan.digest}`",
        *([f"- command: {code(command, 1000)}"] if command else []),
        *(f"- {markdown(note, 300)}" for note in notes),
        "",
        _MEANS
        if any(len(matching_cells(one)[0]) > _MEASURED for _, one in reports)
        else "Percent of units moved:",
        "",
    ]
    for name, one in reports:
        head, *rows = matching_cells(one)
        matched = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        matched += ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
        shown = matched if len(matched) > 2 else ["No group was aligned."]
        if name:
            lines += [f"{name}:", "", *(line for text in weights_text(one) for line in (text, ""))]
        lines += [*shown, ""]
    return "\n".join(lines)
