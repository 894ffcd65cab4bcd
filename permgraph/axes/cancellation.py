"""Cancellation: functions of the same values, taken together, which may be zero or one number wherever those lie.

`h + abs(h)` is zero for every negative h, `h - relu(h - 1)` is 1 for every h above 1, `h / abs(h)` is 1 or -1: a ReLU, a
clamp and a sign, by arithmetic. Two analytic functions of one number are equal at single points alone, or everywhere; so
at least one of the parts has a bend.
"""

from __future__ import annotations

from itertools import combinations
from math import prod

from permgraph.axes.op_kinds import LAYERS, MOVEMENTS, SUMS, UNCHANGED
from permgraph.ir.trace import Node, Trace

_TOTALS = frozenset(["sum", "mean", "logsumexp"])
# Without a bend. Not here: sqrt and log, since sqrt(h * h) is |h|.
_ANALYTIC = (
    (MOVEMENTS | UNCHANGED | SUMS | _TOTALS) - {"dropout"}
    | set(
        [
            "mul",
            "div",
            "true_divide",
            "reciprocal",
            "neg",
            "square",
            "pow",
            "exp",
            "expm1",
            "sigmoid",
            "tanh",
            "sin",
            "cos",
            "sinh",
            "cosh",
            "asinh",
            "atan",
            "erf",
        ]
    )
    | set(
        [
            "silu",
            "gelu",
            "mish",
            "softplus",
            "logsigmoid",
            "log_sigmoid_forward",
            "softmax",
            "_softmax",
            "log_softmax",
            "_log_softmax",
        ]
    )
    | set(["cumsum", "cat", "concat", "stack", "getitem"])
)
_GATHERS = frozenset(["index", "index_select", "gather"])  # the same values, in other places
_QUOTIENTS = frozenset(["div", "true_divide"])
_INVERSES = _QUOTIENTS | frozenset(["reciprocal", "rsqrt", "exp", "pow"])


def cancelling(trace: Trace) -> frozenset[str]:
    """Sums, products and quotients of parts that come of one tensor without a layer between, one by a function with a bend."""
    sources: dict[str, frozenset[str]] = {}  # node → where its values were computed, before elementwise ops
    bent: set[str] = set()
    inverse: set[str] = set()
    found = set()
    for node in trace.nodes:
        refs = list(node.refs())
        if not refs or not _is_elementwise(node, trace):
            sources[node.name] = frozenset([node.name])
            continue
        sources[node.name] = frozenset().union(*(sources[ref] for ref in refs))
        if bent.intersection(refs) or not _is_analytic(node):
            bent.add(node.name)
        if inverse.intersection(refs) or node.short_op in _INVERSES:
            inverse.add(node.name)
        together = node.short_op in SUMS | _QUOTIENTS or (
            node.short_op == "mul" and inverse.intersection(refs)
        )
        shared = any(sources[one] & sources[other] for one, other in combinations(refs, 2))
        if together and shared and bent.intersection(refs):
            found.add(node.name)
    return frozenset(found)


def _is_elementwise(node: Node, trace: Trace) -> bool:
    """A total of several values is a number of its own."""
    name = node.short_op
    if name in _TOTALS:
        return prod(node.shape) == prod(trace.by_name[next(node.refs())].shape)
    return (node.pointwise or name in _ANALYTIC | _GATHERS) and name not in LAYERS


def _is_analytic(node: Node) -> bool:
    name, exponent = node.short_op, node.options.get("exponent")
    if name == "pow":
        return isinstance(exponent, (int, float)) and float(exponent).is_integer()
    return name in _GATHERS or (name in _ANALYTIC and not node.options.get("rounding_mode"))
