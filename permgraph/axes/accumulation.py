"""Accumulation: what is added or written into a tensor turn by turn, as a sum of terms.

Experts that a loop calls one by one put their results into one tensor: by `index_add`, or by `where` and masks that no
two of them share. The order of the turns is of no account then, which a sum of terms shows and a chain of writes does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from permgraph.ir.trace import Node, Ref, Trace

_SUFFIX = "+"  # in the names of nodes that only stand for part of another
_ADDS = ("index_add", "scatter_add")
_SAME = ("unsqueeze", "view", "expand", "clone", "_to_copy", "squeeze")

Mask = tuple[str, int, str]  # an index, the number it is compared with, what was done to the result


def accumulated(trace: Trace) -> Trace:
    """The same network, with every write of a term as an addition; itself where there is none."""
    writes = {node.name: node for node in trace.nodes if _adds(node)} | _disjoint(trace)
    if not writes:
        return trace
    nodes: list[Node] = []
    for node in trace.nodes:
        nodes += _as_sum(node) if node.name in writes else [node]
    return replace(trace, nodes=tuple(nodes))


def shown(name: str) -> str:
    """The node of the network that a node is part of."""
    return name.partition(_SUFFIX)[0]


def _adds(node: Node) -> bool:
    options = node.options
    if node.short_op in _ADDS:
        return bool(options.get("alpha", 1) == 1)
    return node.short_op == "index_put" and bool(options.get("accumulate"))


def _base(node: Node) -> str:
    """The operand into which a node writes."""
    return "other" if node.short_op == "where" else "self"


def _as_sum(node: Node) -> list[Node]:
    base = _base(node)
    about: dict[str, Any] = {"module": node.module, "module_type": node.module_type, "source": node.source}
    zero = Node(f"{node.name}{_SUFFIX}zero", "aten.zeros.default", results=node.results, **about)
    term = replace(node, name=f"{node.name}{_SUFFIX}term", operands=node.operands | {base: Ref(zero.name)})
    added = {"self": node.operands[base], "other": Ref(term.name)}
    total = Node(node.name, "aten.add.Tensor", added, {"alpha": 1}, node.results, pointwise=True, **about)
    return [zero, term, total]


def _disjoint(trace: Trace) -> dict[str, Node]:
    """Chains of writes under masks of which no two hold at one place: one index compared with different numbers."""
    found: dict[str, Node] = {}
    for node in reversed(trace.nodes):
        if node.name in found or (mask := _mask(trace, node)) is None:
            continue
        chain, numbers = [node], {mask[1]}
        while (before := _before(trace, chain[-1])) is not None:
            other = _mask(trace, before)
            if other is None or (other[0], other[2]) != (mask[0], mask[2]) or other[1] in numbers:
                break
            numbers.add(other[1])
            chain.append(before)
        if len(chain) > 1:
            found |= {n.name: n for n in chain}
    return found


def _before(trace: Trace, node: Node) -> Node | None:
    """The node into whose result this one writes, if nothing else reads it."""
    ref = node.operands.get(_base(node))
    if not isinstance(ref, Ref) or len(trace.readers[ref.node]) > 1:
        return None
    return trace.by_name[ref.node]


def _mask(trace: Trace, node: Node) -> Mask | None:
    """The mask under which a node writes, when it is an index compared with a number."""
    if node.short_op == "where" and "condition" in node.operands:
        ref = node.operands["condition"]
    elif node.short_op == "index_put" and len(node.operands["indices"]) == 1:
        ref = node.operands["indices"][0]
    else:
        return None
    path: list[tuple[str, tuple[int, ...]]] = []
    while isinstance(ref, Ref):
        at = trace.by_name[ref.node]
        if at.short_op == "eq":
            number, index = at.operands.get("other", at.options.get("other")), at.operands.get("self")
            if isinstance(number, int) and isinstance(index, Ref):
                return index.node, number, repr(path)
            return None
        if at.short_op not in _SAME:
            return None
        path.append((at.short_op, at.shape))
        ref = at.operands.get("self")
    return None
