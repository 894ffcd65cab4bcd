"""The menu: how a score between the units of two models is read off their moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from permgraph.errors import MatchError, UsageError, nearest
from permgraph.ir.moments import FloatArray, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin, Plan
from permgraph.ir.spec import Group
from permgraph.matching.nested_assignment import align, evidence
from permgraph.matching.probes import DECIDING, choose_probes, decides, families
from permgraph.matching.scores import Row, flat_source, measure, measure_probes
from permgraph.matching.weights import Weights, match_weights


@dataclass(frozen=True)
class Matcher:
    """One row of the menu. `score` is None when the permutations do not depend on the moments; `of_weights` when they
    depend on the weights instead."""

    what: str
    paper: str
    score: Callable[[ProbeMoments], FloatArray] | None = None
    of_weights: bool = False


MATCHERS: dict[str, Matcher] = {
    "correlation": Matcher(
        "Pearson correlation of activations, Eq. 1 of the paper",
        "https://arxiv.org/abs/2506.11403",
        ProbeMoments.correlation,
    ),
    "covariance": Matcher(
        "covariance of activations: strong units weigh more (activation matching of Git Re-Basin)",
        "https://arxiv.org/abs/2209.04836",
        ProbeMoments.covariance,
    ),
    "abs": Matcher(
        "size of the correlation: units that do the opposite are paired too, and averaging cancels those",
        "https://arxiv.org/abs/2305.03053",
        lambda probe: np.abs(probe.correlation()),
    ),
    "weights": Matcher(
        "inner product of weights, without data (weight matching of Git Re-Basin)",
        "https://arxiv.org/abs/2209.04836",
        of_weights=True,
    ),
    "identity": Matcher("every unit stays: plain averaging", "https://arxiv.org/abs/2203.05482"),
    "random": Matcher("a random element of the group: the floor", "https://arxiv.org/abs/2110.06296"),
}


def register(name: str, what: str, paper: str, score: Callable[[ProbeMoments], FloatArray]) -> None:
    """Add a matcher to the menu.

    Args:
        name: what is typed after --matcher.
        what: one sentence for the menu.
        paper: a link to where it is described.
        score: from the moments of one probe to scores, shape (A's units, B's units), larger is better.

    Raises:
        UsageError: the name is taken, or cannot be typed (it holds a colon or a space).
    """
    if name in MATCHERS:
        raise UsageError(f"matcher {name!r} exists: {MATCHERS[name].what}. Choose another name.")
    if not name or set(name) & set(": "):
        raise UsageError(f"matcher {name!r}: a name has neither colons nor spaces.")
    MATCHERS[name] = Matcher(what, paper, score)


def find_matcher(name: str) -> Matcher:
    """The matcher of that name, or the user's own function `file.py:function`. Raises UsageError."""
    if name in MATCHERS:
        return MATCHERS[name]
    if ":" in name:
        from permgraph.frontend.factory import user_function

        return Matcher(f"the function {name}", "", user_function(name))
    raise UsageError(
        f"no matcher {name!r}.{nearest(name, MATCHERS)} There are: {', '.join(MATCHERS)}; or file.py:function."
    )


def match(
    plan: Plan,
    moments: Moments | Weights | None,
    matcher: str = "correlation",
    seed: int = 0,
    deciding: Mapping[str, str] | None = None,
) -> Permutations:
    """The permutations that bring B's units to their partners in A.

    `.report` holds the matcher, the seed and, under "groups" and "probes", a row for each (see `measure`).

    moments    what calibration left, or for "weights" the weights; may be None for "identity" and "random". Without moments
               no correlation is measured
    seed       of "random", of the random starts of "weights" and of the shuffled baseline in the report
    deciding   role of a parent group → role of the groups whose probes decide its order (default DECIDING)

    Raises UsageError for an unknown matcher, MatchError when the moments do not fit the plan.
    """
    if isinstance(moments, Weights):
        return match_passes(plan, [], matcher, seed, deciding, moments)
    return match_passes(plan, [] if moments is None else [moments], matcher, seed, deciding)


def match_passes(
    plan: Plan,
    passes: Iterable[Moments],
    matcher: str = "correlation",
    seed: int = 0,
    deciding: Mapping[str, str] | None = None,
    weights: Weights | None = None,
) -> Permutations:
    """The same from the moments of several passes, each with probes of its own; one is held at a time."""
    row, by = find_matcher(matcher), DECIDING if deciding is None else deciding
    _refuse_other_evidence(matcher, row, weights)
    arrays = without_moments(plan, matcher, seed) if row.score is None else {}
    told: dict[str, Any] = {}
    if weights is not None:
        found, told["weights"] = match_weights(plan, weights, seed)
        arrays |= found
    probes: dict[str, Row] = {}
    opposites: dict[str, list[str]] = {}
    origin = weights.origin if weights else plan.origin
    for number, moments in enumerate(passes):
        refuse_other_moments(plan, moments, probes, origin if number or weights else None)
        origin = moments.origin if moments.origin.plan else plan.origin
        if row.score is not None:
            arrays |= _aligned(plan, moments, row.score, by)
        probes |= measure_probes(plan, Permutations(arrays), moments, seed)
        if matcher == "abs":
            for name, text in _opposites(plan, Permutations(arrays), moments):
                opposites.setdefault(name, []).append(text)
    if row.score is not None and not probes:
        raise MatchError(f"matcher {matcher!r} needs moments. Calibrate first, or use 'identity'.")
    unseen = set(plan.selected) - set(arrays)
    if unseen:
        align(plan.spec, unseen, [])  # says which group has no probe
    perms = Permutations({g.name: arrays[g.name] for g in plan.groups}, origin=origin)
    return reported(plan, perms, probes, {"matcher": matcher, "seed": seed, **told}, by, opposites)


def reported(
    plan: Plan,
    perms: Permutations,
    probes: Mapping[str, Row],
    told: Mapping[str, Any],
    deciding: Mapping[str, str] = DECIDING,
    opposites: Mapping[str, list[str]] | None = None,
) -> Permutations:
    """Permutations with their report: what is told, then a row for every group and for every probe that was measured.

    opposites   group → warnings
    """
    order = {key: i for i, key in enumerate(choose_probes(plan))}
    probes = {key: probes[key] for key in sorted(probes, key=lambda key: (order.get(key, len(order)), key))}
    rows = measure(plan, perms, probes, deciding)
    for name, texts in (opposites or {}).items():
        if name in rows:
            rows[name].setdefault("warnings", []).extend(texts)
    return replace(perms, report={**told, "groups": rows, "probes": probes})


def _refuse_other_evidence(matcher: str, row: Matcher, weights: Weights | None) -> None:
    """Weights where a matcher reads activations, or none where it reads weights. Raises MatchError."""
    if row.of_weights and weights is None:
        raise MatchError(
            f"matcher {matcher!r} compares weights, and moments hold none: give both models (--a and --b; in Python their "
            "state dicts, as a pair)."
        )
    if weights is not None and not row.of_weights:
        raise MatchError(f"matcher {matcher!r} does not read weights: give moments, or use 'weights'.")


def without_moments(plan: Plan, matcher: str = "identity", seed: int = 0) -> dict[str, Any]:
    """Every group in order, or for "random" in a random one."""
    if matcher == "random":
        return dict(random_permutations(plan, seed).arrays)
    return {g.name: _in_order(plan, g) for g in plan.groups}


def refuse_other_moments(
    plan: Plan, moments: Moments, probes: Mapping[str, Row], origin: Origin | None
) -> None:
    """Moments of another plan, of other models than the pass before, or of what was seen already. Raises MatchError."""
    if moments.origin.plan not in ("", plan.digest):
        raise MatchError(
            f"these moments were calibrated for another plan ({moments.origin.plan[:12]}…, this is {plan.digest[:12]}…). "
            "Calibrate again."
        )
    if origin is not None and moments.origin != origin:
        raise MatchError(
            "these moments are of different models: each pass has to be of the same calibration."
        )
    groups = {name for row in probes.values() for name in row["groups"]}
    twice = sorted(groups.intersection(name for p in moments.probes.values() for name in p.layout.groups))
    if twice:
        raise MatchError(
            f"two of these moments hold units of {twice[0]}. Shards are added first, with `permgraph moments merge`; "
            "side by side are the passes of one calibration."
        )


def _opposites(plan: Plan, perms: Permutations, moments: Moments) -> Iterator[tuple[str, str]]:
    """Group, and how many of its units were paired with one that does the opposite."""
    for probe in moments.probes.values():
        layout, corr = probe.layout.groups, probe.correlation()
        count = int((corr[np.arange(len(corr)), flat_source(plan.spec, layout, perms)] < 0).sum())
        text = f"{count:,} of {len(corr):,} units are paired with one that is anti-correlated: averaging cancels them."
        yield from ((name, text) for name in layout if count)


def refuse_few(moments: Moments, least: int) -> None:
    """Refuse moments of fewer frames than `least`. Raises MatchError."""
    for key, probe in moments.probes.items():
        if probe.n < least:
            raise MatchError(
                f"probe {key!r}: {probe.n:,} frames, fewer than --min-frames {least:,}. Calibrate on more data."
            )


def _aligned(
    plan: Plan, moments: Moments, score: Callable[[ProbeMoments], FloatArray], deciding: Mapping[str, str]
) -> dict[str, Any]:
    """Probes that share groups are solved together, others apart: few scores are held at once."""
    chosen = set(plan.selected)
    arrays: dict[str, Any] = {}
    for keys in families({key: probe.layout.groups for key, probe in moments.probes.items()}):
        found = []
        for key in keys:
            probe = moments[key]
            found.append(
                evidence(plan.spec, key, probe.layout.groups, score(probe), probe.dead_a(), probe.dead_b())
            )
        groups = {name for one in found for name in one.layout} & chosen
        if groups:
            layouts = {key: moments[key].layout.groups for key in keys}
            arrays |= align(plan.spec, groups, found, deciding_keys(plan, layouts, deciding))
    return arrays


def deciding_keys(
    plan: Plan, layouts: Mapping[str, tuple[str, ...]], deciding: Mapping[str, str] = DECIDING
) -> dict[str, set[str]]:
    """For each parent group, the probes that reach into a group of the deciding role. `layouts`: of the probes, by key."""
    found: dict[str, set[str]] = {}
    for key, layout in layouts.items():
        for name in layout:
            if decides(plan.spec, plan.spec.by_name[name], layout, deciding):
                found.setdefault(name, set()).add(key)
    return found


def _in_order(plan: Plan, group: Group) -> Any:
    return np.broadcast_to(np.arange(group.size), plan.spec.shape_of(group)).copy()
