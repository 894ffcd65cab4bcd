"""Reductions: what is summed over disappears; what depends on the order of its input pins it."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, dims_of, equation, pointwise
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context

_LETTERS = "abcdefghijklmnop"


def reduce(context: Context, value: Value, dims: tuple[int, ...], keep: bool, ordered: bool = False) -> Value:
    """Sum-like over `dims`; with `ordered` the coordinates there may not move."""
    letters = _LETTERS[: len(value.shape)]
    left = " ".join(f"!{x}" if ordered and d in dims else x for d, x in enumerate(letters))
    right = " ".join(("z" if d in dims else x) for d, x in enumerate(letters) if keep or d not in dims)
    shape = tuple(1 if d in dims else n for d, n in enumerate(value.shape) if keep or d not in dims)
    return contract(context, f"{left} -> {right}", [value], shape)


def reduction(dim_at: int = 1, keep_at: int = 2, dim_name: str = "dim") -> Rule:
    def rule(context: Context) -> Value:
        value = context.need(0, "self")
        dims = dims_of(context.arg(dim_at, dim_name), len(value.shape))
        return reduce(context, value, dims, keep=len(context.node.shape) == len(value.shape))

    rule.__doc__ = "... c -> ..."
    return rule


def extreme(dim_at: int = 1, default: int | None = None) -> Rule:
    """max, min, median, … along a dim: the value is order-free; the index is not, if anything reads it."""

    def rule(context: Context) -> Result:
        value = context.need(0, "self")
        if (other := context.operand(1, "other")) is not None:
            return pointwise(context, value, other)
        dims = dims_of(context.arg(dim_at, "dim", default), len(value.shape))
        keep = len(context.node.shape) == len(value.shape)
        made = reduce(context, value, dims, keep, ordered=context.node.multiple and context.reads(1))
        return (made, made) if context.node.multiple else made

    rule.__doc__ = "... c -> ..."
    return rule


def _histogram(context: Context) -> Value:
    """Counts per bin: the order of what is counted does not matter, that of the bins is fixed."""
    value = context.need(0, "self")
    return contract(context, f"{' '.join(_LETTERS[: len(value.shape)])} -> !Z", [value], context.node.shape)


def _position(context: Context) -> Value:
    """argmax, argmin: the answer is a position, so positions are pinned."""
    value = context.need(0, "self")
    dims = dims_of(context.arg(1, "dim"), len(value.shape))
    return reduce(context, value, dims, keep=len(context.node.shape) == len(value.shape), ordered=True)


def _scan(context: Context) -> Result:
    """cumsum and the like, sort, topk: ordered along a dim, which keeps positions of its own."""
    value = context.need(0, "self")
    index = 2 if context.node.op.startswith("aten.topk") else 1
    dim = context.arg(index, "dim", -1)
    shape = context.node.shape
    dims = dims_of(-1 if dim is None else dim, len(shape))
    letters = _LETTERS[: len(shape)]
    left = " ".join(f"!{x}" if d in dims else x for d, x in enumerate(letters))
    right = " ".join(f"!{x.upper()}" if d in dims else x for d, x in enumerate(letters))
    made = contract(context, f"{left} -> {right}", [value], shape)
    return (made,) * len(context.node.results) if context.node.multiple else made


def _vector_norm(context: Context) -> Value:
    """linalg.norm of vectors; norms of matrices other than Frobenius' have no rule."""
    dims, order = context.arg(2, "dim"), context.arg(1, "ord")
    value = context.need(0, "self")
    if order not in (None, "fro") and len(dims_of(dims, len(value.shape))) > 1:
        raise NotImplementedError("a norm of matrices")
    return reduce(
        context, value, dims_of(dims, len(value.shape)), len(context.node.shape) == len(value.shape)
    )


def _moments(context: Context) -> Result:
    """var_mean, std_mean, aminmax: two reductions of one input, neither of which depends on order."""
    value = context.need(0, "self")
    dims = dims_of(context.arg(1, "dim"), len(value.shape))
    made = reduce(context, value, dims, keep=len(context.node.shape) == len(value.shape))
    return (made, made)


_PLAIN = "sum mean amax amin prod logsumexp nansum nanmean count_nonzero"

RULES: dict[str, Rule] = {
    **{name: reduction() for name in _PLAIN.split()},
    **dict.fromkeys(("any", "all", "_is_all_true", "_is_any_true"), reduction()),
    "var": reduction(),
    "std": reduction(),
    "norm": reduction(dim_at=2),
    "linalg_vector_norm": reduction(dim_at=2),
    "linalg_norm": _vector_norm,
    **dict.fromkeys(("max", "min", "median", "nanmedian", "mode"), extreme()),
    "kthvalue": extreme(dim_at=2, default=-1),
    "dist": equation("..., ... -> "),
    "histc": _histogram,
    **{name: _moments for name in ("var_mean", "std_mean", "aminmax")},
    "argmax": _position,
    "argmin": _position,
    **{
        name: _scan
        for name in ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "topk", "argsort"]
    },
}
