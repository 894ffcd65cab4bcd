"""Own weights: the dims of an activation along which every coordinate has weights of its own.

Along them values differ, whatever they were computed of: the outputs of a linear layer. Along all other dims values are
as equal as those that the layer was given: its samples, its frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from permgraph.axes.op_kinds import CUTTINGS, RESHAPES, UNCHANGED
from permgraph.axes.ways import is_fixed, permutation
from permgraph.ir.trace import Node, Ref, Shape, Trace

Dims = frozenset[int]

_MATRICES = ("mm", "bmm", "matmul", "addmm", "baddbmm", "addbmm")
_LAST = ("linear", "bilinear", "lstm", "gru", "rnn_tanh", "rnn_relu", "embedding")
_DISTANCES = ("cdist", "_cdist_forward")
_ATTENTION = ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
_SAME = (
    UNCHANGED
    | CUTTINGS - {"select", "unbind"}
    | frozenset(
        ["cumsum", "flip", "log_softmax", "_log_softmax", "roll", "softmax", "_softmax", "sort", "topk"]
    )
)
_REDUCE = ("amax", "amin", "logsumexp", "linalg_vector_norm", "mean", "norm", "std", "sum", "var")
_NORMS = (
    "batch_norm",
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "group_norm",
    "native_group_norm",
)
_LAYER_NORMS = ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")


def own_weights(trace: Trace) -> dict[str, Dims]:
    """For every node, these dims of its (first) result; a dim that is missing may be one of them."""
    found: dict[str, Dims] = {}
    for node in trace.nodes:
        if not node.is_float:
            continue
        sources = [trace.by_name[ref] for ref in node.refs() if trace.by_name[ref].is_float]
        if node.op in ("state", "input") or (sources and all(is_fixed(s, trace.by_name) for s in sources)):
            found[node.name] = frozenset(range(len(node.shape)))
        else:
            found[node.name] = frozenset(_dims(node, sources, found, trace.by_name))
    return found


def _dims(
    node: Node, sources: Sequence[Node], found: Mapping[str, Dims], nodes: Mapping[str, Node]
) -> set[int]:
    name, rank = node.short_op, len(node.shape)
    if not sources:
        return set()
    first = sources[0]
    own = found.get(first.name, frozenset())
    if (made := _made(node, sources, found, nodes)) is not None:
        return made
    if name in _NORMS or name in _LAYER_NORMS:
        weighed = (
            {1} if name in _NORMS else set(range(rank - len(node.options.get("normalized_shape", ())), rank))
        )
        return set(own) | (weighed if _has_weight(node, nodes) else set())
    if name in RESHAPES:
        return _reshaped(first.shape, node.shape, own)
    if name in ("transpose", "permute", "t"):
        return {i for i, dim in enumerate(permutation(node, rank)) if dim in own}
    if name == "expand":
        more = rank - len(first.shape)
        return {d + more for d in own if first.shape[d] == node.shape[d + more]}
    if name == "select":
        at = node.options.get("dim", 0) % len(first.shape)
        return {d - (d > at) for d in own if d != at}
    if name in _REDUCE:
        return _reduced(node, first, own)
    if name in _SAME or name == "cat" or (node.op == "getitem" and len(first.shape) == rank):
        return {d for d in own if all(d in found.get(s.name, ()) for s in sources)}
    if node.pointwise:
        return {d for d in range(rank) if all(_is_own(s, d - rank, found) for s in sources)}
    return set()


def _is_own(source: Node, back: int, found: Mapping[str, Dims]) -> bool:
    """Along a dim counted from the end; of an operand that is the same along it nothing is asked."""
    dim = len(source.shape) + back
    return dim < 0 or source.shape[dim] == 1 or dim in found.get(source.name, ())


def _made(
    node: Node, sources: Sequence[Node], found: Mapping[str, Dims], nodes: Mapping[str, Node]
) -> set[int] | None:
    """Of a product; None for other ops."""
    name, rank = node.short_op, len(node.shape)
    if name in _LAST or name.startswith("conv"):
        weight = node.operands.get("weight")
        if isinstance(weight, Ref) and not _has_weight(node, nodes):
            return set()  # a weight that is computed
        if name in _LAST:
            return {rank - 1}
        return {rank - len(nodes[weight.node].shape) + 1} if isinstance(weight, Ref) else set()
    if name in _ATTENTION and len(sources) > 2:
        return {rank - 1} if len(sources[2].shape) - 1 in found.get(sources[2].name, ()) else set()
    if name == "einsum":
        return _of_equation(str(node.options.get("equation", "")), sources, nodes)
    if name not in (*_MATRICES, *_DISTANCES) or len(sources) < 2:
        return None
    left, right = sources[-2:]
    if min(len(left.shape), len(right.shape)) < 2:
        return set()
    # of the dims of the right operand, the one that is not a dim of the result
    row = -1 if name in _DISTANCES else -2
    dims = {rank - 1} if _is_own(right, -3 - row, found) else set()
    dims |= {rank - 2} if _is_own(left, -2, found) else set()
    for fixed in (s for s in (left, right) if is_fixed(s, nodes)):
        dims |= {rank - back for back in range(3, len(fixed.shape) + 1) if fixed.shape[-back] > 1}
    return dims


def _has_weight(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether its weight is a parameter, and not computed."""
    weight = node.operands.get("weight")
    return isinstance(weight, Ref) and is_fixed(nodes[weight.node], nodes)


def _of_equation(equation: str, sources: Sequence[Node], nodes: Mapping[str, Node]) -> set[int]:
    """The letters of weights."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(sources):
        return set()
    letters = {x for term, s in zip(terms, sources, strict=True) if is_fixed(s, nodes) for x in term}
    return {i for i, x in enumerate(right) if x in letters}


def _reshaped(before: Shape, after: Shape, own: Dims) -> set[int]:
    """Dims of a reshape's result: those that were put together of such dims, or cut out of them."""
    dims: set[int] = set()
    i = j = 0
    while i < len(before) and j < len(after):
        i_end, j_end = i + 1, j + 1
        while prod(before[i:i_end]) != prod(after[j:j_end]):
            if prod(before[i:i_end]) < prod(after[j:j_end]):
                i_end += 1
            else:
                j_end += 1
            if i_end > len(before) or j_end > len(after):
                return dims
        if all(d in own or before[d] == 1 for d in range(i, i_end)):
            dims.update(range(j, j_end))
        i, j = i_end, j_end
    return dims


def _reduced(node: Node, source: Node, own: Dims) -> set[int]:
    given: Any = node.options.get("dim")
    rank = len(source.shape)
    over = (
        {d % rank for d in ((given,) if isinstance(given, int) else given or range(rank))} if rank else set()
    )
    left = [d for d in range(rank) if d not in over]
    if len(node.shape) == rank:
        return {d for d in left if d in own}
    return {i for i, d in enumerate(left) if d in own}
