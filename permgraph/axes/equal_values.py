"""Equal values: whether coordinates of an activation may hold one value, so that a selection has to break ties.

What argmax, topk and sort return does not depend on the order of coordinates, unless some are equal: then the first
one wins. Values that come out of weights in general position differ; those behind a ReLU may all be zero, and those
behind a comparison, a rounding or a mask are equal as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from permgraph.axes.against_itself import meets_itself, softmax_of
from permgraph.axes.op_kinds import MOVEMENTS
from permgraph.axes.own_weights import own_weights
from permgraph.axes.ways import meetings
from permgraph.ir.trace import Node, Ref, Trace

DISTINCT, ZEROS, EQUAL = 0, 1, 2  # in general different; equal only where they are zero; equal anywhere

_PRODUCTS = frozenset(
    [
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "convolution",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "mm",
        "bmm",
        "matmul",
        "addmm",
        "baddbmm",
        "addbmm",
        "addmv",
        "mv",
        "einsum",
        "bilinear",
        "cdist",
        "_cdist_forward",
        "inner",
        "outer",
        "dot",
        "scaled_dot_product_attention",
        "embedding",
        "lstm",
        "gru",
        "rnn_tanh",
        "batch_norm",
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
    ]
)
_NORMS = frozenset(
    ["layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm", "group_norm", "native_group_norm"]
)
_SUMS = frozenset(["add", "sub", "rsub", "addcmul", "addcdiv", "lerp"])
_KEEP = MOVEMENTS | frozenset(
    [
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "var",
        "std",
        "norm",
        "linalg_vector_norm",
        "topk",
        "sort",
        "broadcast_to",
        "cat",
        "stack",
        "index",
        "index_select",
        "gather",
        "dropout",
        "copy",
        "mul",
        "div",
        "true_divide",
        "neg",
    ]
)
_ZERO_AT_ZERO = frozenset(
    [
        "abs",
        "sqrt",
        "tanh",
        "square",
        "pow",
        "sin",
        "asinh",
        "atan",
        "elu",
        "leaky_relu",
        "silu",
        "gelu",
        "mish",
        "softsign",
    ]
)
_SMOOTH = frozenset(
    [
        "exp",
        "sigmoid",
        "log",
        "log1p",
        "expm1",
        "cos",
        "softplus",
        "logsigmoid",
        "log_sigmoid",
        "reciprocal",
        "rsqrt",
        "erf",
        "selu",
        "celu",
        "softmax",
        "_softmax",
        "log_softmax",
        "_log_softmax",
        "cumsum",
        "logsumexp",
        "cosh",
        "sinh",
    ]
)
_RECTIFIED = frozenset(["relu", "hardswish", "softshrink", "hardshrink"])
_RANDOM = frozenset(["rand", "randn", "rand_like", "randn_like"])


@dataclass(frozen=True)
class EqualValues:
    """DISTINCT, ZEROS or EQUAL for every node (of several results: for the first).

    along_own   of coordinates that have weights of their own; of all others, `worst`: the largest level before it
    own         these dims
    """

    along_own: Mapping[str, int]
    worst: Mapping[str, int]
    own: Mapping[str, frozenset[int]]

    def along(self, name: str, dim: int) -> int:
        """Of coordinates that differ in one dim."""
        levels = self.along_own if dim in self.own.get(name, ()) else self.worst
        return levels[name]


def equal_values(trace: Trace) -> EqualValues:
    """How equal the values of every node may be."""
    levels: dict[str, int] = {}
    worst: dict[str, int] = {}
    met = meetings(trace)
    widened: set[str] = set()  # holds coordinates twice, along dims of their own
    for node in trace.nodes:
        refs = [ref for ref in node.refs() if ref in levels]
        level = EQUAL if node.name in met else _level(node, trace, levels)
        if widened.intersection(refs) and node.short_op not in _PRODUCTS:
            merged = node.short_op in ("view", "reshape", "flatten", "_unsafe_view") and _merges(node, trace)
            level = EQUAL if merged else level
            widened.add(node.name)
        if node.short_op in ("expand", "broadcast_to"):
            widened.add(node.name)
        levels[node.name] = level
        # an integer may be there twice: what is looked up by it is
        worst[node.name] = max([level, *(worst[r] if trace.by_name[r].is_float else EQUAL for r in refs)])
    return EqualValues(levels, worst, own_weights(trace))


def _merges(node: Node, trace: Trace) -> bool:
    source = node.operands.get("self")
    return isinstance(source, Ref) and len(trace.by_name[source.node].shape) > len(node.shape)


def _level(node: Node, trace: Trace, levels: dict[str, int]) -> int:
    if node.op in ("state", "input"):
        return DISTINCT if node.is_float else EQUAL
    if node.op == "getitem":
        return levels[node.operands["source"].node]
    name = node.short_op
    if is_zeros(node):
        return ZEROS
    if name in _RANDOM:
        return DISTINCT
    given = [levels[ref] for ref in node.refs() if ref in levels and _varies(trace.by_name[ref])]
    if not node.is_float or not given or meets_itself(node, trace):
        return EQUAL
    if (softened := softmax_of(node, trace)) is not None:
        return DISTINCT if levels.get(softened) == DISTINCT else EQUAL
    if name in _PRODUCTS or (name in _NORMS and node.operands.get("weight") is not None):
        return min(given)
    if (
        name in ("pad", "constant_pad_nd")
        and not node.options.get("value")
        and node.options.get("mode", "constant") == "constant"
    ):
        return max(ZEROS, *given)
    if name in ("div", "true_divide") and _is_kept_above_zero(node.operands.get("other"), trace):
        return levels.get(getattr(node.operands["self"], "node", ""), EQUAL)
    return _of_elements(name, given)


def _is_kept_above_zero(value: object, trace: Trace) -> bool:
    """Whether a divisor is a length as `normalize` has it: a quotient by it is as rarely equal to another as its dividend."""
    if not isinstance(value, Ref):
        return False
    node = trace.by_name[value.node]
    if node.short_op in ("expand", "view", "unsqueeze"):
        return _is_kept_above_zero(node.operands["self"], trace)
    lowest = node.options.get("min")
    return node.short_op in ("clamp_min", "clamp") and isinstance(lowest, (int, float)) and lowest > 0


def _of_elements(name: str, given: list[int]) -> int:
    """Of an op that works element by element, from the levels of what varies among its operands."""
    if name in _SUMS:
        return min(given) if len(given) > 1 or given[0] != ZEROS else EQUAL
    if name in ("mul", "div", "true_divide") and len(given) > 1:
        return DISTINCT if max(given) == DISTINCT else ZEROS if min(given) < EQUAL else EQUAL
    if name in _KEEP or name in _ZERO_AT_ZERO:
        return max(given)
    if name in _SMOOTH or name in _NORMS:
        return DISTINCT if max(given) == DISTINCT else EQUAL
    if name in _RECTIFIED:
        return max(ZEROS, *given)
    return EQUAL


def is_zeros(node: Node) -> bool:
    """Whether a tensor is made of zeros."""
    if node.short_op in ("full", "full_like", "new_full"):
        return bool(node.options.get("fill_value") == 0)
    return node.short_op in ("zeros", "zeros_like", "new_zeros")


def zero_where(selection: Node, node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether a tensor is zero wherever the values selected are: it comes of them by ops that keep zero."""
    if node.op == "getitem":
        source = nodes[node.operands["source"].node]
        same = (source.op, source.operands, source.options) == (
            selection.op,
            selection.operands,
            selection.options,
        )
        return bool(same and node.options["index"] == 0)
    name, sources = node.short_op, [nodes[ref] for ref in node.refs()]
    if name == "mul":
        return any(zero_where(selection, source, nodes) for source in sources)
    keeps = name in _ZERO_AT_ZERO or name in (
        "relu",
        "clone",
        "contiguous",
        "_to_copy",
        "neg",
        "detach",
        "alias",
    )
    return keeps and len(sources) == 1 and zero_where(selection, sources[0], nodes)


def _varies(node: Node) -> bool:
    """Whether a tensor has more than one element; of an index, which is none of the values, nothing is asked."""
    return node.is_float and any(n > 1 for n in node.shape)
