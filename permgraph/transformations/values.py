"""Values: the factors of every unit, applied to weights, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from permgraph.errors import PlanError
from permgraph.ir.spec import PermSpec
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

ROUNDING = 1e-9
WIDEST = 2.0  # log2 of a scale that is drawn at random, either way


@dataclass(frozen=True, eq=False)
class Multiplied:
    """A factor and its values: (*copies, n) numbers, or (*copies, n, n) orthogonal matrices."""

    factor: Factor
    values: Numbers


def written_by(spec: PermSpec, done: Iterable[Multiplied]) -> set[str]:
    """The tensors that `multiply` changes."""
    return {n for one in done for power in one.factor.powers for n in spec.members(power.place.tensor)}


def read_by(spec: PermSpec, done: Sequence[Multiplied]) -> set[str]:
    """The tensors that `multiply` reads."""
    return written_by(spec, done) | {
        n for one in done for name in one.factor.ones for n in spec.members(name)
    }


def multiply(spec: PermSpec, done: Iterable[Multiplied], state: Mapping[str, torch.Tensor]) -> Values:
    """The tensors of a state, by the plan's names, with every unit multiplied; in float64, in the order given.

    Raises PlanError for a rotation past norms whose scales are not one.
    """
    result = together(spec, state)
    for one in done:
        multiply_in_place(spec, one, result)
    return apart(spec, result)


def multiply_in_place(spec: PermSpec, one: Multiplied, state: Values) -> None:
    for name in one.factor.ones:
        if not is_one(state[name]):
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


def is_one(tensor: torch.Tensor) -> bool:
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
