"""Fit: the factors that bring B's weights to A's, from the weights of both or from their activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import torch

from permgraph.ir.spec import PermSpec, Place
from permgraph.transformations.call import ROTATIONS, SCALES, SIGNS
from permgraph.transformations.places import Numbers, Values, of_units, owned_count, rows_of, slots, together
from permgraph.transformations.transformation import Factor
from permgraph.transformations.values import Multiplied, is_one, multiply_in_place

SWEEPS = 50  # over all groups, while values still change
SETTLED = 1e-7  # the largest logarithm of a scale that counts as no change


def fit(
    spec: PermSpec,
    factors: Sequence[Factor],
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    crossed: Mapping[Factor, Numbers] | None = None,
) -> list[Multiplied]:
    """The values that bring B's weights to A's, units of both in one order: signs, then rotations, then scales.

    Signs and rotations maximise the inner product of the weights, group after group (orthogonal Procrustes for a rotation:
    Schönemann 1966). Scales bring the logarithms of the norms of what a unit owns together, by least squares, each place counted by its numbers.

    A rotation past norms is fitted where their scales are one in both (`fold`).

    crossed   how matched units go together in activations (`activations.py`), which then decides instead of the weights
    """
    first, now = together(spec, a), together(spec, b)
    known = crossed or {}
    turned = {f.group for f in factors if f.kind == ROTATIONS}
    signs = [f for f in factors if f.kind == SIGNS and f.group not in turned]
    done = _fit_signs(spec, signs, first, now, known)
    for factor in (f for f in factors if f.kind == ROTATIONS and _are_ones(f, first, now)):
        products = known.get(factor)
        done.append(
            Multiplied(
                factor, _nearest(_outer_products(spec, factor, first, now) if products is None else products)
            )
        )
        multiply_in_place(spec, done[-1], now)
    return done + _fit_scales(spec, [f for f in factors if f.kind == SCALES], first, now)


def _are_ones(factor: Factor, *states: Values) -> bool:
    return all(is_one(state[name]) for state in states for name in factor.ones)


def _fit_scales(spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values) -> list[Multiplied]:
    """Those that bring the norms together: that of a row depends on the scales of what it reads."""

    def moved(values: Numbers) -> float:
        return float(np.abs(np.log(values)).max())

    return _sweeps(spec, factors, b, lambda mine: _scales(spec, mine, a, b), moved)


def _fit_signs(
    spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values, known: Mapping[Factor, Numbers]
) -> list[Multiplied]:
    """Those that activations tell, then those of the weights."""
    told = [Multiplied(f, np.where(known[f] < 0, -1.0, 1.0)) for f in factors if f in known]
    for one in told:
        multiply_in_place(spec, one, b)
    rest = [factor for factor in factors if factor not in known]
    found = _sweeps(
        spec, rest, b, lambda mine: _signs(spec, mine, a, b), lambda values: float((values < 0).any())
    )
    by_factor = {one.factor: one for one in (*told, *found)}
    return [by_factor[factor] for factor in factors]


def _sweeps(
    spec: PermSpec,
    factors: Sequence[Factor],
    b: Values,
    fitted: Callable[[Sequence[Factor]], list[Numbers]],
    moved: Callable[[Numbers], float],
) -> list[Multiplied]:
    """Group after group, until nothing changes or SWEEPS are made; `b` is multiplied as it goes.

    fitted   the values of a group's factors, all others as they are
    moved    how far values are from changing nothing
    """
    groups: dict[str, list[Factor]] = {}
    for factor in factors:
        groups.setdefault(factor.group, []).append(factor)
    total = {factor: np.ones(spec.shape_of(spec.by_name[factor.group])) for factor in factors}
    for _ in range(SWEEPS):
        largest = 0.0
        for mine in groups.values():
            for factor, values in zip(mine, fitted(mine), strict=True):
                largest = max(largest, moved(values))
                total[factor] = total[factor] * values
                multiply_in_place(spec, Multiplied(factor, values), b)
        if largest < SETTLED:
            break
    return [Multiplied(factor, values) for factor, values in total.items()]


def _signs(spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values) -> list[Numbers]:
    """Of the signs that a group's factors may give, those with the largest inner product, unit by unit."""
    owned = _owned(factors)
    products = np.stack([_inner(spec, factors[0], *at, a, b) for at in owned])  # (places, *copies, n)
    choices = np.array(list(product([0, 1], repeat=len(factors))))  # none is negated first
    odd = choices @ np.array(list(owned.values())).T % 2
    gains = np.tensordot(1.0 - 2.0 * odd, products, 1)
    best = choices[gains.argmax(0)]
    return [1.0 - 2.0 * best[..., i] for i in range(len(factors))]


def _scales(spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values) -> list[Numbers]:
    """Of the scales that a group's factors may give, those that bring the norms together, each place
    counted by its numbers; 1 where there are none."""
    owned = _owned(factors)
    exponents = np.array(list(owned.values()), dtype=float)  # (places, factors)
    squares = [np.stack([_inner(spec, factors[0], *at, one, one) for at in owned]) for one in (a, b)]
    known = (squares[0] > 0) & (squares[1] > 0)
    ratio = np.log(np.where(known, squares[0], 1) / np.where(known, squares[1], 1)) / 2
    counts = np.array([owned_count(a[place.tensor].shape, place) for place, _ in owned], dtype=float)
    weight = known * counts.reshape(-1, *(1,) * (known.ndim - 1))  # a bias is one number
    left = np.einsum("pf,pg,p...->...fg", exponents, exponents, weight)
    right = np.einsum("pf,p...->...f", exponents, ratio * weight)
    logs = np.einsum("...fg,...g->...f", np.linalg.pinv(left, hermitian=True), right)
    return [np.exp(logs[..., i]) for i in range(len(factors))]


def _nearest(products: Numbers) -> Numbers:
    """The orthogonal matrices R that maximise ⟨A, R B⟩: U Vᵀ of Σ A Bᵀ = U S Vᵀ, one for each copy."""
    u, _, v = np.linalg.svd(products)
    rotation: Numbers = u @ v
    return rotation


def _outer_products(spec: PermSpec, factor: Factor, a: Values, b: Values) -> Numbers:
    """Σ A Bᵀ over all that the units own, (*copies, n, n)."""
    n = spec.by_name[factor.group].size
    total: Numbers = np.zeros((*spec.shape_of(spec.by_name[factor.group]), n))
    for power in factor.powers:
        for slot, _ in slots(power):
            pair = [rows_of(one[power.place.tensor].contiguous(), power.place, slot)[0] for one in (a, b)]
            total += _outer(spec, factor, power.place.layout, *pair)
    return total


def _outer(
    spec: PermSpec, factor: Factor, layout: Sequence[str], a: torch.Tensor, b: torch.Tensor
) -> Numbers:
    """Σ A Bᵀ over what the units own, for each copy: (*copies, n, n)."""
    sizes = [spec.by_name[name].size for name in layout]
    axis = list(layout).index(factor.group)
    wide = [x.reshape(*sizes, -1).movedim(axis, -2) for x in (a, b)]
    found = (wide[0] @ wide[1].mT).numpy()
    others = [name for name in layout if name != factor.group]
    chain = [*spec.by_name[factor.group].ancestors]
    summed = found.sum(axis=tuple(i for i, name in enumerate(others) if name not in chain))
    left = [name for name in others if name in chain]
    turned: Numbers = summed.transpose([*(left.index(name) for name in chain), -2, -1])
    return turned


def _owned(factors: Sequence[Factor]) -> dict[tuple[Place, int], list[int]]:
    """Place and slot → the exponent that each factor has there."""
    found: dict[tuple[Place, int], list[int]] = {}
    for number, factor in enumerate(factors):
        for power in factor.powers:
            for slot, exponent in slots(power):
                found.setdefault((power.place, slot), [0] * len(factors))[number] = exponent
    return found


def _inner(spec: PermSpec, factor: Factor, place: Place, slot: int, a: Values, b: Values) -> Numbers:
    """The inner product of what each unit owns there in two models, (*copies, n)."""
    one, other = (rows_of(x[place.tensor].contiguous(), place, slot)[0] for x in (a, b))
    sizes = [spec.by_name[name].size for name in place.layout]
    return of_units(spec, factor, place, (one * other).sum(-1).reshape(sizes).numpy())
