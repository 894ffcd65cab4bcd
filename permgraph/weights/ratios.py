"""Ratios: how much of A and how much of B, as typed after --weights and --group-weights."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape

from permgraph.errors import MatchError, UsageError
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.planning.selection import refuse_unknown_terms, select
from permgraph.tolerances import PAIR


def parse_weights(text: str) -> list[tuple[float, float]]:
    """`--weights`: "0.9,0.1" is one pair (A, B); "0.9" or "0.9,0.8,0.5" are weights of A, one result each.

    Raises UsageError.
    """
    numbers = _numbers(text, "0.9,0.1 or a list of weights of A")
    if len(numbers) == 2 and abs(sum(numbers) - 1) < PAIR:
        return [(numbers[0], numbers[1])]
    _refuse_outside(text, numbers)
    twice = [n for n in numbers if numbers.count(n) > 1]
    if twice:
        raise UsageError(f"--weights {text}: {twice[0]:g} is given twice, and each weight has one result.")
    return [(n, 1 - n) for n in numbers]


def parse_shares(text: str, count: int) -> tuple[float, ...]:
    """`--weights` of more than two models: one number each, that add up to 1; equal when nothing is typed.

    Raises UsageError.
    """
    if not text:
        return (1 / count,) * count
    found = _numbers(text, "one for each model")
    if len(found) != count:
        raise UsageError(
            f"--weights {text}: {len(found)} for {count} models. Write one for each, or none for equal ones."
        )
    _refuse_outside(text, found)
    if abs(sum(found) - 1) >= PAIR:
        raise UsageError(f"--weights {text}: they add up to {sum(found):g}, not to 1. Divide each by that.")
    return tuple(found)


def _numbers(text: str, instead: str) -> list[float]:
    """The numbers of `--weights`; `instead` says what to write. Raises UsageError."""
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError as error:
            raise UsageError(f"--weights {text}: {part!r} is not a number. Write {instead}.") from error
    return numbers


def _refuse_outside(text: str, numbers: Sequence[float]) -> None:
    wrong = [n for n in numbers if not 0 <= n <= 1]
    if wrong:
        raise UsageError(f"--weights {text}: {wrong[0]:g} is not a weight between 0 and 1.")


def group_weights(plan: Plan, terms: Sequence[str]) -> dict[str, tuple[float, float]]:
    """`--group-weights ffn=0.5`: the weight of A for every tensor that holds units of these groups.

    Returns tensor name → weights (A, B). Raises UsageError, SelectionError.
    """
    weights: dict[str, tuple[float, float]] = {}
    for groups, of_a in parse_group_weights(terms):
        chosen = set(select(plan.spec, groups).names)
        for place in plan.spec.places:
            if chosen & set(place.layout):
                weights |= dict.fromkeys(plan.spec.members(place.tensor), (of_a, 1 - of_a))
    return weights


def matched_weights(
    plan: Plan, perms: Permutations, weights: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """Less of B where its units matched badly: the weight of B of a tensor is w_B · r, r the mean over the groups that lie on it
    of their matched correlation, from 0 to 1. Tensors of no group keep `weights`.

    Returns glob of a tensor's name → weights (A, B), whose sum stays, as `merge` takes them.
    Raises MatchError where the permutations were not matched by activations.
    """
    rows = perms.report.get("groups", {})
    silent = [g.name for g in plan.groups if rows.get(g.name, {}).get("correlation") is None]
    if silent:
        raise MatchError(
            f"matched_weights: no correlation was measured of {silent[0]}. Match by activations, or measure with data."
        )
    on: dict[str, set[str]] = {}
    for place in plan.steps:
        for name in plan.spec.members(place.tensor):
            on.setdefault(name, set()).update(set(place.layout).intersection(plan.selected))
    found = {}
    for tensor, groups in on.items():
        r = sum(min(max(float(rows[name]["correlation"]), 0.0), 1.0) for name in groups) / len(groups)
        of_b = weights[1] * r
        found[escape(tensor)] = (weights[0] + weights[1] - of_b, of_b)
    return found


def parse_group_weights(terms: Sequence[str]) -> list[tuple[str, float]]:
    """Groups as typed, and the weight of A. Raises UsageError, SelectionError, before there is a plan."""
    pairs = []
    for term in terms:
        groups, _, number = term.rpartition("=")
        try:
            of_a = float(number)
        except ValueError as error:
            raise UsageError(f"--group-weights {term}: write GROUPS=WEIGHT, for example ffn=0.5.") from error
        if not groups or not 0 <= of_a <= 1:
            raise UsageError(
                f"--group-weights {term}: write GROUPS=WEIGHT with a weight of A between 0 and 1."
            )
        refuse_unknown_terms(groups, option="--group-weights")
        pairs.append((groups, of_a))
    return pairs
