"""Normalisation: the normalised axes are mixed, scales and running statistics are tied to their channels."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.equation import Equation, parse
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules.builders import axes, pointwise, term
from permgraph.axes.rules.table import op, register

SOFTMAX = "l* [c] r* -> l* c r*"
GROUPS = "b (g [c]) [s*], (g c)?, (g c)? -> b (g c) s*"

register("softmax _softmax log_softmax _log_softmax _safe_softmax", SOFTMAX, l="dim")
register("layer_norm native_layer_norm", "... [c*], c*?, c*? -> ... c*", c="normalized_shape")
register("rms_norm", "... [c*], c*? -> ... c*", c="normalized_shape")
register("group_norm", GROUPS, g="num_groups")
register("native_group_norm", GROUPS, g="group")
register("instance_norm", "b c [s*], c?, c?, c?, c? -> b c s*")

RUNNING = parse("b c s*, c?, c?, c?, c? -> b c s*")
BATCH = parse("[b] c [s*], c?, c?, c?, c? -> b c s*")


@op("""native_batch_norm cudnn_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training""")
def batch_norm(
    input: LabelledTensor,
    weight: LabelledTensor | None,
    bias: LabelledTensor | None,
    running_mean: LabelledTensor | None = None,
    running_var: LabelledTensor | None = None,
    training: bool = False,
) -> Equation:
    """Running statistics, or those of the batch: the form in which an instance norm is written."""
    return BATCH if training or running_mean is None else RUNNING


@op("_weight_norm _weight_norm_interface")
def weight_norm(v: LabelledTensor, g: LabelledTensor, dim: int) -> LabelledTensor:
    """v · g / ‖v‖, the norm over every dim but `dim`."""
    names = axes(v.rank)
    others = [d for d in range(v.rank) if d != dim % v.rank]
    normed = contract(f"{term(names, mixed=others)} -> {term(names)}", [v], v.shape)
    return pointwise(normed, g)
