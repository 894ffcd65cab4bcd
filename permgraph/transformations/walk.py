"""Walk: the forms of every tensor of a network, for unknown exponents on the weights of one unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from permgraph.ir.ref import Ref
from permgraph.ir.trace import Node, Trace
from permgraph.transformations import rows  # noqa: F401  (fills the table)
from permgraph.transformations.call import ROWS, Blocked, Call
from permgraph.transformations.forms import Algebra
from permgraph.transformations.patterns import Pattern, blocked


def walk(trace: Trace, kind: str, forms: Algebra, marked: Mapping[str, Tensor]) -> dict[str, Pattern]:
    """The equations that the network makes go to `forms`; returns the pattern of every node, of several results the first,
    and of what ops compute on their way.

    kind     "scales", "signs" or "rotations"
    marked   state tensor → its pattern
    """
    results: dict[str, list[Pattern]] = {}
    inside: dict[str, Pattern] = {}
    for node in trace.nodes:
        if node.op == "state":
            results[node.name] = [marked.get(node.options["tensor"])]
        elif node.op in ("input", "constant"):
            results[node.name] = [None]
        elif node.op == "getitem":
            several = results[node.operands["source"].node]
            index = node.options["index"]
            results[node.name] = [several[index] if index < len(several) else None]
        else:
            results[node.name] = _visit(trace, node, kind, forms, results, inside)
    return inside | {name: found[0] if found else None for name, found in results.items()}


def _visit(
    trace: Trace,
    node: Node,
    kind: str,
    forms: Algebra,
    results: Mapping[str, list[Pattern]],
    inside: dict[str, Pattern],
) -> list[Pattern]:
    patterns = {name: _patterns(value, results) for name, value in node.operands.items()}
    read = [p for p in _flat(patterns.values()) if p is not None]
    rule = ROWS.get(node.short_op.rstrip("_")) if node.op.startswith("aten.") else None
    zeros = node.short_op.startswith(("zeros", "new_zeros", "constant_pad", "pad"))
    if not read and not zeros:
        return [None] * max(len(node.results), 1)
    if rule is not None and _is_float(node):
        shapes = {name: _shapes(trace, value) for name, value in node.operands.items()}
        shapes = {name: shape for name, shape in shapes.items() if shape is not None}
        try:
            call = Call(forms, kind, node, patterns, shapes)
            done = rule(call)
            inside |= call.inside
            return list(done) if isinstance(done, (list, tuple)) else [done]  # type: ignore[list-item]
        except Blocked:
            pass
    for pattern in read:
        blocked(forms, pattern)
    return [None] * max(len(node.results), 1)


def _is_float(node: Node) -> bool:
    meta = node.results[0] if node.results else None
    return meta is not None and meta.dtype.startswith(("float", "bfloat"))


def _patterns(value: Any, results: Mapping[str, list[Pattern]]) -> Any:
    if isinstance(value, (tuple, list)):
        return [_patterns(one, results) for one in value]
    return results[value.node][0] if isinstance(value, Ref) else None


def _shapes(trace: Trace, value: Any) -> Any:
    """The shape of a tensor, a list of them, None for what is no tensor."""
    if isinstance(value, (tuple, list)):
        shapes = [_shapes(trace, one) for one in value]
        return shapes if shapes and all(shape is not None for shape in shapes) else None
    return trace.by_name[value.node].shape if isinstance(value, Ref) else None


def _flat(values: Any) -> list[Any]:
    return [leaf for v in values for leaf in (_flat(v) if isinstance(v, list) else [v])]
