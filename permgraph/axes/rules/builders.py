"""What rule files share: the type of a rule, and rules made from an equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context

Result = Value | tuple[Value | None, ...] | None
Rule = Callable[[Context], Result]


def equation(text: str, *operands: tuple[int, str], **sizes: int) -> Rule:
    """A rule that is one equation. `operands` are (position, name) in the op's schema; default 0, 1, 2, …"""
    count = text.partition("->")[0].count(",") + 1
    where = operands or tuple((i, "") for i in range(count))

    def rule(context: Context) -> Value:
        values = [context.operand(index, name) for index, name in where]
        return contract(context, text, values, context.node.shape, **sizes)

    rule.__doc__ = text
    return rule


def several(rule: Callable[[Context], Value]) -> Rule:
    """For an op that returns (result, statistics …): statistics that are read hold all that they come from."""

    def outer(context: Context) -> Result:
        if any(context.reads(i) for i in range(1, len(context.node.results))):
            for value in context.refs():
                context.pin(value.arrays, "statistics")
        first = rule(context)
        rest = [
            None if m is None else context.pinned_value(m.shape, "statistics")
            for m in context.node.results[1:]
        ]
        return (first, *rest)

    outer.__doc__ = rule.__doc__
    return outer


def pointwise(context: Context, *values: Value | None) -> Value:
    """Elementwise with broadcasting from the right: same axes, same letters."""
    found = [v for v in values if v is not None]
    shape = context.node.shape
    text = ", ".join(["..."] * len(found)) + " -> ..."
    return contract(context, text, list(found), shape)


def placed(context: Context, value: Value, dims: tuple[int, ...], reason: str = "position") -> Value:
    """The value with its coordinates along `dims` in order: what happens to an element depends on them.

    What is labelled jointly with other dims moves as blocks over those: heads may still change places.
    """
    where = Value(value.shape, context.positions(value.shape, dims, reason), True)
    return replace(contract(context, "..., ... -> ...", [value, where], value.shape), name=value.name)


def per_dim(value: Any, rank: int, default: Any) -> list[Any]:
    """A stride, padding or window for every spatial dim, given as nothing, one number, or one per dim."""
    if value in (None, (), "valid", "same"):  # "same" adds nothing around a single tap
        return [default] * rank
    found = value if isinstance(value, tuple) else (value,)
    return list(found) * (rank // len(found))


def positions_of(still: list[bool], whole: list[bool] | None = None) -> tuple[str, str]:
    """Terms of an equation for spatial dims, before and after: ordered, unless each position stays where it is
    (`still`), or all are read alike into one (`whole`)."""
    before, after = [], []
    for x, stays, alike in zip("pqr", still, whole or [False] * len(still), strict=False):
        before.append(x if stays or alike else f"!{x}")
        after.append(x if stays else x.upper() if alike else f"!{x.upper()}")
    return " ".join(before), " ".join(after)


INDEX = "index by position"


def written(context: Context, base: Value, dim: int, sources: list[Value]) -> Value:
    """The result of writing at positions of `dim`: they are told apart in all that meets there, and all else is elementwise."""
    letters = "abcdefgh"[: len(base.shape)]
    other = " ".join(letters[:dim] + "z" + letters[dim + 1 :])
    values = [placed(context, v, (dim,) if v.shape else (), INDEX) for v in (base, *sources)]
    terms = [" ".join(letters), *(other for _ in sources)]
    return contract(context, f"{', '.join(terms)} -> {' '.join(letters)}", [*values], base.shape)


def dims_of(arg: Any, rank: int) -> tuple[int, ...]:
    """Dims given as None (all), a number or a list, counted from the front."""
    if arg is None or arg == ():
        return tuple(range(rank))
    found = arg if isinstance(arg, tuple) else (arg,)
    return tuple(d % rank for d in found) if rank else ()


def pin_everything(context: Context, reason: str) -> Result:
    """Nothing that enters may move; results are told apart by position."""
    context.points.at = context.points.at._replace(rule=reason)
    for value in context.refs():
        context.pin(value.arrays, reason)
    made = tuple(None if m is None else context.pinned_value(m.shape, reason) for m in context.node.results)
    return made if context.node.multiple else (made[0] if made else None)
