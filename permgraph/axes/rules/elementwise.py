"""Elementwise ops: those that torch does not tag as pointwise, and ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import replace

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.movement import moved, span
from permgraph.axes.reordered import in_any_order, same_values
from permgraph.axes.rules.builders import one_dim, pointwise
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.tables import computed, known

_COPIES = tuple(f"aten.{name}." for name in ("alias", "clone", "contiguous", "detach", "lift_fresh_copy"))
_COMMUTATIVE = ("add", "mul", "maximum", "minimum", "fmax", "fmin")

register("log_sigmoid_forward", "... -> ...")
register("isin", "...?, t*? -> ...", "elements", "test_elements")


@op("""permgraph.pointwise hardswish masked_fill copy floor_divide complex polar _prelu_kernel normal poisson binomial
    _standard_gamma""")
def elementwise(call: Call) -> LabelledTensor:
    """..., ... -> ..."""
    tensors = call.tensors
    if not tensors:  # of numbers alone: 16 // 4, written by torch.div
        return pinned_tensor(call.space, call.shape, "constant")
    if call.node.short_op in _COMMUTATIVE and len(tensors) == 2 and same_values(call.node, call.nodes):
        tensors = list(in_any_order(*tensors))
    result = contract(", ".join(["..."] * len(tensors)) + " -> ...", tensors, call.shape)
    return known(result, computed(call.node, call.operands))


@op("alias clone detach lift lift_fresh lift_fresh_copy _to_copy alias_copy detach_copy bernoulli _conj")
def same(call: Call) -> LabelledTensor:
    """The input itself; a table of indices keeps its contents."""
    tensor, *others = call.tensors
    call.only_shapes(*others)
    cut = any(a.part is not None for a in tensor.arrays)
    copied = call.node.op.startswith(_COPIES)
    result = moved(tensor, call.shape, tensor.arrays) if cut and copied else pointwise(tensor)
    dtypes = (tensor.dtype, call.node.results[0].dtype if call.node.results[0] else "")
    integers = all(dtype.startswith(("int", "uint8")) for dtype in dtypes)
    return replace(result, table=tensor.table) if integers else result


@op("native_dropout")
def dropout(input: LabelledTensor, call: Call) -> Results:
    """... -> ..."""
    return call.every(pointwise(input))


@op("glu")
def glu(self: LabelledTensor, dim: int) -> LabelledTensor:
    """a · σ(b) for the two halves of a dim."""
    dim = one_dim(dim, self.rank)
    half = self.shape[dim] // 2
    return pointwise(span(self, dim, 0, half), span(self, dim, half, 2 * half))
