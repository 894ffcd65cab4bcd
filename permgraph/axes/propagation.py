"""Propagate: one pass over a Trace, in order, that labels every tensor and collects ties, links and pins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.points import without_rule
from permgraph.axes.rules import pin_everything, rule_of
from permgraph.axes.rules.builders import Result
from permgraph.axes.tensor_labels import Array, Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Node, Ref, StateTensor, Trace

_SILENT = ("aten._assert", "aten.sym_", "<", "aten._local_scalar", "aten.item")


def propagate(trace: Trace, free_output: bool = False) -> Context:
    """Label the whole network.

    `free_output` leaves the channels of the outputs free to move; otherwise the output pins them.
    """
    context = Context()
    context.users = _users(trace)
    context.dtypes = {n.name: (n.results[0].dtype if n.results and n.results[0] else "") for n in trace.nodes}
    blocks = _channel_blocks(trace)
    for node in trace.nodes:
        context.enter(node, "")
        if node.op == "state":
            tensor = trace.state[node.args[0]]
            context.values[node.name] = _state(context, tensor, node, blocks.get(node.name, {}))
        elif node.op == "input":
            context.values[node.name] = context.pinned_value(node.shape, "input")
        elif node.op == "constant":
            context.values[node.name] = _constant(context, node)
        elif node.op == "getitem":
            context.values[node.name] = _getitem(context, node)
        elif node.op == "output":
            _output(context, node, free_output)
        else:
            _call(context, node)
    context.pin_unread()
    return context


def _users(trace: Trace) -> set[tuple[str, int]]:
    """(node, index) of every result of a multiple-result op that something reads."""
    return {
        (n.args[0].node, n.args[1]) for n in trace.nodes if n.op == "getitem" and isinstance(n.args[0], Ref)
    }


def _state(context: Context, tensor: StateTensor, node: Node, blocks: dict[int, int]) -> Value:
    """Fresh points for every axis; integer buffers (position tables) are constants."""
    if not tensor.dtype.startswith(("float", "bfloat", "complex")):
        return _constant(context, node)
    arrays = []
    for axis, size in enumerate(tensor.shape):
        if size > 1 and axis not in blocks:
            arrays.append(Array((axis,), context.points.fresh((size,), tensor.name, axis)))
    for axis, groups in blocks.items():
        if tensor.shape[axis] > 1:
            outer = next((a for a in arrays if a.dims == (0,)), None)
            arrays.append(_blocked(context, tensor, axis, groups, outer))
    return Value(tensor.shape, tuple(arrays), weight=True, name=node.name)


def _blocked(context: Context, tensor: StateTensor, axis: int, groups: int, outer: Array | None) -> Array:
    """The weight of a grouped convolution orders this axis separately in each block of axis 0.

    Labels (groups, size), repeated over the rows of a block. Rows and columns of a block stay together.
    """
    labels = context.points.fresh((groups, tensor.shape[axis]), tensor.name, axis)
    if outer is not None:
        columns = context.block(labels, (0,), False, False)
        rows = context.block(outer.labels.reshape(groups, -1), (0,), False, False)
        context.points.tie(columns, rows)
    return Array((0, axis), np.repeat(labels, tensor.shape[0] // groups, axis=0), repeats=True)


def _channel_blocks(trace: Trace) -> dict[str, dict[int, int]]:
    """State nodes that are the weight of a grouped convolution → {channel axis inside a group: groups}.

    The weight is followed upwards through ops that keep its shape (weight norm, casts, scaling).
    """
    found: dict[str, dict[int, int]] = {}
    for node in trace.nodes:
        if not node.op.startswith(("aten.conv", "aten.conv_transpose", "aten.convolution")):
            continue
        at = 8 if node.op.startswith("aten.convolution") else 6
        groups = node.args[at] if len(node.args) > at else node.kwargs.get("groups", 1)
        if groups > 1 and isinstance(node.args[1], Ref):
            _mark(trace, node.args[1].node, trace.by_name[node.args[1].node].shape, groups, found)
    return found


def _mark(
    trace: Trace, name: str, shape: tuple[int, ...], groups: int, found: dict[str, dict[int, int]]
) -> None:
    node = trace.by_name[name]
    if node.shape != shape:
        return
    if node.op == "state":
        found[name] = {1: groups}
    elif node.pointwise or "_weight_norm" in node.op or "clone" in node.op or "_to_copy" in node.op:
        for ref in node.refs():
            _mark(trace, ref, shape, groups, found)


def _constant(context: Context, node: Node) -> Value:
    """Known tables keep their values; a table that is the same everywhere carries no array."""
    table = None if node.value is None else np.asarray(node.value)
    if table is not None and (table.ndim == 0 or (table.size and bool((table == table.flat[0]).all()))):
        return Value(node.shape, (), True, np.broadcast_to(table, node.shape), node.name)
    return replace(context.pinned_value(node.shape, "constant", weight=True), table=table)


def _getitem(context: Context, node: Node) -> Value:
    found = context.values[node.args[0].node]
    value = found[node.args[1]] if isinstance(found, tuple) else found
    assert value is not None
    return replace(value, name=node.name)


def _output(context: Context, node: Node, free: bool) -> None:
    for index, ref in enumerate(node.args):
        value = context.value(ref)
        if value is None:
            continue
        context.outputs.append((f"output:{index}", value))
        context.enter(node, f"output {index}")
        # an array over several axes moves none of them as a whole, so it could not be put back in order
        context.pin([a for a in value.arrays if not free or len(a.dims) > 1], "output")


def _call(context: Context, node: Node) -> None:
    if node.op.startswith(_SILENT) or not any(node.results):
        context.values[node.name] = Value(())
        return
    rule = rule_of(node.op, node.pointwise)
    context.enter(node, (rule.__doc__ or "").strip().splitlines()[0] if rule and rule.__doc__ else node.op)
    if rule is None:
        made = _unknown(context, node)
    else:
        try:
            made = rule(context)
        except (NotImplementedError, IndexError, KeyError, ValueError, TypeError, AssertionError):
            # a form of the op that the rule does not cover: treated as an op without a rule
            made = _unknown(context, node)
        if isinstance(made, Value) and made.shape != node.shape:
            made = _unknown(context, node)
    context.values[node.name] = (
        replace(made, name=node.name) if isinstance(made, Value) else made or Value(())
    )


def _unknown(context: Context, node: Node) -> Result:
    """Pin and report. Where nothing free enters, a missing rule costs nothing and is not reported."""
    reason = without_rule(node.op)
    if any(not a.pinned for v in context.refs() for a in v.arrays):
        context.unknown.append(node)
    return pin_everything(context, reason)
