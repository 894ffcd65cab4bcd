"""Propagate: one pass over a Trace, in order, that labels every tensor and collects ties, links and pins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from permgraph.axes.contraction import settled, without_singles
from permgraph.axes.equal_values import equal_values
from permgraph.axes.flat_state import Region, flat_state, label_region
from permgraph.axes.kernels import channel_blocks
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.merges import JOINS
from permgraph.axes.mirrored import Mirrored
from permgraph.axes.op_kinds import MOVEMENTS
from permgraph.axes.outputs import axis_by_axis
from permgraph.axes.points import Points, without_rule
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules import Call, Results, results_of, rule_of
from permgraph.axes.rules.rule import flat
from permgraph.axes.side_by_side import Sides
from permgraph.axes.slices import Slices, slices_of, slicing
from permgraph.axes.state_labels import constant_arrays, elementwise_integers, label_state
from permgraph.axes.usage import Usage, usage
from permgraph.axes.workspace import ORDERED, READ, Workspace
from permgraph.errors import RuleError
from permgraph.ir.trace import Node, Ref, Trace

# Ops whose rules are movements and equations, which follow what was chosen by value.
BY_CHOICE = MOVEMENTS | frozenset(
    [
        "embedding",
        "index",
        "index_select",
        "gather",
        "take_along_dim",
        "scatter",
        "one_hot",
        "linear",
        "mm",
        "bmm",
        "matmul",
        "addmm",
        "baddbmm",
        "einsum",
        "layer_norm",
        "rms_norm",
        "native_layer_norm",
        "softmax",
        "_softmax",
        "silu",
        "gelu",
        "glu",
        "relu6",
        "leaky_relu",
        "hardtanh",
        "hardswish",
        "elu",
        "mish",
        "softplus",
    ]
)
_NUMBERS = (
    "aten._assert",
    "aten.sym_",
    "<",
    "aten._local_scalar",
    "aten.item",
)  # their results are no tensors
_METADATA = ("aten._assert_tensor_metadata", "aten.sym_", "permgraph.size")  # they look at no value


@dataclass(frozen=True)
class Propagation:
    """What one pass found.

    points    of every axis, with what relates them
    outputs   the outputs by name ("output:0")
    results   node → its labelled result, the first where it has several
    unknown   nodes whose op has no rule for what it was asked, with what the rule said of it ("": no rule)
    usage     producers and consumers of weights, probes, and what structure says of points
    slices    axes of weights that may have an order in each slice
    chose     whether anything was chosen by value or by index
    """

    points: Points
    outputs: list[tuple[str, LabelledTensor]]
    results: dict[str, LabelledTensor]
    unknown: list[tuple[Node, str]]
    usage: Usage
    slices: Slices
    chose: bool


def propagate(
    trace: Trace,
    free_output: bool = False,
    slices: Slices | None = None,
    sides: Sides | None = None,
    settles: bool = False,
) -> Propagation:
    """Label the whole network.

    Args:
        free_output: leave the channels of the outputs free to move; otherwise the output pins them.
        slices: axes of weights that are labelled separately in each slice, as a first pass found them.
        settles: forget what was chosen where that costs no order, so that what lies behind it can be observed.
        sides: equal branches, whose ends have no order that what reads them could rely on.

    Raises RuleError where a rule is mistaken.
    """
    return _Pass(trace, free_output, slices or {}, sides, settles).run()


class _Pass:
    """The nodes of one trace, in order."""

    def __init__(
        self, trace: Trace, free_output: bool, slices: Slices, sides: Sides | None, settles: bool
    ) -> None:
        self.per_slice = slices
        self.trace, self.free_output = trace, free_output
        self.space = Workspace(sides)
        self.merges = sides.merges if sides else frozenset[str]()
        self.space.slicing, self.space.settles = slicing(trace), settles or bool(slices)
        self.space.mirrored = Mirrored(trace).dims
        self.results: dict[str, tuple[LabelledTensor | None, ...]] = {}
        self.outputs: list[tuple[str, LabelledTensor]] = []
        self.unknown: list[tuple[Node, str]] = []
        self.blocks = channel_blocks(trace)
        self.levels = cache(lambda: equal_values(trace))  # few networks select
        self.flat = flat_state(trace)
        self.shown: dict[Region, LabelledTensor] = {}
        self.elementwise = elementwise_integers(trace)
        self.read: dict[str, set[int]] = {}  # which results of a node with several are read
        for node in trace.nodes:
            if node.op == "getitem":
                self.read.setdefault(node.operands["source"].node, set()).add(node.options["index"])

    def run(self) -> Propagation:
        for node in self.trace.nodes:
            self.space.enter(node, "")
            results = self.visit(node)
            if node.name in self.merges:
                results = tuple(result and self.merged(node, result) for result in results)
            self.results[node.name] = tuple(
                result and replace(result, name=node.name, dtype=meta.dtype if meta else "")
                for result, meta in zip(results, node.results or (None,), strict=True)
            )
        self.space.pin_unread()
        shown = {name: results[0] for name, results in self.results.items() if results and results[0]}
        found = usage(self.space.points, self.space.record, shown, self.space.inside)
        slices = {} if self.per_slice else self.slices(shown)
        return Propagation(
            self.space.points, self.outputs, shown, self.unknown, found, slices, self.space.chose
        )

    def merged(self, node: Node, result: LabelledTensor) -> LabelledTensor:
        """The end of equal branches: positions that one of them made are positions of the whole, but where the branches
        stand one after another, they are told by what relates them, like channels."""
        along = node.options.get("dim") if node.short_op in JOINS else None
        dim = None if along is None else along % len(node.shape)
        arrays: list[LabelArray] = []
        for array in result.arrays:
            if array.pinned and dim in array.dims:
                array = replace(array, pinned=False)
            elif array.pinned:
                array = replace(array, labels=self.space.fresh_pinned(array.labels.shape, ORDERED))
            elif dim in array.dims:  # an axis of its own: what of it is one unit further on is two here
                labels = self.space.points.fresh(array.labels.shape)
                self.space.points.tie(labels, array.labels)
                array = replace(array, labels=labels)
            arrays.append(array)
        return replace(result, arrays=tuple(arrays))

    def slices(self, labelled: dict[str, LabelledTensor]) -> Slices:
        """Which axes of the state have an order in each slice."""
        moving = [tensor for _, tensor in self.outputs] if self.free_output else []
        return slices_of(self.trace, self.space.points, self.space.record, labelled, moving)

    def visit(self, node: Node) -> Results:
        if node.name in self.flat.hidden:  # read through views alone, which are labelled instead
            return (LabelledTensor(self.space, node.shape, weight=True),)
        if node.name in self.flat.regions:
            region = self.flat.regions[node.name]
            if region not in self.shown:
                self.shown[region] = label_region(self.space, region)
            return (self.shown[region],)
        if node.op == "state":
            tensor = self.trace.state[node.options["tensor"]]
            if tensor.dtype.startswith(("float", "bfloat", "complex")) or node.name in self.elementwise:
                blocks = self.blocks.get(node.name, {})
                slices = self.per_slice.get(node.name, {})
                rows = {axis: r for axis, r in slices.items() if r.axis not in blocks} | blocks
                return (label_state(self.space, tensor, rows),)
            return (self.constant(node),)
        if node.op == "input":
            return (pinned_tensor(self.space, node.shape, "input"),)
        if node.op == "constant":
            return (self.constant(node),)
        if node.op == "getitem":
            return (self.results[node.operands["source"].node][node.options["index"]],)
        return self.output(node) if node.op == "output" else self.call(node)

    def constant(self, node: Node) -> LabelledTensor:
        """Known tables keep their values; a table that is the same everywhere carries no array."""
        table = None if node.value is None else np.asarray(node.value)
        if table is not None and (table.ndim == 0 or (table.size and bool((table == table.flat[0]).all()))):
            return LabelledTensor(self.space, node.shape, (), True, np.broadcast_to(table, node.shape))
        meta = node.results[0] if node.results else None
        if table is not None and meta is not None and meta.dtype.startswith(("float", "bool")):
            return LabelledTensor(self.space, node.shape, constant_arrays(self.space, table), True, table)
        return replace(pinned_tensor(self.space, node.shape, "constant", weight=True), table=table)

    def output(self, node: Node) -> Results:
        for index, ref in enumerate(node.operands["outputs"]):
            tensor = self.tensor(ref)
            if tensor is not None:
                self.outputs.append((f"output:{index}", tensor))
                self.space.enter(node, f"output {index}")
                tensor = without_singles(settled(tensor))
                arrays = tuple(map(self.space.used_part, tensor.arrays))
                if self.free_output:
                    arrays = axis_by_axis(self.space, arrays)
                else:
                    self.space.pin(arrays, "output")
                self.outputs[-1] = (f"output:{index}", replace(tensor, arrays=arrays))
        return (None,)

    def tensor(self, value: Any) -> Any:
        """What a rule sees of an operand: a tensor of its own for each time that one is read."""
        if isinstance(value, (tuple, list)):
            return tuple(self.tensor(v) for v in value)
        if not isinstance(value, Ref):
            return None
        results = self.results[value.node]
        first = results[0] if results else None
        return replace(first) if first else None

    def call(self, node: Node) -> Results:
        if node.op.startswith(_NUMBERS) or not any(node.results):
            return self.number(node)
        rule = rule_of(node.op, node.pointwise)
        operands = {name: self.tensor(value) for name, value in node.operands.items()}
        read = frozenset(self.read.get(node.name, ()) if node.multiple else (0,))
        if node.short_op not in BY_CHOICE and not node.pointwise:
            operands = {name: _settled(value) for name, value in operands.items()}
        call = Call(self.space, node, operands, read, self.levels, self.trace.by_name)
        if rule is None:
            return self.without_rule(call, "")
        self.space.enter(node, rule.text or node.op)
        try:
            results = results_of(rule, call)
        except UnsupportedForm as refusal:
            return self.without_rule(call, str(refusal))
        except Exception as error:
            raise RuleError(_mistake(node, f"{type(error).__name__}: {error}")) from error
        return self.checked(call, results)

    def number(self, node: Node) -> Results:
        """A number that code goes on with: it was made of its operands as they lie."""
        self.space.enter(node, READ)
        for value in () if node.op.startswith(_METADATA) else node.operands.values():
            for tensor in filter(None, flat([self.tensor(value)])):
                self.space.pin(without_singles(settled(tensor)).arrays, READ)
        return tuple(LabelledTensor(self.space, ()) for _ in node.results or (None,))

    def checked(self, call: Call, results: Results) -> Results:
        """One result per result of the op, each of its shape."""
        shapes = [None if r is None else r.shape for r in results]
        wanted = [m and m.shape for m in call.node.results]
        if len(shapes) == len(wanted) and all(a in (None, b) for a, b in zip(shapes, wanted, strict=True)):
            return results
        raise RuleError(
            _mistake(call.node, f"it gives results of shapes {shapes}, and the op gives {wanted}")
        )

    def without_rule(self, call: Call, refusal: str) -> Results:
        """Pin and report. Where nothing free enters, a missing rule costs nothing and is not reported."""
        node, reason = call.node, without_rule(call.node.op)
        if any(not a.pinned for tensor in call.tensors for a in tensor.arrays):
            self.unknown.append((node, refusal))
        self.space.enter(node, reason)
        return call.pin_all(reason)


def _settled(value: Any) -> Any:
    """Tensors for a rule that knows nothing of what was chosen by value."""
    if isinstance(value, tuple):
        return tuple(map(_settled, value))
    return settled(value) if isinstance(value, LabelledTensor) else value


def _mistake(node: Node, what: str) -> str:
    at = f"{node.name} ({node.source})" if node.source else node.name
    return f"the rule of {node.op} failed at {at}: {what}. Correct the rule, or let it raise UnsupportedForm."
