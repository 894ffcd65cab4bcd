"""Merges: nodes whose operands might be equal branches, since their order is of no account, or is what comes after."""

from __future__ import annotations

from collections.abc import Iterator

from permgraph.ir.trace import Node, Ref, Trace

CHAINS = ("add", "mul", "maximum", "minimum")
JOINS = ("cat", "stack", "concat", "concatenate")

Merge = tuple[Node, list[str], frozenset[str]]  # the node, its operands, the nodes of the chain


def merges_of(trace: Trace) -> Iterator[Merge]:
    """Nodes with operands that might be alike."""
    for node in trace.nodes:
        if node.short_op in JOINS:
            yield node, [ref.node for ref in node.operands["tensors"]], frozenset([node.name])
        elif _links(node) and not _is_inside(trace, node):
            terms, chain = _chain(trace, node)
            if len(terms) > 1:
                yield node, terms, chain


def _links(node: Node) -> bool:
    """Whether a node is one of a chain whose terms have no order."""
    return (
        node.op.startswith("aten.")
        and node.short_op in CHAINS
        and not any(isinstance(v, Ref) for v in node.options.values())
        and node.options.get("alpha", 1) == 1
    )


def _is_inside(trace: Trace, node: Node) -> bool:
    """Whether the only reader is the next node of the chain."""
    readers = trace.readers.get(node.name, ())
    return len(readers) == 1 and readers[0].short_op == node.short_op and _links(readers[0])


def _chain(trace: Trace, last: Node) -> tuple[list[str], frozenset[str]]:
    terms, chain, waiting = [], {last.name}, list(last.refs())
    while waiting:
        node = trace.by_name[waiting.pop()]
        if node.short_op == last.short_op and _links(node) and _is_inside(trace, node):
            chain.add(node.name)
            waiting += node.refs()
        else:
            terms.append(node.name)
    return terms[::-1], frozenset(chain)
