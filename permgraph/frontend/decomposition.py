"""Compound ops: torch itself says what an op is made of; those that no rule reads better whole are decomposed.

An op that torch composes of others (`hstack`, `cosine_similarity`, `gru_cell`) needs no rule: its parts have
theirs. So every one is decomposed, except those in `WHOLE`, which have a rule of their own: their parts say less of
the units or of where to observe them, or they stand in most networks, and a program in which anything is decomposed
is traced a second time. Besides, the ops of `ALSO`, which torch does not compose but has a decomposition for, and those
of `OURS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from permgraph.frontend.strided import as_strided_in_parts, parts_of

# compositions that have a row in the rule table (tests/frontend/test_compound.py compares the two)
_WHOLE = """
linear matmul bilinear cdist einsum conv1d conv2d conv3d native_channel_shuffle avg_pool1d adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_max_pool1d
max_pool1d_with_indices upsample_nearest2d upsample_bilinear2d softmax log_softmax layer_norm rms_norm group_norm
instance_norm _weight_norm scaled_dot_product_attention lstm gru rnn_tanh rnn_relu pad one_hot stft
"""

_ALSO = """
mse_loss l1_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy nll_loss_forward
nll_loss2d_forward multi_margin_loss multilabel_margin_loss_forward addr trace renorm rot90 take block_diag
affine_grid_generator pdist rsub binary_cross_entropy_with_logits pixel_shuffle pixel_unshuffle im2col col2im
linalg_cross diag_embed unfold_backward
"""

WHOLE = frozenset(_WHOLE.split())
ALSO = frozenset(_ALSO.split())
OURS: dict[Any, Callable[..., Any]] = {torch.ops.aten.as_strided.default: as_strided_in_parts}
_ROUNDS = 12  # what an op is made of may be compound again


@cache
def _known() -> dict[Any, Callable[..., Any]]:
    return default_decompositions()


def run_in_parts(op: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
    """The results of an op, computed as torch composes or decomposes it; NotImplemented where it does neither."""
    if op in OURS:
        return OURS[op](*args, **kwargs)
    if composed(op):
        return op.decompose(*args, **kwargs)
    return _known()[op](*args, **kwargs) if op in _known() else NotImplemented


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The functional program, without the compound ops that have no rule."""
    table: dict[Any, Callable[..., Any]] = {}
    known = _known()
    for _ in range(_ROUNDS):
        program = program.run_decompositions(table)
        found = set(_compound(program.graph_module))
        table = {op: OURS.get(op) or known[op] for op in found if op in OURS or op in known}
        if not table:
            break
    return program


def _compound(graph: fx.GraphModule) -> Iterator[torch._ops.OpOverload]:
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            op = node.target
            if (
                isinstance(op, torch._ops.OpOverload)
                and is_decomposed(op)
                and (op not in OURS or _has_parts(node))
            ):
                yield op


def _has_parts(node: fx.Node) -> bool:
    """Whether `as_strided` has a form that is known."""
    given: Any = fx.node.map_arg(node.args, lambda n: n.meta["val"])
    return parts_of(*given) is not None


def is_decomposed(op: torch._ops.OpOverload) -> bool:
    """Whether an op is one to decompose: it makes a tensor of tensors, and is compound or listed."""
    if op.namespace != "aten" or torch.Tag.pointwise in op.tags:
        return False
    name = str(op).split(".")[1]
    if name in ALSO or op in OURS:
        return True
    return name not in WHOLE and composed(op) and makes_tensors(op)


def composed(op: torch._ops.OpOverload) -> bool:
    """Whether torch implements the op by others (CompositeImplicitAutograd)."""
    try:
        name = op.name()  # type: ignore[no-untyped-call]
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))
    except RuntimeError:  # known by name only
        return False


def makes_tensors(op: torch._ops.OpOverload) -> bool:
    schema = op._schema
    return any("Tensor" in str(a.type) for a in schema.arguments) and any(
        "Tensor" in str(r.type) for r in schema.returns
    )
