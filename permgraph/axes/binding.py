"""Binding: which names of an equation stand for which dims of a tensor, and how large each is."""

from __future__ import annotations

from math import prod

from permgraph.axes.equation import DOTS, Equation, expand_star
from permgraph.axes.refusal import UnsupportedForm
from permgraph.ir.trace import Shape

Axes = list[tuple[str, ...]]  # the names of every dim


def bind_term(equation: Equation, operand: int | None, shape: Shape, sizes: dict[str, int]) -> Axes:
    """The names of every dim of an operand (of the result: None); learns sizes on the way.

    Raises UnsupportedForm where the term does not fit the shape.
    """
    term = equation.result if operand is None else equation.operands[operand]
    dotted = (DOTS,) in term
    stars = [axis[0] for axis in term if axis[0].endswith("*")]
    fixed = sum(1 for axis in term if axis != (DOTS,) and axis[0] not in stars)
    for star in (x for x in stars if x not in sizes):  # no dots: it stands for all that is left
        sizes[star] = 0 if dotted else max(0, len(shape) - fixed - sum(sizes.get(x, 0) for x in stars))
    dots = len(shape) - fixed - sum(sizes[x] for x in stars)
    if dots < 0 or (dots and not dotted) or any(sizes[x] < 0 for x in stars):
        raise _misfit(equation, operand, shape)
    axes: Axes = []
    for axis in term:
        if axis == (DOTS,):
            # leading axes broadcast from the right: count down so that the last one is always "...0"
            axes += [(f"{DOTS}{i}",) for i in range(dots - 1, -1, -1)]
        else:
            axes += [(x,) for x in expand_star(axis[0], sizes[axis[0]])] if axis[0] in stars else [axis]
    for size, axis in zip(shape, axes, strict=True):
        if not _learn(size, axis, sizes):
            raise _misfit(equation, operand, shape)
    return axes


def _learn(size: int, axis: tuple[str, ...], sizes: dict[str, int]) -> bool:
    """Whether an axis of this size can have these names."""
    if len(axis) == 1:
        sizes[axis[0]] = max(size, sizes.get(axis[0], 1))
        return True
    rest = prod(sizes[x] for x in axis if x in sizes)
    unknown = [x for x in axis if x not in sizes]
    if len(unknown) == 1 and rest:
        sizes[unknown[0]] = size // rest
        rest *= sizes[unknown[0]]
    return len(unknown) < 2 and rest == size


def _misfit(equation: Equation, operand: int | None, shape: Shape) -> UnsupportedForm:
    what = "the result" if operand is None else f"operand {operand + 1}"
    size = "×".join(map(str, shape)) or "scalar"
    return UnsupportedForm(f"{what} ({size}) does not have the axes of {equation.text!r}")
