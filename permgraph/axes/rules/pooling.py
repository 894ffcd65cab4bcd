"""Pooling and resampling: channels pass, positions are ordered but where each stays, or all are read alike."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, per_dim, positions_of
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def _pool(context: Context, rank: int, ordered: bool = False) -> Value:
    """avg_pool, max_pool: windows of a size, at a stride, with padding."""
    value, shape = context.need(0, "self"), context.node.shape
    kernel = per_dim(context.arg(1, "kernel_size"), rank, 1)
    stride = per_dim(context.arg(2, "stride"), rank, None)
    padding = per_dim(context.arg(3, "padding", 0), rank, 0)
    still = [k == 1 and p == 0 and s in (1, None) for k, s, p in zip(kernel, stride, padding, strict=True)]
    whole = [k == n and p == 0 for k, n, p in zip(kernel, value.shape[-rank:], padding, strict=True)]
    return _pooled(context, value, still, [w and not ordered for w in whole], shape)


def _adaptive(context: Context, rank: int, ordered: bool = False) -> Value:
    """adaptive pooling: into so many windows; into one, all are read alike."""
    value, shape = context.need(0, "self"), context.node.shape
    sizes = list(zip(value.shape[-rank:], shape[-rank:], strict=True))
    return _pooled(
        context, value, [a == b for a, b in sizes], [b == 1 and not ordered for _, b in sizes], shape
    )


def _pooled(
    context: Context, value: Value, still: list[bool], whole: list[bool], shape: tuple[int, ...]
) -> Value:
    s, t = positions_of(still, whole)
    return contract(context, f"... {s} -> ... {t}", [value], shape)


def pooling(rank: int, adaptive: bool = False) -> Rule:
    def rule(context: Context) -> Value:
        return (_adaptive if adaptive else _pool)(context, rank)

    rule.__doc__ = "... !s* -> ... !t*"
    return rule


def indexed(rank: int, adaptive: bool = False) -> Rule:
    """Pooling that tells where each maximum was: when that is read, positions are ordered even if one is left."""

    def rule(context: Context) -> Result:
        made = (_adaptive if adaptive else _pool)(context, rank, ordered=context.reads(1))
        return made, made

    rule.__doc__ = "... !s* -> ... !t*"
    return rule


def resampled(rank: int) -> Rule:
    def rule(context: Context) -> Value:
        s, t = positions_of([False] * rank)
        return contract(context, f"... {s} -> ... {t}", [context.need(0, "self")], context.node.shape)

    rule.__doc__ = "... !s* -> ... !t*"
    return rule


def unpooled(rank: int) -> Rule:
    """What was pooled goes back to where it was: channels go with the channels of the index."""

    def rule(context: Context) -> Value:
        shape = context.node.shape
        values = [context.need(0, "self"), context.need(1, "indices")]
        lead: list[Value | None] = [
            contract(context, "... !s* -> ...", [v], shape[:-rank], **{"s*": rank}) for v in values
        ]
        return contract(context, "..., ... -> ... !t*", lead, shape, **{"t*": rank})

    rule.__doc__ = "... !s*, ... !s* -> ... !t*"
    return rule


_RESAMPLED = {
    1: "upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d",
    2: """upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d _upsample_bilinear2d_aa
upsample_bicubic2d _upsample_bicubic2d_aa""",
    3: "upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d",
}

RULES: dict[str, Rule] = {
    **{f"{kind}_pool{n}d": pooling(n) for n in (1, 2, 3) for kind in ("avg", "max")},
    **{f"adaptive_avg_pool{n}d": pooling(n, adaptive=True) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": pooling(n, adaptive=True) for n in (2, 3)},
    **{f"max_pool{n}d_with_indices": indexed(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": indexed(n, adaptive=True) for n in (1, 2, 3)},
    **{f"max_unpool{n}d": unpooled(n) for n in (2, 3)},
    **{name: resampled(rank) for rank, names in _RESAMPLED.items() for name in names.split()},
}
