"""What movement does to tensors that hold chosen coordinates: the same as to what they were chosen from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.ir.trace import Shape

Move = Callable[[LabelledTensor], LabelledTensor]
Segments = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]


def moved_choice(
    tensor: LabelledTensor, shape: Shape, values: LabelledTensor, at: Sequence[int], *mark: object
) -> LabelledTensor:
    """A chosen tensor after a move; `mark` says what the move did to the places of the choice."""
    assert tensor.chosen is not None
    tensor.space.use(tensor)
    kept = tuple(d for d in at if shape[d] > 1)
    key = (*tensor.chosen.key, mark) if mark else tensor.chosen.key
    chosen = replace(tensor.chosen, values=values, at=kept, key=key)
    return LabelledTensor(tensor.space, shape, weight=tensor.weight, chosen=chosen)


def places_after(at: Sequence[int], segments: Segments) -> tuple[int, ...] | None:
    """The dims of the choice after a reshape, where it leaves them as they were; None where it does not."""
    places = []
    for d in at:
        old, new = next((o, n) for o, n in segments if d in o)
        if len(old) > 1 or len(new) > 1:
            return None
        places.append(new[0])
    return tuple(places)


def places_merged(at: Sequence[int], segments: Segments) -> tuple[tuple[int, ...], object] | None:
    """The same for a reshape that merges or splits dims of the choice among themselves, with a mark of it."""
    places: list[int] = []
    done: list[tuple[int, ...]] = []
    for old, new in (s for s in segments if set(s[0]) & set(at)):
        if not set(old) <= set(at):
            return None
        places += new
        done.append(old)
    order = [d for old in done for d in old]
    return (tuple(places), ("reshape", tuple(len(old) for old in done))) if order == list(at) else None
