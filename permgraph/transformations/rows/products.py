"""Sums and products."""

from __future__ import annotations

from permgraph.ir.trace import Shape
from permgraph.transformations.call import ROTATIONS, Blocked, Call, Results, row, scalar
from permgraph.transformations.patterns import (
    Pattern,
    added,
    alike_along,
    contracted,
    multiplied,
    short,
    summed,
    to_power,
)


@row("add sub rsub")
def addition(call: Call) -> Results:
    other = call.of("other") if call.shapes.get("other") is not None else scalar(call.option("other"))
    return added(call.forms, [call.of("self"), other], call.shape)


@row("mul")
def product(call: Call) -> Results:
    if call.shapes.get("other") is None:
        return call.of("self")  # a number
    return _product(call, 1)


@row("div true_divide")
def quotient(call: Call) -> Results:
    if call.option("rounding_mode") is not None:
        raise Blocked("a rounded quotient")
    if call.shapes.get("other") is None:
        return call.of("self")
    return _product(call, -1)


def _product(call: Call, times: int) -> Pattern:
    """self · other^times, element by element. Units may be mixed where the other is one number for all of them."""
    a, b = call.of("self"), call.of("other")
    if call.kind == ROTATIONS and (a is None) != (b is None):
        marked, other = ("other", "self") if a is None else ("self", "other")
        if not (marked == "other" and times != 1) and _one_for_all(call, marked, other):
            return call.of(marked).expand(call.shape)  # type: ignore[union-attr]
    return multiplied(call.forms, a, b, call.shape, times)


def _one_for_all(call: Call, marked: str, other: str) -> bool:
    """Whether the other operand has one element for all units of the marked one."""
    pattern, shape = call.of(marked), call.shapes[other]
    assert pattern is not None
    lead = pattern.dim() - len(shape)
    seen = [d for d in range(pattern.dim()) if d >= lead and shape[d - lead] > 1]
    for dim in seen:
        one = pattern.narrow(dim, 0, 1)
        if bool((pattern != one).any()):
            return False
    return lead >= 0


@row("neg negative")
def negative(call: Call) -> Results:
    return call.of("self")


@row("pow square reciprocal")
def power(call: Call) -> Results:
    given = {"square": 2, "reciprocal": -1}.get(call.node.short_op)
    exponent = call.option("exponent") if given is None else given
    if call.shapes.get("exponent") is not None or exponent != int(exponent):
        raise Blocked("a power that is no whole number")
    return to_power(call.forms, call.of("self"), int(exponent))


@row("where")
def where(call: Call) -> Results:
    call.block("condition")
    if call.kind == ROTATIONS:
        raise Blocked("unit by unit")
    parts = [
        call.of(n) if call.shapes.get(n) is not None else scalar(call.option(n)) for n in ("self", "other")
    ]
    return added(call.forms, parts, call.shape)


@row("masked_fill")
def masked_fill(call: Call) -> Results:
    call.block("mask")
    if call.kind == ROTATIONS:
        raise Blocked("unit by unit")
    value = call.of("value") if call.shapes.get("value") is not None else scalar(call.option("value"))
    return added(call.forms, [call.of("self"), value], call.shape)


@row("sum mean")
def reduction(call: Call) -> Pattern:
    pattern = call.of("self")
    if pattern is None:
        return None
    dims = call.dims("dim") if "dim" in call.node.options else tuple(range(pattern.dim()))
    return short(summed(call.forms, pattern, dims).reshape(call.shape))


@row("linear")
def linear(call: Call) -> Results:
    shapes = (call.shapes["input"], call.shapes["weight"])
    lead = "abcdefgh"[: len(shapes[0]) - 1]
    result = contracted(
        call.forms, f"{lead}i,oi->{lead}o", call.of("input"), call.of("weight"), shapes, call.shape
    )
    return _biased(call, result, "bias")


def _biased(call: Call, result: Pattern, name: str) -> Pattern:
    if call.shapes.get(name) is None:
        return result
    return added(call.forms, [result, call.of(name)], call.shape)


@row("mm bmm matmul mv dot")
def matrix_product(call: Call) -> Results:
    a, b = call.shapes
    return _matmul(call, call.of(a), call.of(b), call.shapes[a], call.shapes[b], call.shape)


def _matmul(call: Call, a: Pattern, b: Pattern, of_a: Shape, of_b: Shape, out: Shape) -> Pattern:
    lead = out[: len(out) - (len(of_a) > 1) - (len(of_b) > 1)]
    letters = "abcdefgh"[: len(lead)]
    if len(of_a) > 2:
        a, of_a = (None if a is None else a.expand(*lead, *of_a[-2:])), (*lead, *of_a[-2:])
    if len(of_b) > 2:
        b, of_b = (None if b is None else b.expand(*lead, *of_b[-2:])), (*lead, *of_b[-2:])
    left = (letters if len(of_a) > 2 else "") + ("m" if len(of_a) > 1 else "") + "k"
    right = (letters if len(of_b) > 2 else "") + "k" + ("n" if len(of_b) > 1 else "")
    result = letters + ("m" if len(of_a) > 1 else "") + ("n" if len(of_b) > 1 else "")
    return contracted(call.forms, f"{left},{right}->{result}", a, b, (of_a, of_b), out)


@row("addmm baddbmm addbmm addmv")
def added_product(call: Call) -> Results:
    a, b = [n for n in call.shapes if n != "self"][:2]
    if call.node.short_op == "addbmm":
        raise Blocked("a sum over matrices")
    product = _matmul(call, call.of(a), call.of(b), call.shapes[a], call.shapes[b], call.shape)
    return added(call.forms, [product, call.of("self")], call.shape)


@row("einsum")
def einsum(call: Call) -> Results:
    equation = str(call.option("equation")).replace(" ", "")
    patterns, shapes = call.patterns["tensors"], call.shapes["tensors"]
    left, arrow, right = equation.partition("->")
    if "." in equation or len(patterns) != 2:
        raise Blocked(f"einsum {equation}")
    if not arrow:
        right = "".join(sorted(x for x in left if x.isalpha() and left.count(x) == 1))
    a, b = patterns
    return contracted(call.forms, f"{left}->{right}", a, b, (shapes[0], shapes[1]), call.shape)


@row("conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d")
def convolution(call: Call) -> Results:
    """Over channels and taps; the forms of a channel are those of all its positions."""
    x, weight = call.of("input"), call.of("weight")
    of_x, of_w = call.shapes["input"], call.shapes["weight"]
    groups, spatial = call.option("groups", 1), len(of_w) - 2
    turned = "transpose" in call.node.short_op or bool(call.option("transposed", False))
    batch = of_x[: len(of_x) - spatial - 1]
    channels = of_x[len(batch)]
    flat = None if x is None else alike_along(call.forms, x, range(len(of_x) - spatial, len(of_x)))
    rows = None if flat is None else flat.reshape(-1, groups, channels // groups)
    n = 1
    for size in batch:
        n *= size
    taps = None if weight is None else alike_along(call.forms, weight, range(2, len(of_w)))
    if turned:  # (in, out of a group, taps)
        per = of_w[1]
        kernel = None if taps is None else taps.reshape(groups, channels // groups, per)
        equation = "ngi,gio->ngo"
        shape = (groups, channels // groups, per)
    else:
        per = of_w[0] // groups
        kernel = None if taps is None else taps.reshape(groups, per, of_w[1])
        equation = "ngi,goi->ngo"
        shape = (groups, per, of_w[1])
    result = contracted(
        call.forms, equation, rows, kernel, ((n, groups, channels // groups), shape), (n, groups, per)
    )
    wide = None if result is None else result.reshape(*batch, groups * per, *(1,) * spatial)
    bias = call.of("bias")
    if call.shapes.get("bias") is not None:
        shifted = None if bias is None else bias.reshape(-1, *(1,) * spatial)
        wide = added(call.forms, [wide, shifted], (*batch, groups * per, *(1,) * spatial))
    return None if wide is None else wide.expand(call.shape)
