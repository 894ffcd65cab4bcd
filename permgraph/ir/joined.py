"""Joined: several state tensors seen as one, for places whose units lie in more than one of them.

Experts, heads and branches that a model keeps as separate modules have weights of equal shapes. A unit that may change
places from one module to another has a place on the joined tensor: `e.{0,1,2}.weight` is the stack of three weights,
along a new first axis, or the three one after another along an axis of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from permgraph.errors import PlanError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Joined:
    """Tensors of one shape.

    members  their names, in order
    axis     along which they follow one another; None: they are stacked along a new first axis
    """

    members: tuple[str, ...]
    axis: int | None = None

    def axis_of(self, axis: int) -> int:
        """Where an axis of a member lies."""
        return axis + (self.axis is None)

    def shape(self, of_one: Shape) -> Shape:
        """Of the joined tensor."""
        if self.axis is None:
            return (len(self.members), *of_one)
        long = self.axis
        return (*of_one[:long], len(self.members) * of_one[long], *of_one[long + 1 :])


def joined_name(members: Sequence[str]) -> str:
    """The members in one name: what they have in common, and in braces what distinguishes them.

    >>> joined_name(["e.0.weight", "e.1.weight", "e.2.weight"])
    'e.{0..2}.weight'
    >>> joined_name(["left.fc.bias", "right.fc.bias"])
    '{left,right}.fc.bias'
    """
    parts = [m.split(".") for m in members]
    start = _shared(parts)
    stop = _shared([p[start:][::-1] for p in parts])
    inner = [".".join(p[start : len(p) - stop]) for p in parts]
    numbers = [int(x) for x in inner if x.isdecimal()]
    run = numbers == list(range(numbers[0], numbers[0] + len(inner))) if len(numbers) == len(inner) else False
    middle = f"{inner[0]}..{inner[-1]}" if run and len(inner) > 2 else ",".join(inner)
    return ".".join([*parts[0][:start], f"{{{middle}}}", *parts[0][len(parts[0]) - stop :]])


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many leading parts are equal in all."""
    return sum(1 for _ in takewhile(lambda x: len(set(x)) == 1, zip(*parts, strict=False)))


def check_joined(joined: Mapping[str, Joined], tensors: Mapping[str, Shape], placed: Collection[str]) -> None:
    """Members exist, have one shape, and are in one joined tensor only. `placed`: tensors with places of their own.

    Raises PlanError.
    """
    seen: set[str] = set()
    for name, one in joined.items():
        shapes = {tensors.get(m) for m in one.members}
        if name in tensors or len(one.members) < 2 or len(shapes) > 1 or None in shapes:
            raise PlanError(f"{name}: joins {', '.join(one.members)}, which are not tensors of one shape.")
        rank = len(tensors[one.members[0]])
        if one.axis is not None and not 0 <= one.axis < rank:
            raise PlanError(f"{name}: joined along axis {one.axis}, its tensors have {rank} axes.")
        for member in one.members:
            if member in seen:
                raise PlanError(f"{name}: {member} is joined twice.")
            if member in placed:
                raise PlanError(f"{name}: {member} has a place of its own and one in a joined tensor.")
            seen.add(member)
