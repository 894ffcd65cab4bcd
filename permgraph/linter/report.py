"""Lint on what a user names: a specification file and a trace or MODEL; rendered, with measured changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from permgraph.errors import PlanError
from permgraph.frontend.model_classes import refuse_class
from permgraph.ir.notebook import html_table, short
from permgraph.ir.spec import Group, PermSpec, Place, Positions
from permgraph.ir.trace import Trace
from permgraph.linter.claims import Claim
from permgraph.linter.foreign import Finding
from permgraph.linter.judge import Lint, lint
from permgraph.linter.notations import read_foreign
from permgraph.reporting.text import clean
from permgraph.symmetry.infer import infer

if TYPE_CHECKING:
    from torch import nn

MEASURED = 16  # unsound groups measured at most: each takes two runs of the network
SHOWN = 20  # findings of one kind that are printed


@dataclass(frozen=True)
class Summary:
    """A lint report as data: how many groups there are, how many keep the function, and every finding."""

    specification: str
    model: str
    notation: str
    groups: int
    kept: int
    sound: bool
    log10_claimed: float
    log10_order: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True, repr=False)
class LintReport:
    """What `permgraph lint` prints. `lint.sound` says whether it found an error."""

    specification: str
    model: str
    lint: Lint

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.lint.findings

    @property
    def summary(self) -> Summary:
        """What `permgraph lint --json` prints."""
        lint = self.lint
        sizes = (round(lint.log10_claimed, 3), round(lint.log10_order, 3))
        counts = (lint.notation, len(lint.verdicts), lint.kept, lint.sound)
        return Summary(self.specification, self.model, *counts, *sizes, self.findings)

    def __repr__(self) -> str:
        verdict = "sound" if self.lint.sound else "not sound"
        return f"LintReport({short(self.specification)!r}: {verdict}, {len(self.findings)} findings)"

    def _repr_html_(self) -> str:
        rows = ((f.severity, f.kind, _line(f)) for f in self.findings)
        return html_table(repr(self), ("severity", "kind", "finding"), rows, len(self.findings))

    def text(self) -> str:
        """A line per finding, kinds together, and a summary."""
        lines = []
        for kind in dict.fromkeys(f.kind for f in self.findings):
            mine = [f for f in self.findings if f.kind == kind]
            lines.append(f"{mine[0].severity}: {kind} ({len(mine)})")
            lines += [f"  {_line(finding)}" for finding in mine[:SHOWN]]
            lines += [f"  … and {len(mine) - SHOWN} more"] if len(mine) > SHOWN else []
        total, kept = len(self.lint.verdicts), self.lint.kept
        verdict = (
            "all keep the function" if kept == total else f"{kept} keep the function, {total - kept} do not"
        )
        lines.append(
            f"{clean(self.specification)} ({self.lint.notation} notation) on {clean(self.model)}: {total} groups, "
            f"{verdict}. They allow 10^{self.lint.log10_claimed:.0f} of 10^{self.lint.log10_order:.0f} orders."
        )
        return "\n".join(lines)


def _line(finding: Finding) -> str:
    head = " ".join(part for part in (finding.group, finding.where) if part)
    change = (
        "" if finding.change is None else f" Measured: the output changes by {finding.change:.1e} (relative)."
    )
    return clean(f"{head}: {finding.text}{change}" if head else f"{finding.text}{change}", 400)


def lint_files(
    specification: str | Path,
    target: Trace | str,
    free_output: bool = False,
    measure: bool = True,
    model_class: str = "",
) -> LintReport:
    """Lint a specification file against a network.

    Args:
        target: a trace, its file (*.json) or a MODEL. Weights are needed to measure, and only a MODEL has them.
        free_output: hold it against the groups that permute the output too.
        measure: let every unsound group move at random and measure the change (at most MEASURED groups).
        model_class: of a MODEL, as in `permgraph.trace`.

    Raises:
        FileError, UsageError, TraceError: as reading, building or tracing do.
    """
    if isinstance(target, str) and Path(target).suffix == ".json" and Path(target).name != "config.json":
        target = Trace.load(target)
    if isinstance(target, Trace):
        refuse_class(model_class, target.model)
        return LintReport(str(specification), target.model, lint_trace(specification, target, free_output))
    from permgraph.frontend.sources import load_source
    from permgraph.verification.inputs import random_inputs
    from permgraph.verification.verdict import with_weights

    source = with_weights(target, model_class)[0] if measure else load_source(target, model_class=model_class)
    trace = source.trace()
    found = lint_trace(specification, trace, free_output)
    if measure and not free_output:
        found = measured(found, source.module, *random_inputs(source, trace))
    return LintReport(str(specification), source.name, found)


def lint_trace(specification: str | Path, trace: Trace, free_output: bool = False) -> Lint:
    """Lint a specification file against a trace."""
    spec = infer(trace, free_output)
    names = {name: t.shape for t in trace.state.values() for name in (t.name, *t.aliases)}
    return lint(read_foreign(specification, names), spec, trace)


def measured(
    found: Lint, module: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Lint:
    """The same, with the first finding about each unsound group carrying how far the output moves."""
    from permgraph.verification.function_check import verify

    unsound = {v.claim for v in found.verdicts if not v.contained}
    claims = {c.name: c for c in found.claims if c.places and c.name in unsound}
    changes = {}
    for name in list(claims)[:MEASURED]:
        try:
            claimed = claim_spec(claims[name], module)
            changes[name] = verify(module, inputs, claimed, kwargs, explain=False).change
        except PlanError:  # its places overlap: there is no such permutation of the weights
            continue
    findings = []
    for finding in found.findings:
        change = changes.pop(finding.group, None) if finding.severity == "error" else None
        findings.append(replace(finding, change=change))
    return replace(found, findings=tuple(findings))


def claim_spec(claim: Claim, module: nn.Module) -> PermSpec:
    """A claim as if it were ours, one group per copy, so that its function check can be made."""
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    groups: list[Group] = []
    places: list[Place] = []
    for copy in range(claim.copies):
        name = f"claim.{copy}"
        mine: dict[tuple[Any, ...], Place] = {}
        for place in claim.places:
            rows = None
            if place.rows is not None:
                rows = Positions.of(np.broadcast_to(place.rows[copy], (claim.size, place.rows.shape[1])))
            units = Positions.of(place.units[copy])
            key = (place.tensor, place.axis, units, rows)
            mine[key] = Place(place.tensor, place.axis, "permute", (name,), units, rows, place.rows_axis)
        groups.append(Group(name, "claim", claim.size, places=tuple(mine.values())))
        places += mine.values()
    return PermSpec("", "", tuple(groups), tuple(places), tensors=shapes).completed()
