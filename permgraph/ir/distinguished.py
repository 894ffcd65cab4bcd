"""What is in no group and in no pin: coordinates that the structure of the network distinguishes.

No rule fixes them; the network uses them differently. It takes one out and adds it to something else, cuts them in other
places, or reads them beside an order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from permgraph.ir.positions import IntArray

if TYPE_CHECKING:
    from permgraph.ir.spec import PermSpec, Place

Axis = tuple[str, int]


def distinguished(spec: PermSpec) -> dict[Axis, int]:
    """Tensor and axis → how many of its coordinates are in no group and in no pin.

    Only axes with two or more of them: one by itself has nothing to change places with. Tensors that the network never
    reads are left out.
    """
    held: Counter[Axis] = Counter()
    for pin in spec.pinned:
        held[pin.tensor, pin.axis] += pin.count
    moved: dict[Axis, list[IntArray]] = {}
    for place in spec.places:
        for axis, positions in _positions(spec, place):
            moved.setdefault(axis, []).append(positions)
    held.update({axis: np.unique(np.concatenate(arrays)).size for axis, arrays in moved.items()})
    read = {tensor: shape for tensor, shape in spec.tensors.items() if tensor not in spec.unused}
    left = {(t, axis): n - held[t, axis] for t, shape in read.items() for axis, n in enumerate(shape)}
    return {axis: n for axis, n in left.items() if n > 1}


def _positions(spec: PermSpec, place: Place) -> Iterator[tuple[Axis, IntArray]]:
    """The coordinates that a place moves, on an axis of each tensor that it is on."""
    positions = _moving(place.positions.array())
    joined = spec.joined.get(place.tensor)
    if joined is None:
        yield (place.tensor, place.axis), positions
        return
    for i, member in enumerate(joined.members):
        for axis, size in enumerate(spec.tensors[member]):
            if joined.axis_of(axis) != place.axis:
                continue
            own = positions - i * size if axis == joined.axis else positions
            yield (member, axis), own[(own >= 0) & (own < size)]


def _moving(positions: IntArray) -> IntArray:
    """Those of units that lie elsewhere than others: blocks of a grouped convolution may move with their rows alone."""
    moves = np.zeros(positions.shape, dtype=bool)
    for axis in range(positions.ndim - 1):
        moves |= (positions != positions.take([0], axis)).any(axis, keepdims=True)
    moving: IntArray = positions[moves & (positions >= 0)]
    return moving
