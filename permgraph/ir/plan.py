"""Plan: for each tensor and axis, what to permute or un-permute."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from permgraph.ir.check_plan import check_plan
from permgraph.ir.files import Document
from permgraph.ir.notebook import html_table, short
from permgraph.ir.spec import Group, PermSpec, Place

Step = Place  # a step of a plan is a place whose layout holds a selected group


@dataclass(frozen=True)
class Origin:
    """What permutations and moments belong to. "" stands for unknown: then nothing is compared.

    plan          digest of the plan
    architecture  fingerprint of the network it was made for
    weights_a, weights_b  fingerprints of the weights of A and B (`permgraph.ir.weights_digest`)
    """

    plan: str = ""
    architecture: str = ""
    weights_a: str = ""
    weights_b: str = ""


UNKNOWN = Origin()


@dataclass(frozen=True, repr=False)
class Plan(Document):
    """What has to happen to the weights so that the selected groups may be re-ordered.

    spec       the groups it was made from (whole: a plan file stands alone)
    selected   names of the groups that move; the others stay in order
    mode       "exact" keeps the function; all others do not
    selection  what was typed
    taps       group → "entering" or "leaving", where the words of the selection say where to observe it
    broken     ties that a mode other than "exact" breaks, in words
    change     largest relative change of the function that was measured for such a mode, if it was
    """

    kind: ClassVar[str] = "plan"
    format: ClassVar[int] = 3
    written_by: ClassVar[str] = "plan"

    spec: PermSpec
    selected: tuple[str, ...]
    mode: str = "exact"
    selection: str = ""
    taps: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    change: float | None = None

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The selected groups, parents before what lives within them."""
        chosen = set(self.selected)
        return tuple(g for g in self.spec.groups if g.name in chosen)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Places that hold a selected group, in graph order."""
        chosen = set(self.selected)
        steps = [p for p in self.spec.places if chosen & set(p.layout)]
        if self.mode == "one-sided":
            steps = [p for p in steps if p.side == "un-permute"]
        return tuple(steps)

    @property
    def fingerprint(self) -> str:
        """Of the architecture the plan was made for."""
        return self.spec.fingerprint

    @property
    def origin(self) -> Origin:
        """The origin of what is made for this plan from weights that are not known."""
        return Origin(self.digest, self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"Plan({short(self.spec.model)!r}, {short(self.selection)!r}: {len(self.groups):,} of "
            f"{len(self.spec.groups):,} elementary groups, {len(self.steps):,} steps, mode {self.mode})"
        )

    def _repr_html_(self) -> str:
        chosen = set(self.selected)
        rows = ((s.side, s, ", ".join(n for n in s.layout if n in chosen)) for s in self.steps)
        return html_table(repr(self), ("side", "tensor and axis", "groups"), rows, len(self.steps))

    def check(self) -> None:
        check_plan(self)
