"""Reductions: what is summed over disappears; what depends on the order of its input pins it."""

from __future__ import annotations

from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules.builders import axes, dims_of, pointwise, term
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register

ALONG = "l* !c r* -> l* !d r*"

register("dist", "..., ... -> ")
register("histc", "x* -> !bins")
register("cumsum cumprod logcumsumexp", ALONG, l="dim")


def reduced(tensor: LabelledTensor, dim: Any, keep: bool, ordered: bool = False) -> LabelledTensor:
    """Sum-like over some dims (None: all); with `ordered` the coordinates there may not move."""
    dims, names = dims_of(dim, tensor.rank), axes(tensor.rank)
    left = term(names, ordered=dims if ordered else ())
    right = " ".join("!one" if d in dims else x for d, x in enumerate(names) if keep or d not in dims)
    shape = tuple(1 if d in dims else n for d, n in enumerate(tensor.shape) if keep or d not in dims)
    return contract(f"{left} -> {right}", [tensor], shape)


@op("""sum mean amax amin prod logsumexp nansum count_nonzero any all _is_all_true _is_any_true var std norm
    linalg_vector_norm""")
def reduction(self: LabelledTensor, dim: Any = None, keepdim: bool = False) -> LabelledTensor:
    """... c -> ..."""
    return reduced(self, dim, keepdim)


@op("var_mean std_mean aminmax")
def two_reductions(self: LabelledTensor, call: Call, dim: Any = None, keepdim: bool = False) -> Results:
    """Two reductions of one input, neither of which depends on order."""
    return call.every(reduced(self, dim, keepdim))


@op("max min median nanmedian mode kthvalue")
def extreme(
    self: LabelledTensor,
    call: Call,
    dim: int | None = None,
    keepdim: bool = False,
    other: LabelledTensor | None = None,
) -> LabelledTensor | Results:
    """The value is order-free; where it stands is not, if anything reads it."""
    if other is not None:
        return pointwise(self, other)
    return call.every(reduced(self, dim, keepdim, ordered=1 in call.read))


@op("argmax argmin")
def position(self: LabelledTensor, dim: int | None, keepdim: bool) -> LabelledTensor:
    """The answer is a position, so positions are pinned."""
    return reduced(self, dim, keepdim, ordered=True)


@op("cummax cummin sort topk")
def scan(self: LabelledTensor, call: Call, dim: int) -> Results:
    """Ordered along a dim, which keeps positions of its own."""
    if not self.rank:
        return call.every(self)
    return call.every(contract(ALONG, [self], call.shape, {"l*": dim % self.rank}))
