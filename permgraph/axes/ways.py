"""Ways: by which movements a value came from the tensor that it was computed in, and where values come together again.

The sum of a tensor and its mirror image is the same number in two places, whatever was computed of both before, one
coordinate at a time: each place got the same two values, by ways that were exchanged. Such values are equal by
structure, although those of which they are made differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from permgraph.axes.op_kinds import MOVEMENTS, RESHAPES, UNCHANGED
from permgraph.ir.trace import Node, Shape, Trace

Way = tuple[tuple[Hashable, ...], ...]
Ways = dict[str, frozenset[Way]]  # where values were computed → by which ways they came here

MOST = 64  # ways that are told apart
_JOINS = frozenset(
    ["cat", "concat", "stack", "getitem", "gather", "index", "index_select", "pad", "constant_pad_nd"]
)
_REDUCE = frozenset(
    ["amax", "amin", "logsumexp", "linalg_vector_norm", "mean", "norm", "prod", "std", "sum", "var"]
)


def meetings(trace: Trace) -> frozenset[str]:
    """Nodes that compute with values of one tensor which came by different ways: its results may be equal by structure."""
    ways: dict[str, Ways] = {}
    met = set()
    layers = {node.name: _layer(node, trace) for node in trace.nodes}
    alike = Counter(layer for layer in layers.values() if layer is not None)
    for node in trace.nodes:
        if not node.is_float:
            continue
        if (part := _slice_of_state(node, trace)) is not None:
            ways[node.name] = {part: frozenset({()})}  # shares no number with the other slices
            continue
        given = [(i, trace.by_name[ref], ways[ref]) for i, ref in enumerate(node.refs()) if ref in ways]
        name = node.short_op
        again = alike[layers[node.name]] > 1
        if again:
            given = [one for one in given if not is_fixed(one[1], trace.by_name)]
        if name in UNCHANGED or name in MOVEMENTS or name in _JOINS or again:
            found = _joined((one, _step(node, i, source.shape)) for i, source, one in given)
        elif node.pointwise:
            found = _joined((one, None) for *_, one in given)
            if _differ([one for *_, one in given]):
                met.add(node.name)
        else:
            found = {}
            plain = not any(is_fixed(source, trace.by_name) for _, source, _ in given)
            if plain and any(
                one.keys() & other for i, (*_, one) in enumerate(given) for *_, other in given[:i]
            ):
                met.add(node.name)  # a product of values with themselves
            if name in _REDUCE and any(len(by) > 1 for *_, one in given for by in one.values()):
                met.add(node.name)
        if sum(map(len, found.values())) > MOST:
            met.add(node.name)
        ways[node.name] = {node.name: frozenset({()})} if node.name in met or not found else found
    return frozenset(met)


def _slice_of_state(node: Node, trace: Trace) -> str | None:
    """The slice of a parameter, where all that is read of it are slices along one dim."""
    source = trace.by_name.get(next(node.refs(), ""))
    if node.short_op != "select" or source is None or source.op != "state":
        return None
    rank = len(source.shape)
    dims = {
        one.options["dim"] % rank if one.short_op == "select" else None for one in trace.readers[source.name]
    }
    index, dim = node.options["index"], node.options["dim"] % rank
    if dims != {dim} or not isinstance(index, int):
        return None
    return f"{source.name}[{index % source.shape[dim]}]"


def _differ(operands: list[Ways]) -> bool:
    """Whether two operands hold values of one tensor, that came by different ways."""
    return any(
        one[root] != other[root]
        for i, one in enumerate(operands)
        for other in operands[:i]
        for root in one.keys() & other
    )


def _joined(parts: Iterable[tuple[Ways, tuple[Hashable, ...] | None]]) -> Ways:
    found: dict[str, set[Way]] = {}
    for ways, step in parts:
        for root, some in ways.items():
            found.setdefault(root, set()).update(
                some if step is None else (_longer(way, step) for way in some)
            )
    return {root: frozenset(some) for root, some in found.items()}


def _step(node: Node, operand: int, shape: Shape) -> tuple[Hashable, ...] | None:
    """What a node does with the coordinates of one of its operands; None for nothing."""
    name = node.short_op
    if name in UNCHANGED or (name == "expand" and shape == node.shape):
        return None
    if name in RESHAPES:
        return "view", shape, node.shape
    if name in ("transpose", "permute", "t"):
        return "permute", permutation(node, len(shape))
    others = tuple(
        ref for i, ref in enumerate(node.refs()) if i != operand and name not in ("cat", "concat", "stack")
    )
    return name, operand, repr(sorted(node.options.items())), shape, others


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    order = list(range(rank))
    if node.short_op == "permute":
        return tuple(dim % rank for dim in node.options["dims"])
    one, other = (node.options.get("dim0", 0), node.options.get("dim1", 1)) if rank > 1 else (0, 0)
    order[one], order[other] = order[other], order[one]
    return tuple(order)


def _longer(way: Way, step: tuple[Hashable, ...]) -> Way:
    """With one more step; what undoes the last one takes it away."""
    if way and way[-1][0] == step[0] == "view":
        before, last = way[:-1], ("view", way[-1][1], step[2])
        return before if last[1] == last[2] else (*before, last)
    if way and way[-1][0] == step[0] == "permute":
        inner, outer = way[-1][1], step[1]
        assert isinstance(inner, tuple) and isinstance(outer, tuple)
        order = tuple(inner[i] for i in outer)
        return way[:-1] if order == tuple(range(len(order))) else (*way[:-1], ("permute", order))
    return (*way, step)


def _layer(node: Node, trace: Trace) -> Hashable:
    """Equal for nodes that compute the same of what they are given: a layer that is called twice. None for other nodes."""
    if (
        node.op in ("state", "input", "output", "constant")
        or node.pointwise
        or node.short_op in MOVEMENTS | _JOINS | _REDUCE
    ):
        return None
    weights = tuple(ref for ref in node.refs() if is_fixed(trace.by_name[ref], trace.by_name))
    return node.short_op, weights, repr(sorted(node.options.items())), node.shape


def is_fixed(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether this is a parameter, in whatever order."""
    return moved_from(node, nodes).op == "state"


def moved_from(node: Node, nodes: Mapping[str, Node], kinds: frozenset[str] = MOVEMENTS) -> Node:
    """Where the values of a node were made, before these ops."""
    while node.short_op in kinds:
        node = nodes[next(iter(node.refs()))]
    return node
