"""Draws: the permutations that a function check tries, chosen so that nothing can hide from all of them.

A uniformly random permutation of two units is the identity half of the time, and then a wrong plan passes. So the
permutations are built instead:

    draw 0    every group moves in every slot, by a random cycle through all its units
    draw 1    every group exchanges two neighbours of that cycle (a nested group in one slot only)
    draw 2 …  groups that share a place move one without the other

A cycle and an exchange of two neighbours in it generate the symmetric group. The elements of a group that a wrong
place treats rightly form a subgroup. So where the draws generate the group of every place, a wrong place is
wrong in at least one draw. tests/verification/test_draws.py computes the generated groups.

What takes the first of equal values is no such function: which draw shows it hangs on the values, and so there are
further ones, of random elements.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import IntArray


def draws(plan: Plan, seed: int = 0, more: int = 0) -> list[Permutations]:
    """The permutations to try, the same for the same seed, with `more` random ones. Empty when no group can move."""
    rng = np.random.default_rng(seed)
    shapes = {g.name: plan.spec.shape_of(g) for g in plan.groups}
    cycles = {name: _cycles(shape, rng) for name, shape in shapes.items()}
    exchanges = {name: _exchange(cycle, rng) for name, cycle in cycles.items()}
    colours = _colours(plan)
    alone = [
        {name: exchanges[name] for name, own in colours.items() if own == colour}
        for colour in range(max(colours.values(), default=0))
    ]
    tried: list[Permutations] = []
    further = [{name: _random(shape, rng) for name, shape in shapes.items()} for _ in range(more)]
    for arrays in (cycles, exchanges, *alone, *further):
        new = not any(_equal(arrays, old.arrays) for old in tried)
        if new and any(array.shape[-1] > 1 for array in arrays.values()):
            tried.append(Permutations(arrays))
    return tried


def _cycles(shape: tuple[int, ...], rng: Generator) -> IntArray:
    """One cycle through all units, at random, for every slot."""
    order = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    cycles = np.empty(shape, dtype=np.int64)
    np.put_along_axis(cycles, order, np.roll(order, 1, axis=-1), axis=-1)
    return cycles


def _random(shape: tuple[int, ...], rng: Generator) -> IntArray:
    return np.asarray(rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1), dtype=np.int64)


def _exchange(cycles: IntArray, rng: Generator) -> IntArray:
    """A unit and the next of its cycle change places, in one slot; the other slots stay in order."""
    exchange: IntArray = np.broadcast_to(np.arange(cycles.shape[-1]), cycles.shape).copy()
    slot = tuple(int(rng.integers(n)) for n in cycles.shape[:-1])
    one = int(rng.integers(cycles.shape[-1]))
    other = int(cycles[slot][one])
    exchange[slot][[one, other]] = other, one
    return exchange


def _colours(plan: Plan) -> dict[str, int]:
    """Group → colour, so that groups of one place have different colours; as few as a greedy choice needs."""
    meet: dict[str, set[str]] = {g.name: set() for g in plan.groups}
    for layout in {step.layout for step in plan.steps}:
        chosen = [name for name in layout if name in meet]
        for name in chosen:
            meet[name].update(chosen)
    colours: dict[str, int] = {}
    for name, others in meet.items():
        taken = {colours[other] for other in others if other in colours}
        colours[name] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours


def _equal(one: dict[str, IntArray], other: dict[str, IntArray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
