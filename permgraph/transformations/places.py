"""Places as arrays: what of a tensor each unit owns, for all units at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permgraph.ir.spec import IntArray, PermSpec, Place
from permgraph.ir.trace import Shape
from permgraph.transformations.transformation import Factor, Power

Numbers = NDArray[np.float64]
Values = dict[str, Tensor]  # the plan's name of a tensor → its values, float64


def together(spec: PermSpec, state: Mapping[str, Tensor]) -> Values:
    """A state in float64 (copies), in which tensors that a place sees as one are one."""
    values = {name: tensor.detach().double().clone() for name, tensor in state.items()}
    for name, joined in spec.joined.items():
        if not values.keys() >= set(joined.members):
            continue
        members = [values.pop(member) for member in joined.members]
        values[name] = torch.stack(members) if joined.axis is None else torch.cat(members, joined.axis)
    return values


def apart(spec: PermSpec, values: Mapping[str, Tensor]) -> Values:
    """The tensors of the network again."""
    found = dict(values)
    for name, joined in spec.joined.items():
        if name in found:
            whole = found.pop(name)
            axis = joined.axis or 0
            parts = whole.unbind(0) if joined.axis is None else whole.chunk(len(joined.members), axis)
            found |= dict(zip(joined.members, parts, strict=True))
    return found


def slots(power: Power) -> Iterator[tuple[int, int]]:
    """The slots of a place at which something happens, each with its exponent."""
    return ((slot, exponent) for slot, exponent in enumerate(power.exponents) if exponent)


def chain_of(spec: PermSpec, factor: Factor) -> list[str]:
    """The ancestors of the group, outermost first, and the group."""
    return [*spec.by_name[factor.group].ancestors, factor.group]


def on_layout(spec: PermSpec, factor: Factor, place: Place, numbers: Numbers) -> Numbers:
    """Numbers of the units, (*copies, n), on the layout of a place: (*sizes of the layout)."""
    chain = chain_of(spec, factor)
    order = [chain.index(name) for name in place.layout if name in chain]
    turned = numbers.transpose(order)
    wide = [spec.by_name[name].size if name in chain else 1 for name in place.layout]
    return np.broadcast_to(turned.reshape(wide), [spec.by_name[name].size for name in place.layout])


def of_units(spec: PermSpec, factor: Factor, place: Place, numbers: Numbers) -> Numbers:
    """Numbers on the layout of a place, summed over what is no copy of the unit: (*copies, n)."""
    chain = chain_of(spec, factor)
    others = tuple(i for i, name in enumerate(place.layout) if name not in chain)
    left = [name for name in place.layout if name in chain]
    summed: Numbers = numbers.sum(axis=others).transpose([left.index(name) for name in chain])
    return summed


def owned_count(shape: Shape, place: Place) -> int:
    """How many elements a unit owns at a slot of a place."""
    others = [n for d, n in enumerate(shape) if d not in (place.axis, place.rows_axis)]
    return math.prod(others) * (1 if place.rows is None else place.rows.shape[-1])


def rows_of(tensor: Tensor, place: Place, slot: int) -> tuple[Tensor, IntArray]:
    """What the units own at a slot: (units on the layout, elements each), and the flat index of each of those.

    Units where nothing lies (-1) own nothing: their elements are those of coordinate 0, times 0 in what is returned.
    """
    flat = torch.arange(tensor.numel()).reshape(tensor.shape).movedim(place.axis, 0)
    coordinates = torch.from_numpy(place.positions.array()[..., slot].reshape(-1).copy())
    index = flat[coordinates.clamp_min(0)]
    if place.rows is not None and place.rows_axis is not None:
        rows = torch.from_numpy(place.rows.array().reshape(len(coordinates), -1).copy())
        axis = place.rows_axis + (place.rows_axis < place.axis)  # axis 0 is that of the units now
        moved = index.movedim(axis, 1)
        wide = rows.reshape(*rows.shape, *(1,) * (moved.dim() - 2)).expand(*rows.shape, *moved.shape[2:])
        index = moved.gather(1, wide)
    index = index.reshape(len(coordinates), -1)
    found = tensor.reshape(-1)[index] * (coordinates >= 0).to(tensor.dtype)[:, None]
    return found, index.numpy()
