"""Values: the factors of every unit, fitted to two models or drawn at random, and applied to weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from permgraph.errors import PlanError
from permgraph.ir.spec import PermSpec, Place
from permgraph.transformations.call import ROTATIONS, SCALES, SIGNS
from permgraph.transformations.places import (
    Numbers,
    Values,
    apart,
    of_units,
    on_layout,
    rows_of,
    slots,
    together,
)
from permgraph.transformations.transformation import Factor

SWEEPS = 50  # over all groups, while values still change
SETTLED = 1e-7  # the largest logarithm of a scale that counts as no change
ROUNDING = 1e-9
WIDEST = 2.0  # log2 of a scale that is drawn at random, either way


@dataclass(frozen=True, eq=False)
class Multiplied:
    """A factor and its values: (*copies, n) numbers, or (*copies, n, n) orthogonal matrices."""

    factor: Factor
    values: Numbers


def read_by(spec: PermSpec, done: Iterable[Multiplied]) -> set[str]:
    """The tensors that `multiply` reads."""
    return {
        name
        for one in done
        for tensor in (*(p.place.tensor for p in one.factor.powers), *one.factor.ones)
        for name in spec.members(tensor)
    }


def multiply(spec: PermSpec, done: Iterable[Multiplied], state: Mapping[str, torch.Tensor]) -> Values:
    """The tensors of a state, by the plan's names, with every unit multiplied; in float64, in the order given.

    Raises PlanError for a rotation past norms whose scales are not one.
    """
    result = together(spec, state)
    for one in done:
        _multiply(spec, one, result)
    return apart(spec, result)


def _multiply(spec: PermSpec, one: Multiplied, state: Values) -> None:
    for name in one.factor.ones:
        if not _is_one(state[name]):
            raise PlanError(
                f"{name} is not one everywhere, and {one.factor.group} can be rotated only past norms whose scales are. Fold "
                "them into what reads them first: multiply by what `permgraph.fold_factors` gives."
            )
    for power in one.factor.powers:
        tensor = state[power.place.tensor].contiguous()
        for slot, exponent in slots(power):
            rows, index = rows_of(tensor, power.place, slot)
            if one.factor.kind == ROTATIONS:
                after = _turned(spec, one, power.place.layout, rows)
            else:
                numbers = on_layout(spec, one.factor, power.place, one.values).reshape(-1, 1)
                after = rows * torch.from_numpy(np.power(numbers, float(exponent)))
            keep = torch.from_numpy(power.place.positions.array()[..., slot].reshape(-1) >= 0)
            tensor.view(-1)[torch.from_numpy(index)[keep].reshape(-1)] = after[keep].reshape(-1)
        state[power.place.tensor] = tensor


def _turned(spec: PermSpec, one: Multiplied, layout: Sequence[str], rows: torch.Tensor) -> torch.Tensor:
    """R W for the units of each copy."""
    sizes = [spec.by_name[name].size for name in layout]
    axis = list(layout).index(one.factor.group)
    wide = rows.reshape(*sizes, -1).movedim(axis, -2)  # (*others, n, elements)
    chain = [*spec.by_name[one.factor.group].ancestors]
    others = [name for name in layout if name != one.factor.group]
    order = [chain.index(name) for name in others if name in chain]
    matrices = torch.from_numpy(one.values).permute(*order, -2, -1)
    shape = [spec.by_name[name].size if name in chain else 1 for name in others]
    turned = matrices.reshape(*shape, *matrices.shape[-2:]) @ wide
    return turned.movedim(-2, axis).reshape(rows.shape)


def random_values(spec: PermSpec, factors: Sequence[Factor], seed: int = 0) -> list[Multiplied]:
    """Signs by coin, scales from a quarter to four, orthogonal matrices by Haar's measure; the same for the same seed."""
    rng = np.random.default_rng(seed)
    done = []
    for factor in factors:
        shape = spec.shape_of(spec.by_name[factor.group])
        if factor.kind == SIGNS:
            values = rng.choice([-1.0, 1.0], shape)
        elif factor.kind == SCALES:
            values = np.exp2(rng.uniform(-WIDEST, WIDEST, shape))
        else:
            q, r = np.linalg.qr(rng.standard_normal((*shape, shape[-1])))
            values = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
        done.append(Multiplied(factor, values))
    return done


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
        _multiply(spec, done[-1], now)
    return done + _fit_scales(spec, [f for f in factors if f.kind == SCALES], first, now)


def _are_ones(factor: Factor, *states: Values) -> bool:
    return all(_is_one(state[name]) for state in states for name in factor.ones)


def _is_one(tensor: torch.Tensor) -> bool:
    """Up to the rounding of a scale that was folded."""
    return bool((tensor - 1).abs().max() < ROUNDING)


def fold(spec: PermSpec, factors: Sequence[Factor], state: Mapping[str, torch.Tensor]) -> list[Multiplied]:
    """Scales that make the scales of norms one, where what reads them takes them up. None where one of them is 0."""
    held, done = together(spec, state), list[Multiplied]()
    for factor in factors:
        name = factor.folds()
        if name is None or len(spec.shapes[name]) != 1:
            continue
        (power,) = (p for p in factor.powers if p.place.tensor == name)
        sizes = [spec.by_name[n].size for n in power.place.layout]
        numbers = rows_of(held[name], power.place, 0)[0].reshape(sizes).numpy()
        own = of_units(spec, factor, power.place, numbers)
        if numbers.size == own.size and (own > 0).all():
            done.append(Multiplied(factor, 1 / own))
    return done


def _fit_scales(spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values) -> list[Multiplied]:
    """Group after group, until nothing changes or SWEEPS: the norm of a row depends on the scales of what it reads."""
    groups: dict[str, list[Factor]] = {}
    for factor in factors:
        groups.setdefault(factor.group, []).append(factor)
    total = {factor: np.ones(spec.shape_of(spec.by_name[factor.group])) for factor in factors}
    for _ in range(SWEEPS):
        largest = 0.0
        for mine in groups.values():
            for factor, values in zip(mine, _scales(spec, mine, a, b), strict=True):
                largest = max(largest, float(np.abs(np.log(values)).max()))
                total[factor] = total[factor] * values
                _multiply(spec, Multiplied(factor, values), b)
        if largest < SETTLED:
            break
    return [Multiplied(factor, values) for factor, values in total.items()]


def _fit_signs(
    spec: PermSpec, factors: Sequence[Factor], a: Values, b: Values, known: Mapping[Factor, Numbers]
) -> list[Multiplied]:
    """Those that activations tell, then group after group, until nothing changes; `b` is multiplied as it goes."""
    groups: dict[str, list[Factor]] = {}
    total = {factor: np.ones(spec.shape_of(spec.by_name[factor.group])) for factor in factors}
    for factor in factors:
        if factor in known:
            total[factor] = np.where(known[factor] < 0, -1.0, 1.0)
            _multiply(spec, Multiplied(factor, total[factor]), b)
        else:
            groups.setdefault(factor.group, []).append(factor)
    for _ in range(SWEEPS):
        changed = False
        for mine in groups.values():
            for factor, values in zip(mine, _signs(spec, mine, a, b), strict=True):
                changed = changed or bool((values < 0).any())
                total[factor] = total[factor] * values
                _multiply(spec, Multiplied(factor, values), b)
        if not changed:
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
    counts = [rows_of(a[place.tensor].contiguous(), place, slot)[0].shape[1] for place, slot in owned]
    weight = known * np.array(counts, dtype=float).reshape(
        -1, *(1,) * (known.ndim - 1)
    )  # a bias is one number
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
