"""The bound from above: no exchange of two units outside the inferred group keeps the function.

All sets of axes are too many to try. But where an exchange on a set of axes is a symmetry and the two units are
made equal, the gradient of the function is equal on both, on every axis of the set. So one gradient leaves few
axes, whose subsets are tried on numbers, smallest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from sympy.combinatorics import Permutation, PermutationGroup
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import permgraph as pg
from oracles.numbers import OnNumbers, State
from permgraph.ir.permutations import Permutations
from permgraph.ir.spec import IntArray
from permgraph.planning.gather import Gather, gathers
from permgraph.planning.moves import moves_of

AXES = 7  # of which all subsets are tried
CLOSE = 1e-9
DRAWS = 16  # of weights and inputs on which a symmetry has to hold

Axis = tuple[str, int]
Move = frozenset[tuple[str, int, tuple[int, ...]]]  # axes, and the order they get


def above(module: nn.Module, inputs: tuple[Any, ...], spec: pg.PermSpec, pairs: int = 3) -> list[Move]:
    """Exchanges that keep the function and are not in the group: of two units, on one or several tensors at once.

    A unit is a coordinate, or a block of neighbours, or every n-th coordinate. `pairs` units are exchanged of
    each number of units.
    """
    numbers, generators = OnNumbers(module, inputs), generators_of(spec)
    sizes = {n for t in numbers.state.values() if t.is_floating_point() for n in t.shape if n > 1}
    counts = {u for n in sizes for u in range(2, n + 1) if n % u == 0}
    missing: list[Move] = []
    for count in sorted(counts):
        for i, j in _pairs(count, pairs):
            for strided in (False, True):
                orders = {
                    (k, axis): _exchange(n, count, i, j, strided)
                    for k, t in numbers.state.items()
                    if t.is_floating_point()
                    for axis, n in enumerate(t.shape)
                    if n % count == 0 and n > 1
                }
                for move in _kept(numbers, orders):
                    if (
                        move not in missing
                        and not contained(move, generators)
                        and _keeps(module, inputs, move)
                    ):
                        missing.append(move)
    return missing


def _keeps(module: nn.Module, inputs: tuple[Any, ...], move: Move) -> bool:
    """Whether the exchange keeps the function on other numbers too: on a few inputs an expert may never be chosen."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        drawn = tree_map_only(Tensor, lambda x: _like(x, generator), inputs)
        other = OnNumbers(module, drawn)
        other.state = {k: _like(v, generator) if v.is_floating_point() else v for k, v in other.state.items()}
        other.before = other.outputs(other.state)
        if not other.change(_moved(other.state, move)) <= CLOSE:
            return False
    return True


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other numbers of the same kind; variances stay positive, indices within those that are there."""
    if not x.is_floating_point():
        order = torch.randperm(x.numel(), generator=generator)
        return x.reshape(-1)[order].reshape(x.shape)
    drawn = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return drawn.abs() + 0.1 if bool((x > 0).all()) else drawn


def _pairs(count: int, wanted: int) -> list[tuple[int, int]]:
    found = [(i, i + 1) for i in range(count - 1)] + ([(0, count - 1)] if count > 2 else [])
    return [found[k] for k in sorted({round(x) for x in np.linspace(0, len(found) - 1, wanted)})]


def _exchange(n: int, count: int, i: int, j: int, strided: bool) -> tuple[int, ...]:
    """The order of n coordinates after units i and j of `count` changed places."""
    units = np.arange(n).reshape(-1, count).T if strided else np.arange(n).reshape(count, -1)
    order = np.arange(n)
    order[units[i]], order[units[j]] = units[j], units[i]
    return tuple(order.tolist())


def _moved(state: State, move: Move) -> State:
    state = dict(state)
    for tensor, axis, order in move:
        state[tensor] = state[tensor].index_select(axis, torch.tensor(order))
    return state


def _kept(numbers: OnNumbers, orders: dict[Axis, tuple[int, ...]]) -> Iterator[Move]:
    """Smallest sets of axes on which the exchange keeps the function; an axis that does so alone is not seen."""
    alike = {k: v for k, v in numbers.state.items()}
    for (tensor, axis), order in orders.items():
        mirrored = alike[tensor].index_select(axis, torch.tensor(order))
        alike[tensor] = (alike[tensor] + mirrored) / 2
    gradients = numbers.gradients(alike)
    axes = [a for a, order in orders.items() if _same(gradients.get(a[0]), a[1], order)]
    seen = [(t, a, orders[t, a]) for t, a in axes]
    seen = [m for m in seen if numbers.change(_moved(numbers.state, frozenset([m]))) > CLOSE]
    found: list[Move] = []
    for size in range(2, len(seen) + 1) if len(seen) <= AXES else (len(seen),):
        for move in map(frozenset, combinations(seen, size)):
            if not any(f <= move for f in found) and numbers.change(_moved(numbers.state, move)) <= CLOSE:
                found.append(move)
                yield move


def _same(gradient: Tensor | None, axis: int, order: tuple[int, ...]) -> bool:
    if gradient is None:  # not known, so it may be
        return True
    other = gradient.index_select(axis, torch.tensor(order))
    return bool((gradient - other).abs().max() <= 1e-7 * gradient.abs().max().clamp_min(1e-12))


def generators_of(spec: pg.PermSpec) -> list[list[Gather]]:
    """What the exchange of two neighbours of one group does, in any slot of the groups around it.

    An exchange of whole tensors is none of the moves that are tried, which re-order axes.
    """
    if not spec.groups:
        return []
    plan, found = pg.plan(spec), []
    for group in plan.groups:
        shape = spec.shape_of(group)
        for slot in np.ndindex(*shape[:-1]):
            for i in range(group.size - 1):
                array = np.broadcast_to(np.arange(group.size), shape).copy()
                array[slot][[i, i + 1]] = [i + 1, i]
                moves = moves_of(spec, gathers(plan, Permutations({group.name: array})))
                if all(move.sources == (tensor,) for tensor, move in moves.items()):
                    found.append([step for move in moves.values() for step in move.steps])
    return found


def contained(move: Move, generators: list[list[Gather]]) -> bool:
    """Whether some element of the group does the same on these axes. (Elsewhere it may do what is not seen.)

    The group acts on the coordinates of the axes, one by one for every row where rows have orders of their own.
    """
    rows = {(g.tensor, g.axis): g.index.shape[0] for done in generators for g in done if g.index.ndim > 1}
    axes = {(t, a): np.tile(order, (rows.get((t, a), 1), 1)) for t, a, order in sorted(move)}
    starts = dict(zip(axes, np.cumsum([0, *(order.size for order in axes.values())]).tolist(), strict=False))

    def permutation(found: dict[Axis, IntArray]) -> Permutation:
        parts = []
        for axis, order in axes.items():
            index = np.broadcast_to(found.get(axis, np.arange(order.shape[1])), order.shape)
            parts.append(starts[axis] + np.arange(len(order))[:, None] * order.shape[1] + index)
        return Permutation(np.concatenate([part.ravel() for part in parts]).tolist())

    acting = frozenset(permutation({(g.tensor, g.axis): g.index for g in done}) for done in generators)
    wanted = permutation(axes)
    return wanted in acting or (bool(acting) and bool(_group(acting).contains(wanted)))


@lru_cache(maxsize=16)
def _group(generators: frozenset[Permutation]) -> PermutationGroup:
    """Kept, since many moves on the same axes are asked for, and what sympy works out of a group takes long."""
    return PermutationGroup(sorted(generators, key=lambda p: p.array_form))
