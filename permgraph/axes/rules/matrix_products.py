"""Products: linear maps, matrix products, einsum."""

from __future__ import annotations

import string

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, equation, pointwise
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def product(context: Context, a: Value, b: Value) -> Value:
    """a @ b, with the vector cases of `torch.matmul`."""
    rank = len(a.shape), len(b.shape)
    text = {
        (True, True): "k, k -> ",
        (True, False): "k, ... k n -> ... n",
        (False, True): "... m k, k -> ... m",
        (False, False): "... m k, ... k n -> ... m n",
    }[(rank[0] == 1, rank[1] == 1)]
    lead = a.shape[:-2] if rank[0] > 1 else ()
    other = b.shape[:-2] if rank[1] > 1 else ()
    batch = tuple(max(x, y) for x, y in zip(_left(lead, other), _left(other, lead), strict=True))
    shape = batch + (a.shape[-2:-1] if rank[0] > 1 else ()) + (b.shape[-1:] if rank[1] > 1 else ())
    return contract(context, text, [a, b], shape)


def _left(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * max(0, len(other) - len(shape)) + shape


def _matmul(context: Context) -> Value:
    return product(context, context.need(0, "self"), context.need(1, "other"))


def _added(context: Context) -> Value:
    """addmm, baddbmm, addmv: input + a @ b."""
    made = product(context, context.need(1, "mat1"), context.need(2, "mat2"))
    return pointwise(context, context.need(0, "self"), made)


def _einsum(context: Context) -> Value:
    text = str(context.arg(0, "equation")).replace(" ", "")
    left, _, right = text.partition("->")
    operands = [context.value(v) for v in context.arg(1, "tensors")]
    if "->" not in text:
        once = {x for x in left if x in string.ascii_letters and left.count(x) == 1}
        right = ("..." if "..." in left else "") + "".join(sorted(once))
    terms = [_spaced(t) for t in left.split(",")]
    return contract(context, ", ".join(terms) + " -> " + _spaced(right), operands, context.node.shape)


def _spaced(term: str) -> str:
    return " ".join(term.replace("...", "@")).replace("@", "...")


# Rows sorted by expert, offsets of their runs, a matrix per expert: rows and experts are told apart by position.
_grouped = equation("!t k, !e k n, e? -> !t n")

RULES: dict[str, Rule] = {
    "linear": equation("... i, o i, o? -> ... o"),
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "vdot": _matmul,
    "addmm": _added,
    "addbmm": _added,
    "baddbmm": _added,
    "addmv": _added,
    "bilinear": equation("... i, ... j, o i j, o? -> ... o"),
    "cdist": equation("... m k, ... n k -> ... m n"),
    "_cdist_forward": equation("... m k, ... n k -> ... m n"),
    "_pdist_forward": equation("!n k -> !p"),
    "inner": equation("... k, n k -> ... n"),
    "outer": equation("i, j -> i j"),
    "einsum": _einsum,
    "_grouped_mm": _grouped,
    "transformers.grouped_mm_fallback": _grouped,
}

__all__ = ["RULES", "Result", "product"]
