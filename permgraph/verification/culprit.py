"""Culprit: which groups change the function, and which of their tensors do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Place

RUNS = 200  # of the network, at most

Keeps = Callable[[Plan, Permutations], bool]


@dataclass(frozen=True)
class Culprit:
    """What is wrong with permutations that do not keep the function.

    groups    change the function by themselves; without any one of them it is kept
    tensors   the smallest set of tensors that was found to be wrong
    remedy    what would keep the function, in words

    `groups` and `tensors` are minimal, not always the smallest there are.
    """

    groups: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    remedy: str = ""


def culprit(plan: Plan, perms: Permutations, keeps: Keeps) -> Culprit:
    """Search by running the network (`keeps`) with some groups or tensors moved, at most `RUNS` times.

    Tried in turn: some tensors stay in order; one more axis moves; the units of one axis lie as those of another.
    """
    search, perms = (
        _Search(keeps),
        Permutations(perms.arrays),
    )  # they are tried with other plans than their own
    chosen = [g.name for g in plan.groups if g.name in perms.arrays]
    groups = tuple(search.smallest(chosen, lambda names: not search.keeps(plan, perms.only(names))))
    alone = perms.only(groups)
    moved = list(dict.fromkeys(s.tensor for s in plan.steps if set(groups) & set(s.layout)))
    tensors = tuple(search.smallest(moved, lambda names: search.keeps(without(plan, names), alone)))
    if len(tensors) == 1 and len(moved) > 1:
        return Culprit(groups, tensors, f"{tensors[0]} stays in order")
    for tried, place, remedy in (*_forgotten(plan, groups), *_misplaced(plan, groups)):
        if search.left > 0 and search.keeps(tried, alone):
            return Culprit(groups, (place.tensor,), remedy)
    if len(tensors) < len(moved):
        return Culprit(groups, tensors, f"{', '.join(tensors)} stay in order")
    return Culprit(groups, tensors)


def without(plan: Plan, tensors: Sequence[str]) -> Plan:
    """The plan with all steps on some tensors forgotten."""
    return with_places(plan, [p for p in plan.spec.places if p.tensor not in set(tensors)])


def with_places(plan: Plan, places: Iterable[Place]) -> Plan:
    """The plan with other places. It may no longer keep the function."""
    return replace(plan, spec=replace(plan.spec, places=tuple(places)).completed())


def _forgotten(plan: Plan, groups: Sequence[str]) -> Iterator[tuple[Plan, Place, str]]:
    """Plans that also move an axis which could hold units of the groups: as long as one that they move."""
    steps = _steps(plan, groups)
    taken = {(s.tensor, s.axis) for s in steps}
    tried = set()
    for step in steps:
        size = plan.spec.shapes[step.tensor][step.axis]
        for tensor, shape in plan.spec.shapes.items():
            for axis in (axis for axis, n in enumerate(shape) if n == size and (tensor, axis) not in taken):
                place = replace(step, tensor=tensor, axis=axis, node="")
                if place not in tried:
                    tried.add(place)
                    yield (
                        with_places(plan, (*plan.spec.places, place)),
                        place,
                        f"{tensor}[{axis}] moves too, which the plan forgot",
                    )


def _misplaced(plan: Plan, groups: Sequence[str]) -> Iterator[tuple[Plan, Place, str]]:
    """Plans in which the units of one axis lie where those of another lie."""
    steps = _steps(plan, groups)
    for step in steps:
        size = plan.spec.shapes[step.tensor][step.axis]
        alike = [s for s in steps if s.layout == step.layout and plan.spec.shapes[s.tensor][s.axis] == size]
        for positions in {s.positions: None for s in alike if s.positions != step.positions}:
            place = replace(step, positions=positions)
            yield (
                with_places(plan, (place if p == step else p for p in plan.spec.places)),
                place,
                f"the units of {step.tensor}[{step.axis}] lie as in other places of {step.layout[-1]}",
            )


def _steps(plan: Plan, groups: Sequence[str]) -> list[Place]:
    return [
        s
        for s in plan.steps
        if set(groups) & set(s.layout) and s.rows is None and s.tensor in plan.spec.shapes
    ]


class _Search:
    """Runs that are left, and the search for a minimal part of a list."""

    def __init__(self, keeps: Keeps) -> None:
        self.left = RUNS
        self._keeps = keeps

    def keeps(self, plan: Plan, perms: Permutations) -> bool:
        self.left -= 1
        try:
            return self._keeps(plan, perms)
        except PlanError:  # two steps move one coordinate: no such plan
            return False

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
