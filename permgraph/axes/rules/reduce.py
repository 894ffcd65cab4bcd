"""Reductions: what is summed over disappears; what depends on the order of its input pins it."""

from __future__ import annotations

from typing import Any

from permgraph.axes.contraction import contract
from permgraph.axes.equal_values import EQUAL, ZEROS
from permgraph.axes.labelled_tensor import Chosen, LabelledTensor
from permgraph.axes.rules.builders import axes, dims_of, one_dim, pointwise, term
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.ir.trace import Shape

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


def choice(tensor: LabelledTensor, dim: int, shape: Shape, kept: str, call: Call) -> LabelledTensor | None:
    """The index of what is selected by value along a dim: it follows the order of coordinates there.

    `kept` names what stands at the dim in the result, "" for nothing. None where equal coordinates may be met, of
    which the first one wins: then it is a matter of position.
    """
    level = call.level("self", dim)
    if level == EQUAL or not tensor.on(dim) or all(a.pinned for a in tensor.on(dim)):
        return None
    values = contract(f"l* c r* -> l* {kept} r* c", [tensor], (*shape, tensor.shape[dim]), {"l*": dim})
    at = tuple(d for d, n in enumerate(shape) if n > 1)
    chosen = Chosen(values, at, (call.node.name,), index=True, ties=level == ZEROS)
    return LabelledTensor(tensor.space, shape, chosen=chosen)


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
    if dim is not None and 1 in call.read:
        index = choice(self, one_dim(dim, self.rank), call.shape, "!one" if keepdim else "", call)
        if index is not None:
            return reduced(self, dim, keepdim), index
    return call.every(reduced(self, dim, keepdim, ordered=1 in call.read))


@op("argmax argmin")
def position(self: LabelledTensor, dim: int | None, keepdim: bool, call: Call) -> LabelledTensor:
    """The answer is a position: it follows the coordinates that it names."""
    if dim is not None:
        index = choice(self, one_dim(dim, self.rank), call.shape, "!one" if keepdim else "", call)
        if index is not None:
            return index
    return reduced(self, dim, keepdim, ordered=True)


@op("sort topk")
def ranked(self: LabelledTensor, call: Call, dim: int) -> Results:
    """Values in their own order, whatever the order of coordinates; the index follows the coordinates it names."""
    if not self.rank:
        return call.every(self)
    dim %= self.rank
    values = contract("l* c r* -> l* !d r*", [self], call.shape, {"l*": dim})
    both, index = call.node.multiple, None
    if both and 1 not in call.read:
        return values, call.pinned("not read", 1)[0]
    index = choice(self, dim, call.shape, "!d", call)
    if index is None:
        return call.every(contract(ALONG, [self], call.shape, {"l*": dim}))
    return (values, index) if both else (index,)


@op("cummax cummin")
def scan(self: LabelledTensor, call: Call, dim: int) -> Results:
    """Ordered along a dim, which keeps positions of its own."""
    if not self.rank:
        return call.every(self)
    return call.every(contract(ALONG, [self], call.shape, {"l*": dim % self.rank}))
