"""From files to the page, to Model Explorer's JSON, and to figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from permgraph.errors import PlanError, UsageError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.explorer import model_explorer, page
from permgraph.reporting.explorer.model import model
from permgraph.reporting.explorer.results import check_matching, results

FORMATS = ("html", "model-explorer")


@dataclass(frozen=True)
class Subject:
    """What is shown: a network, its groups, and where given a plan, permutations and moments of a matching."""

    trace: Trace
    spec: PermSpec
    plan: Plan | None = None
    perms: Path | None = None
    moments: Path | None = None

    def matching(self) -> tuple[Plan, Permutations, Moments | None]:
        """The files of the matching, checked against the plan. Raises FileError, PlanError."""
        assert self.plan is not None and self.perms is not None
        perms = Permutations.load(self.perms)
        moments = None if self.moments is None else Moments.load(self.moments)
        try:
            check_matching(self.plan, perms, moments)
        except PlanError as error:
            raise PlanError(f"{self.perms}: {error}") from error
        return self.plan, perms, moments


def targets(out: Path, form: str = "html", figures: Path | None = None, moments: bool = False) -> list[Path]:
    """The files that `export` will write. Raises UsageError for an unknown format."""
    from permgraph.reporting.figures.matching import files

    if form not in FORMATS:
        raise UsageError(f"--format {form}: use {' or '.join(FORMATS)}.")
    if form == "model-explorer" and out.suffix == ".html":
        out = out.with_suffix(".json")
    return [out, *(files(figures, moments) if figures is not None else [])]


def export(
    subject: Subject, out: Path, form: str = "html", figures: Path | None = None, force: bool = True
) -> Iterable[Path]:
    """Write the page or the JSON to `out`, and figures of the matching to a folder. Yields what was written.
    `force` replaces files that are there.

    Raises UsageError for an unknown format, FileError and PlanError as reading and writing do.
    """
    out, *_ = targets(out, form)
    if form == "model-explorer":
        data = model_explorer.collection(subject.trace, subject.spec, subject.plan)
        yield model_explorer.write(data, out, force)
        return
    data = model(subject.trace, subject.spec, subject.plan)
    if subject.perms is not None:
        data["results"] = results(*subject.matching())
    yield page.write(data, out, force)
    if figures is not None:
        from permgraph.reporting.figures.matching import draw

        yield from draw(*subject.matching(), figures, force)
