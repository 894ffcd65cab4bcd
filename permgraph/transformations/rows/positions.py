"""Over positions: pools, and what makes other positions of them."""

from __future__ import annotations

from permgraph.transformations.call import SCALES, Blocked, Call, Results, row
from permgraph.transformations.patterns import (
    Pattern,
    alike_along,
    short,
)
from permgraph.transformations.rows.products import reduction


def _over(call: Call, rank: int) -> Pattern:
    """The last dims are positions, which become others."""
    pattern = call.of("self")
    if pattern is None:
        return None
    dims = range(pattern.dim() - rank, pattern.dim())
    return short(alike_along(call.forms, pattern, dims).expand(call.shape))


@row(
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d"
)
def linear_over_positions(call: Call) -> Results:
    name = call.node.short_op
    return _over(call, int(next(x for x in reversed(name) if x.isdigit())))


@row(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d"
)
def largest_over_positions(call: Call) -> Results:
    if call.kind != SCALES:
        raise Blocked("for positive factors only")
    name = call.node.short_op.removesuffix("_with_indices")
    found = _over(call, int(name[-2]))
    return [found, None] if call.node.multiple else found


@row("amax amin max min")
def largest(call: Call) -> Results:
    """Of the elements along dims."""
    if call.kind != SCALES or call.shapes.get("other") is not None:
        raise Blocked("for positive factors only")
    found = reduction(call)
    return [found, None] if call.node.multiple else found
