"""Culprit: which groups change the function, and which of their tensors do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Place

RUNS = 200  # of the network, at most

Keeps = Callable[[Plan, Permutations], bool]


@dataclass(frozen=True)
class Culprit:
    """What is wrong with permutations that do not keep the function.

    groups    change the function by themselves; without any one of them it is kept
    tensors   when they stay in order and the rest of those groups moves, the function is kept; no fewer do
    missing   an axis that the plan forgot, as "tensor[axis]": when it moves too, the function is kept

    `groups` and `tensors` are minimal, not always the smallest there are.
    """

    groups: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    missing: str = ""


def culprit(plan: Plan, perms: Permutations, keeps: Keeps) -> Culprit:
    """Search by running the network (`keeps`) with some groups, tensors or further axes moved, at most `RUNS` times."""
    search = _Search(keeps)
    chosen = [g.name for g in plan.groups if g.name in perms.arrays]
    groups = search.smallest(chosen, lambda names: not search.keeps(plan, perms.only(names)))
    alone = perms.only(groups)
    moved = [s.tensor for s in plan.steps if set(groups) & set(s.layout)]
    tensors = search.smallest(
        list(dict.fromkeys(moved)), lambda names: search.keeps(without(plan, names), alone)
    )
    if len(tensors) > 1:
        for place in _forgotten(plan, groups):
            if search.left > 0 and search.keeps(with_place(plan, place), alone):
                return Culprit(tuple(groups), (place.tensor,), f"{place.tensor}[{place.axis}]")
    return Culprit(tuple(groups), tuple(tensors))


def without(plan: Plan, tensors: Sequence[str]) -> Plan:
    """The plan with all steps on some tensors forgotten."""
    places = tuple(p for p in plan.spec.places if p.tensor not in set(tensors))
    return replace(plan, spec=replace(plan.spec, places=places))


def with_place(plan: Plan, place: Place) -> Plan:
    """The plan with one more step."""
    return replace(plan, spec=replace(plan.spec, places=(*plan.spec.places, place)))


def _forgotten(plan: Plan, groups: Sequence[str]) -> Iterator[Place]:
    """Axes that the groups do not move and that could hold their units: as long as one that they move."""
    steps = [s for s in plan.steps if set(groups) & set(s.layout)]
    taken = {(s.tensor, s.axis) for s in steps}
    seen = set()
    for step in steps:
        shape = plan.spec.tensors.get(step.tensor)
        if shape is None or step.rows is not None:
            continue
        for tensor, other in plan.spec.tensors.items():
            for axis, size in enumerate(other):
                key = (tensor, axis, step.layout, step.positions)
                if size == shape[step.axis] and (tensor, axis) not in taken and key not in seen:
                    seen.add(key)
                    yield replace(step, tensor=tensor, axis=axis)


class _Search:
    """Runs that are left, and the search for a minimal part of a list."""

    def __init__(self, keeps: Keeps) -> None:
        self.left = RUNS
        self._keeps = keeps

    def keeps(self, plan: Plan, perms: Permutations) -> bool:
        self.left -= 1
        return self._keeps(plan, perms)

    def smallest(self, items: list[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
        """A minimal part of `items` for which `holds` is true, as it is for all of them (delta debugging).

        Zeller, Hildebrandt: Simplifying and isolating failure-inducing input, 2002.
        """
        pieces = 2
        while len(items) > 1 and self.left > 0:
            pieces = min(pieces, len(items))
            parts = [items[i * len(items) // pieces : (i + 1) * len(items) // pieces] for i in range(pieces)]
            rests = [[x for x in items if x not in part] for part in parts] if pieces > 2 else []
            smaller = next((part for part in (*parts, *rests) if self.left > 0 and holds(part)), None)
            if smaller is not None:
                pieces = 2 if smaller in parts else pieces - 1
                items = smaller
            elif pieces < len(items):
                pieces = 2 * pieces
            else:
                break
        return items
