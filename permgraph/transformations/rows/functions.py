"""Functions of one number."""

from __future__ import annotations

from permgraph.transformations.call import ROTATIONS, SCALES, SIGNS, Blocked, Call, Results, row
from permgraph.transformations.patterns import (
    blocked,
    short,
)


@row("relu leaky_relu rrelu")
def homogeneous(call: Call) -> Results:
    """f(s x) = s f(x) for s > 0."""
    if call.kind != SCALES:
        raise Blocked("for positive factors only")
    return call.of("self")


@row("prelu _prelu_kernel")
def prelu(call: Call) -> Results:
    call.block("weight")
    return homogeneous(call)


@row(
    "tanh sin sinh asin asinh atan atanh tan erf erfinv sign sgn trunc round tanhshrink softshrink hardshrink"
)
def odd(call: Call) -> Results:
    """f(-x) = -f(x)."""
    if call.kind != SIGNS:
        raise Blocked("for signs only")
    return call.of("self")


@row("hardtanh clamp")
def bounded(call: Call) -> Results:
    low = call.option("min_val") if "min_val" in call.node.options else call.option("min")
    high = call.option("max_val") if "max_val" in call.node.options else call.option("max")
    if call.kind == SIGNS and None not in (low, high) and low == -high:
        return call.of("self")
    if call.kind == SCALES and (low, high) in ((0, None), (0.0, None)):
        return call.of("self")
    raise Blocked("bounds")


@row("clamp_min")
def clamp_min(call: Call) -> Results:
    if call.kind == SCALES and call.shapes.get("min") is None and call.option("min") == 0:
        return call.of("self")
    raise Blocked("bounds")


@row("abs")
def absolute(call: Call) -> Results:
    if call.kind == ROTATIONS:
        raise Blocked("unit by unit")
    return call.of("self") if call.kind == SCALES else None


@row("cos cosh")
def even(call: Call) -> Results:
    if call.kind != SIGNS:
        raise Blocked("for signs only")
    return None


@row("glu")
def glu(call: Call) -> Results:
    """a · σ(b) for the two halves of a dim."""
    pattern = call.of("self")
    if pattern is None:
        return None
    if call.kind == ROTATIONS:
        raise Blocked("unit by unit")
    a, b = pattern.chunk(2, call.option("dim", -1))
    blocked(call.forms, b)
    return short(a)
