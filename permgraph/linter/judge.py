"""Lint: what is wrong with a specification that somebody else wrote, and what it lacks. Needs no weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.linter.claims import Claim, Verdict
from permgraph.linter.containment import contain
from permgraph.linter.foreign import Finding, Foreign, ForeignGroup, resolve


@dataclass(frozen=True)
class Lint:
    """A foreign specification, held against what permgraph inferred.

    notation       how it was written
    claims         its groups, as far as they fit the network
    verdicts       one per claim
    findings       errors group by group, then notes
    log10_claimed  log10 of the number of orders that its sound groups allow
    log10_order    the same for all groups of the network
    """

    notation: str
    claims: tuple[Claim, ...]
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    log10_claimed: float
    log10_order: float

    @property
    def kept(self) -> int:
        """How many of its groups keep the function."""
        wrong = {f.group for f in self.findings if f.severity == "error"}
        return sum(v.contained and v.claim not in wrong for v in self.verdicts)

    @property
    def sound(self) -> bool:
        """No finding is an error."""
        return all(f.severity != "error" for f in self.findings)


def lint(foreign: Foreign, spec: PermSpec, trace: Trace) -> Lint:
    """Check every group of `foreign` on the network of `trace`, whose groups are `spec`.

    A specification whose groups permute the output of the network is to be held against a spec inferred with
    `free_output=True`.
    """
    resolved = [resolve(group, spec) for group in foreign.groups]
    claims = [claim for claim, _ in resolved]
    verdicts = contain(spec, claims)
    named = [place.tensor for group in foreign.groups for place in group.places]
    if named and not any(spec.first_name(name) in spec.tensors for name in named):
        text = f"none of its {len(set(named))} tensors is in the network; the first is {named[0]!r}. Other names?"
        findings = [Finding("unknown tensor", "", "", text)]
    else:
        findings = list(_shared(foreign, claims))
        for group, (claim, misfits), verdict in zip(foreign.groups, resolved, verdicts, strict=True):
            findings += [*misfits, *_repeated(group, spec), *_judged(claim, verdict, misfits, trace)]
    findings += _lacking(spec, verdicts)
    sound = [c for c, v in zip(claims, verdicts, strict=True) if v.contained]
    claimed = sum(c.copies * math.lgamma(c.size + 1) for c in sound) / math.log(10)
    return Lint(foreign.notation, tuple(claims), tuple(verdicts), tuple(findings), claimed, spec.log10_order)


def _judged(claim: Claim, verdict: Verdict, misfits: list[Finding], trace: Trace) -> Iterator[Finding]:
    """Why a claim is not a symmetry, by kind."""
    if verdict.contained or not claim.places:
        return
    if len(claim.places) == 1 and not misfits:
        where = str(claim.places[0])
        why = verdict.why.removeprefix(f"{where}: ")
        text = f"permutes one axis of one tensor and nothing that goes with it: {why}."
        yield Finding("single axis", claim.name, where, text)
        return
    if verdict.reason:
        where, colon, text = verdict.reason.partition(": ")
        yield Finding("not a symmetry", claim.name, where if colon else "", f"{text or where}.")
    known = {misfit.where for misfit in misfits}
    for where in verdict.missing:
        if where in known:
            continue
        tensor = trace.state[where.rpartition("[")[0]]
        if tensor.kind == "buffer":
            text = f"{tensor.name} is a buffer (a running statistic); it has to move with the group."
            yield Finding("forgotten buffer", claim.name, where, text)
        else:
            yield Finding(
                "forgotten tensor", claim.name, where, "has to move with the group, or the function changes."
            )


def _repeated(group: ForeignGroup, spec: PermSpec) -> Iterator[Finding]:
    """Axes that one group names more than once, under one name or under two names of a tied tensor."""
    seen: dict[tuple[str, int, int | None], str] = {}
    for place in group.places:
        key = (spec.first_name(place.tensor), place.axis, place.start)
        before = seen.setdefault(key, place.tensor)
        if before != place.tensor:
            text = f"{before} and {place.tensor} are one tensor under two names: permute it once."
            yield Finding("tied tensor", group.name, str(place), text)
        elif (
            sum(other == place for other in group.places) > 1 and place in group.places[: _last(group, place)]
        ):
            yield Finding("moved twice", group.name, str(place), "the group names this axis twice.")
            return


def _last(group: ForeignGroup, place: object) -> int:
    return max(i for i, other in enumerate(group.places) if other == place)


def _shared(foreign: Foreign, claims: list[Claim]) -> Iterator[Finding]:
    """Coordinates that two groups move. Nested groups overlap by right, and only our notation can write them."""
    if foreign.notation == "permgraph":
        return
    owner: dict[tuple[str, int], tuple[str, set[int]]] = {}
    for claim in claims:
        for place in claim.places:
            key, mine = (place.tensor, place.axis), set(np.unique(place.units).tolist())
            before, taken = owner.setdefault(key, (claim.name, set()))
            if before != claim.name and taken & mine:
                yield Finding("moved twice", claim.name, str(place), f"{before} moves this axis as well.")
            taken |= mine


def _lacking(spec: PermSpec, verdicts: list[Verdict]) -> Iterator[Finding]:
    moved = {name for verdict in verdicts if verdict.contained for name in verdict.groups}
    for group in spec.groups:
        if group.name in moved:
            continue
        copies = f", {group.copies} copies" if group.copies > 1 else ""
        where = str(group.places[0].tensor) + f"[{group.places[0].axis}]" if group.places else ""
        text = f"nothing in the specification moves {group.name} (S{group.size}{copies})."
        yield Finding("lacking", "", where, text, "note")
