"""Kernels of convolutions: the states they are, or are computed from (weight norm, weight standardisation, casts, scaling)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.state_labels import Rows, elementwise
from permgraph.ir.trace import Node, Ref, Shape, Trace

_Sources = dict[
    str, frozenset[str]
]  # node → the states it is computed from, where they are all it is computed from


def channel_blocks(trace: Trace) -> dict[str, dict[int, Rows]]:
    """State nodes that are the weight of a grouped convolution → {channel axis inside a group: an order in each group}.

    The weight is followed upwards through ops that keep its shape (weight norm, casts, scaling).
    """
    blocks: dict[str, dict[int, Rows]] = {}
    for _, kernel, groups in _kernels(trace):
        if groups > 1:
            node = trace.by_name[kernel]
            _mark(trace, node, node.shape, groups, blocks)
    return blocks


def _mark(trace: Trace, node: Node, shape: Shape, groups: int, blocks: dict[str, dict[int, Rows]]) -> None:
    if node.shape != shape:
        return
    if node.op == "state":
        blocks[node.name] = {1: Rows(0, groups)}
    elif elementwise(node) or node.op.startswith("aten._weight_norm"):
        for ref in node.refs():
            _mark(trace, trace.by_name[ref], shape, groups, blocks)


def computed_blocks(trace: Trace, labelled: Mapping[str, LabelledTensor]) -> dict[str, dict[int, Rows]]:
    """As `channel_blocks`, for states that grouped kernels are computed from in any way that leaves a row a row
    (standardisation): what is labelled says so."""
    sources, known = _sources(trace), channel_blocks(trace)
    found: dict[str, dict[int, Rows]] = {}
    for _, kernel, groups in _kernels(trace):
        for name in sources.get(kernel, ()) if groups > 1 else ():
            same = trace.by_name[name].shape == trace.by_name[kernel].shape
            if same and name not in known and _same_rows(labelled.get(name), labelled.get(kernel)):
                found[name] = {1: Rows(0, groups)}
    return found


def _same_rows(state: LabelledTensor | None, kernel: LabelledTensor | None) -> bool:
    one, other = (tensor and _rows(tensor) for tensor in (state, kernel))
    return bool(one and other and (one.labels == other.labels).all())


def _rows(tensor: LabelledTensor) -> LabelArray | None:
    return next((a for a in tensor.arrays if a.dims == (0,)), None)


def plain_kernels(trace: Trace) -> set[str]:
    """States that end as kernels of convolutions with one group, and in no other way: all their slices meet the same
    channels, however the kernel was computed (weight standardisation), so none has an order of its own. Labels of every
    coordinate of such a kernel would take long, and give nothing."""
    sources = _sources(trace)
    plain = {(node.name, kernel) for node, kernel, groups in _kernels(trace) if groups == 1}
    found, held = set[str](), set[str]()
    for node in trace.nodes:
        if node.op == "state" or (node.name in sources and node.op != "output"):
            continue
        for ref in node.refs():
            (found if (node.name, ref) in plain else held).update(sources.get(ref, ()))
    return found - held


def _sources(trace: Trace) -> _Sources:
    sources: _Sources = {}
    for node in trace.nodes:
        if node.op == "state":
            sources[node.name] = frozenset([node.name])
        elif node.op not in ("input", "output") and all(ref in sources for ref in node.refs()):
            sources[node.name] = frozenset().union(*(sources[ref] for ref in node.refs()))
    return sources


def _kernels(trace: Trace) -> Iterator[tuple[Node, str, int]]:
    """Every convolution, the node that is its kernel, and its groups."""
    for node in trace.nodes:
        weight = node.operands.get("weight")
        if node.short_op.startswith("conv") and isinstance(weight, Ref):
            yield node, weight.node, int(node.options.get("groups", 1))
