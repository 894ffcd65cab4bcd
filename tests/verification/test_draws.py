"""The draws of the function check generate the group of every place, so that no wrong place passes all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sympy.combinatorics import Permutation, PermutationGroup

from permgraph.ir.check_plan import check_permutations
from permgraph.ir.permutations import random_permutations, source_slots
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Positions
from permgraph.verification.draws import draws

Sizes = dict[str, tuple[int, tuple[str, ...]]]  # group → (size, groups it lives within)

PLAIN: Sizes = {"a": (2, ()), "b": (3, ()), "c": (4, ()), "d": (5, ())}
CROSSING: Sizes = {"a": (2, ()), "b": (2, ()), "c": (3, ())}
NESTED: Sizes = {"a": (2, ()), "b": (2, ("a",)), "c": (3, ("a",))}
DEEP: Sizes = {"a": (2, ()), "b": (3, ("a",)), "c": (2, ("a", "b"))}
UNDER_TWO: Sizes = {"a": (2, ()), "b": (3, ()), "c": (2, ("a", "b"))}
CASES: dict[str, tuple[Sizes, list[tuple[str, ...]]]] = {
    "one group": (PLAIN, [("a",), ("b",), ("c",), ("d",)]),
    "two groups of one place": (CROSSING, [("a", "b"), ("b", "c"), ("c", "a")]),
    "three groups of one place": (CROSSING, [("a", "b", "c")]),
    "a nested group": (NESTED, [("a", "b"), ("a", "c"), ("a",)]),
    "two nested groups of one place": (NESTED, [("a", "b", "c")]),
    "nested twice": (DEEP, [("a", "b", "c"), ("a", "b"), ("a",)]),
    "nested in a crossing": (UNDER_TWO, [("a", "b", "c")]),
}


def plan_of(sizes: Sizes, layouts: list[tuple[str, ...]]) -> Plan:
    places = []
    for i, layout in enumerate(layouts):
        shape = tuple(sizes[name][0] for name in layout)
        positions = Positions.of(np.arange(math.prod(shape)).reshape(*shape, 1))
        places.append(Place(f"t{i}", 0, "permute", layout, positions))
    groups = tuple(
        Group(name, "any", size, within, math.prod(sizes[g][0] for g in within))
        for name, (size, within) in sizes.items()
    )
    return Plan(PermSpec("", "", groups, tuple(places)).completed(), tuple(sizes))


def order_of(sizes: Sizes, layout: tuple[str, ...]) -> int:
    copies = {name: math.prod(sizes[g][0] for g in sizes[name][1]) for name in layout}
    return math.prod(math.factorial(sizes[name][0]) ** copies[name] for name in layout)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", CASES)
def test_the_draws_generate_the_group_of_every_place(case: str, seed: int) -> None:
    sizes, layouts = CASES[case]
    plan = plan_of(sizes, layouts)
    tried = draws(plan, seed)
    for layout in layouts:
        count = math.prod(sizes[name][0] for name in layout)
        numbers = np.arange(count).reshape([sizes[name][0] for name in layout])
        elements = [
            Permutation(numbers[source_slots(plan.spec, list(layout), perms)].ravel().tolist())
            for perms in tried
        ]
        assert PermutationGroup(elements).order() == order_of(sizes, layout), layout


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", CASES)
def test_every_group_moves_in_the_first_two_draws(case: str, seed: int) -> None:
    plan = plan_of(*CASES[case])
    tried = draws(plan, seed)
    for perms in tried:
        check_permutations(plan, perms)
    for group in plan.groups:
        stay = np.arange(group.size)
        assert (tried[0][group.name] != stay).all(), "every unit leaves its place, in every slot"
        assert all((perms[group.name] != stay).any() for perms in tried[:2])


def test_uniformly_random_elements_do_not_generate() -> None:
    """What this replaces: two uniform draws leave a group of two in order a quarter of the time."""
    plan = plan_of({"a": (2, ())}, [("a",)])
    stays = [all((random_permutations(plan, s)["a"] == [0, 1]).all() for s in (i, i + 1)) for i in range(200)]
    assert 0.1 < np.mean(stays) < 0.4
    assert all((draws(plan, seed)[0]["a"] == [1, 0]).all() for seed in range(200))


def test_a_group_of_one_has_nothing_to_try() -> None:
    assert draws(plan_of({"a": (1, ())}, [("a",)])) == []
    assert len(draws(plan_of({"a": (2, ())}, [("a",)]))) == 1
