"""Inputs: numbers for the example's tensors that are empty: noise, or token ids inside their vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from permgraph.ir.trace import Node, Ref, Trace

if TYPE_CHECKING:
    from permgraph.frontend.sources import Source

_SAME_VALUES = """view reshape _unsafe_view unsqueeze squeeze clone to _to_copy expand contiguous slice select alias
detach permute transpose t flatten repeat lift_fresh_copy"""
_LOOK_UPS = {  # names of the table and of what looks rows up in it
    "embedding": ("weight", "indices"),
    "_embedding_bag": ("weight", "indices"),
    "_embedding_bag_forward_only": ("weight", "indices"),
    "index_select": ("self", "index"),
    "index": ("self", "indices"),
}


def random_inputs(source: Source, trace: Trace | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of the example's shapes. Tensors that are all zero are filled; others are the user's, and stay.

    Floats are standard normal. Integers that look rows up in a table are drawn inside it, when the trace is given and
    shows the table; other integers stay 0.
    """
    import torch
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, tree = tree_flatten((tuple(source.args), dict(source.kwargs)))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    sizes = vocabularies(trace) if trace is not None else []
    known = dict(zip(tensors, sizes, strict=True)) if len(sizes) == len(tensors) else {}
    generator = torch.Generator().manual_seed(1)
    for i in tensors:
        leaf = torch.zeros(leaves[i].shape, dtype=leaves[i].dtype) if leaves[i].is_meta else leaves[i]
        size = known.get(i)
        if not bool(leaf.any()) and leaf.is_floating_point():
            leaf = torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        elif not bool(leaf.any()) and size and leaf.dtype != torch.bool:
            leaf = torch.randint(0, size, leaf.shape, generator=generator, dtype=leaf.dtype)
        leaves[i] = leaf
    args, kwargs = tree_unflatten(leaves, tree)
    return args, kwargs


def vocabularies(trace: Trace) -> list[int | None]:
    """For every input of a trace: the rows of the smallest table that it looks up; None when it looks up none."""
    inputs = [node for node in trace.nodes if node.op == "input"]
    return [min(_tables(node, trace.readers, trace.by_name), default=None) for node in inputs]


def _tables(start: Node, users: Mapping[str, list[Node]], nodes: Mapping[str, Node]) -> Iterator[int]:
    """Sizes of the tables that the values of a node index, as they are or re-arranged."""
    todo, seen = [start.name], {start.name}
    while todo:
        name = todo.pop()
        for node in users.get(name, ()):
            op = node.short_op
            if op in _LOOK_UPS:
                yield from _rows(node, name, *_LOOK_UPS[op], nodes)
            elif op in _SAME_VALUES.split() and node.name not in seen:
                seen.add(node.name)
                todo.append(node.name)


def _rows(node: Node, ids: str, table: str, at: str, nodes: Mapping[str, Node]) -> Iterator[int]:
    shape, index = nodes[node.operands[table].node].shape, node.operands[at]
    if isinstance(index, tuple):  # one index per axis
        yield from (shape[i] for i, ref in enumerate(index) if ref == Ref(ids) and i < len(shape))
    elif index == Ref(ids) and shape:
        yield shape[node.options.get("dim", 0)]
