"""The bound from above: no exchange of two units outside the inferred group keeps the function.

All sets of axes are too many to try. But where an exchange on a set of axes is a symmetry and the two units are
made equal, the gradient of the function is equal on both, on every axis of the set. So one gradient leaves few
axes; and an axis whose units then stay different takes the equality from those of its own set, which tells the sets
apart. What they tell is tried on numbers; where few axes are left, so are all their subsets, smallest first.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


def above(
    module: nn.Module,
    inputs: tuple[Any, ...],
    spec: pg.PermSpec,
    pairs: int = 3,
    kwargs: Mapping[str, Any] | None = None,
) -> list[Move]:
    """Exchanges that keep the function and are not in the group: of two units, on one or several tensors at once.

    A unit is a coordinate, or a block of neighbours, or every n-th coordinate. `pairs` units are exchanged of
    each number of units. Raises ArithmeticError where an output is not finite, on these numbers or on all others.
    """
    numbers, generators = OnNumbers(module, inputs, kwargs), generators_of(spec)
    if not bool(numbers.before.isfinite().all()):
        raise ArithmeticError("an output is infinite, so no change of it can be measured")
    sizes = {n for t in numbers.state.values() if t.is_floating_point() for n in t.shape if n > 1}
    counts = {u for n in sizes for u in range(2, n + 1) if n % u == 0}
    missing: list[Move] = []
    for count in sorted(counts):
        for i, j in _pairs(count, pairs):
            blocks, strided = (_orders(numbers, count, i, j, strided) for strided in (False, True))
            for orders in (blocks, strided) if blocks != strided else (blocks,):
                for move in _kept(numbers, orders):
                    if move not in missing and not contained(move, generators) and _keeps(numbers, move):
                        missing.append(move)
    return missing


def _keeps(numbers: OnNumbers, move: Move) -> bool:
    """Whether the exchange keeps the function on other numbers too: on a few inputs an expert may never be chosen."""
    generator = torch.Generator().manual_seed(0)
    draws = 0
    for spread in (1.0, 0.3, 0.1):  # a deep network on wide numbers may be no number any more
        for _ in range(DRAWS):
            other = copy.copy(numbers)
            other.inputs, other.kwargs = tree_map_only(
                Tensor, lambda x: _like(x, generator), (numbers.inputs, numbers.kwargs)
            )
            other.state = {
                k: numbers.state[k] + spread * (_like(v, generator) - v) if v.is_floating_point() else v
                for k, v in numbers.state.items()
            }
            other.before = other.outputs(other.state)
            if not bool(other.before.isfinite().all()):
                continue
            draws += 1
            if not other.change(_moved(other.state, move)) <= CLOSE:
                return False
        if draws >= DRAWS:
            return True
    raise ArithmeticError("no finite outputs on random numbers")


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


def _orders(numbers: OnNumbers, count: int, i: int, j: int, strided: bool) -> dict[Axis, tuple[int, ...]]:
    """The exchange of units i and j of `count`, on every axis that has as many."""
    return {
        (k, axis): _exchange(n, count, i, j, strided)
        for k, t in numbers.state.items()
        if t.is_floating_point() and k not in numbers.ties
        for axis, n in enumerate(t.shape)
        if n % count == 0 and n > 1
    }


def _kept(numbers: OnNumbers, orders: dict[Axis, tuple[int, ...]]) -> Iterator[Move]:
    """Sets of two axes or more on which the exchange keeps the function, none in another."""

    def kept(axes: Iterable[Axis]) -> bool:
        move = frozenset((*axis, orders[axis]) for axis in axes)
        return numbers.change(_moved(numbers.state, move)) <= CLOSE

    # Nothing depends on an axis that may move by itself: a key's bias, which the softmax takes away.
    orders = {axis: order for axis, order in orders.items() if not kept([axis])}
    seen, left = orders, _equal(numbers, orders)
    while len(left) < len(seen):  # equal only because others that are not were made alike too
        seen = {axis: orders[axis] for axis in left}
        left = _equal(numbers, seen)
    found: list[frozenset[Axis]] = []
    rest = set(seen)
    for together in _holding_together(numbers, seen):
        if kept(together):
            found.append(together)
            rest -= together
    for axes in _subsets(rest) if len(rest) <= AXES else [frozenset(rest)]:
        if not any(f <= axes for f in found) and kept(axes):
            found.append(axes)
    for axes in found:
        yield frozenset((*axis, orders[axis]) for axis in axes)


def _holding_together(numbers: OnNumbers, orders: dict[Axis, tuple[int, ...]]) -> list[frozenset[Axis]]:
    """Axes that lose their equal gradient with one another, two at least; no axis is in two sets."""
    sets: list[frozenset[Axis]] = []
    for axis in orders:
        if not any(axis in s for s in sets):
            others = {a: order for a, order in orders.items() if a != axis}
            joined = frozenset(orders.keys() - _equal(numbers, others))
            # A running statistic has no gradient to lose: it joins the set that it breaks.
            touched = [s for s in sets if s & joined]
            sets = [s for s in sets if not s & joined] + [joined.union(*touched)]
    return [s for s in sets if len(s) > 1]


def _subsets(axes: Collection[Axis]) -> Iterator[frozenset[Axis]]:
    """Of two axes or more, smallest first."""
    for size in range(2, len(axes) + 1):
        yield from map(frozenset, combinations(sorted(axes), size))


def _equal(numbers: OnNumbers, orders: dict[Axis, tuple[int, ...]]) -> list[Axis]:
    """The axes on which the gradient is equal for both units, when the two are made equal on all of `orders`."""
    alike = dict(numbers.state)
    for (tensor, axis), order in orders.items():
        mirrored = alike[tensor].index_select(axis, torch.tensor(order))
        alike[tensor] = (alike[tensor] + mirrored) / 2
    gradients = numbers.gradients(alike)
    return [a for a, order in orders.items() if _same(gradients.get(a[0]), a[1], order)]


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
    found = [{(g.tensor, g.axis): g.index for g in done} for done in generators]
    acting_on = [orders for orders in found if not axes.keys().isdisjoint(orders)]
    if any(_equal_on(axes, orders) for orders in acting_on):
        return True
    starts = dict(zip(axes, np.cumsum([0, *(order.size for order in axes.values())]).tolist(), strict=False))

    def permutation(found: dict[Axis, IntArray]) -> Permutation:
        parts = []
        for axis, order in axes.items():
            index = np.broadcast_to(found.get(axis, np.arange(order.shape[1])), order.shape)
            parts.append(starts[axis] + np.arange(len(order))[:, None] * order.shape[1] + index)
        return Permutation(np.concatenate([part.ravel() for part in parts]).tolist())

    acting = {permutation(orders) for orders in acting_on}
    left = _without_exchanges(permutation(axes), acting)
    rest = frozenset(_joined(left, acting))
    return left.is_Identity or (bool(rest) and bool(_group(rest).contains(left)))


def _equal_on(axes: dict[Axis, IntArray], orders: dict[Axis, IntArray]) -> bool:
    """Whether one generator does this on all of these axes."""
    return axes.keys() <= orders.keys() and all(bool((axes[a] == orders[a]).all()) for a in axes)


def _without_exchanges(wanted: Permutation, acting: Collection[Permutation]) -> Permutation:
    """What is left of a permutation without those exchanges of two units that the group has.

    The exchange of two units that are no neighbours is that of two neighbours, conjugated by the exchanges that lead
    from one unit to the other.
    """
    moved_by: dict[int, list[Permutation]] = {}
    for exchange in acting:
        for point in exchange.support():
            moved_by.setdefault(point, []).append(exchange)
    left = wanted
    for start in wanted.support():
        way = _way(start, left(start), moved_by) if left(start) != start else []
        if not way:
            continue
        found = way[-1]
        for step in reversed(way[:-1]):
            found = step * found * step
        if all(left(point) == found(point) for point in found.support()):
            left = left * found
    return left


def _way(start: int, end: int, moved_by: Mapping[int, Sequence[Permutation]]) -> list[Permutation]:
    """The fewest exchanges that take one point to another, first to last; none where there is no way."""
    ways: dict[int, list[Permutation]] = {start: []}
    reached = [start]
    for point in reached:
        for exchange in moved_by.get(point, ()):
            if (after := exchange(point)) not in ways:
                ways[after] = [*ways[point], exchange]
                reached.append(after)
        if end in ways:
            break
    return ways.get(end, [])


def _joined(wanted: Permutation, acting: Iterable[Permutation]) -> list[Permutation]:
    """Those that move a point that the permutation moves, and those that move a point that these move, and so on."""
    points, rest, found = set(wanted.support()), list(acting), list[Permutation]()
    while near := [g for g in rest if points.intersection(g.support())]:
        found += near
        points.update(point for g in near for point in g.support())
        rest = [g for g in rest if g not in near]
    return found


@lru_cache(maxsize=16)
def _group(generators: frozenset[Permutation]) -> PermutationGroup:
    """Kept, since many moves on the same axes are asked for, and what sympy works out of a group takes long."""
    return PermutationGroup(sorted(generators, key=lambda p: p.array_form))
