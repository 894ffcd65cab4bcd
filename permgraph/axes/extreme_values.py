"""Extreme values: activations that may hold zeros, or numbers so large that a sum with them keeps nothing else.

Values that come out of weights in general position are neither. A zero makes all products with it equal: a token that is
masked, padding, a state before the first step, whatever a ReLU cuts off. A mask of -inf does so in a sum.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from permgraph.axes.constant_ops import is_constant, is_rectified
from permgraph.axes.op_kinds import LAYERS, MOVEMENTS, NORMS, RANDOM, SUMS, UNCHANGED, ZERO_AT_ZERO
from permgraph.axes.ways import is_fixed, moved_from
from permgraph.ir.trace import Node, Ref, Trace

HUGE = 1e10  # what is added to it is lost, in float32

# zero, or huge, where what they are made of is
_KEEP_EITHER = (
    MOVEMENTS
    | SUMS
    | frozenset(
        [
            *("sum", "mean", "amax", "amin", "max", "min", "maximum", "minimum", "topk", "sort", "norm"),
            *("linalg_vector_norm", "broadcast_to", "cat", "stack", "gather", "index", "index_select"),
            *("copy", "dropout", "getitem", "mul", "neg", "pad", "constant_pad_nd", "tril", "triu", "lerp"),
            *("cumsum", "unfold", "im2col", "real", "imag", "complex", "view_as_real", "view_as_complex"),
        ]
    )
)
# zero where what they are made of is, beside those of ZERO_AT_ZERO
_KEEP_ZERO = ZERO_AT_ZERO | frozenset(
    [
        *("erf", "expm1", "log1p", "sinh", "selu", "celu", "std", "var", "interpolate", "upsample_nearest1d"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_linear1d", "adaptive_avg_pool1d"),
        *(
            "adaptive_avg_pool2d",
            "_adaptive_avg_pool2d",
            "avg_pool1d",
            "avg_pool2d",
            "max_pool1d",
            "max_pool2d",
        ),
        *(
            "max_pool2d_with_indices",
            "fft_rfft",
            "fft_irfft",
            "fft_fft",
            "fft_ifft",
            "fft_rfft2",
            "fft_irfft2",
        ),
    ]
)
_FILL = frozenset(["masked_fill", "where", "index_put", "index_fill", "scatter", "masked_scatter"])
# nowhere zero, but where an exponent is -inf
_ABOVE_ZERO = frozenset(
    [
        *("exp", "sigmoid", "softplus", "cos", "cosh", "softmax", "_softmax", "reciprocal", "rsqrt", "log"),
        *("logsumexp", "log_softmax", "_log_softmax", "logsigmoid", "log_sigmoid", "log_sigmoid_forward"),
    ]
)
_SOFTMAX = frozenset(["softmax", "_softmax", "_safe_softmax"])
# whose result is zero where this operand is
_READ = {"scaled_dot_product_attention": "value", "lstm": "input", "gru": "input", "rnn_tanh": "input"}
_DISTANCES = frozenset(["cdist", "_cdist_forward"])


@dataclass(frozen=True)
class Extremes:
    """Names of the nodes of which a value may be zero, or huge."""

    zero: frozenset[str]
    huge: frozenset[str]


def extreme_values(trace: Trace, met: Collection[str]) -> Extremes:
    """`met`: where values of one tensor come together, so that they may cancel."""
    zero = set(met)
    huge: set[str] = set()
    for node in trace.nodes:
        if _is_huge(node, huge):
            huge.add(node.name)
        if _is_zero(node, trace, zero, huge):
            zero.add(node.name)
    return Extremes(frozenset(zero), frozenset(huge))


def is_zeros(node: Node) -> bool:
    """Whether a tensor is made of zeros."""
    if node.short_op in ("full", "full_like", "new_full"):
        return bool(node.options.get("fill_value") == 0)
    return node.short_op in ("zeros", "zeros_like", "new_zeros")


def _is_huge(node: Node, huge: set[str]) -> bool:
    name = node.short_op
    takes = name in ("full", "full_like", "new_full", *_FILL, *SUMS, "mul", "pad", "constant_pad_nd")
    if takes and any(_size(value) >= HUGE for value in (*node.options.values(), *node.operands.values())):
        return True
    return (name in _KEEP_EITHER or name in _FILL) and any(ref in huge for ref in node.refs())


def _size(value: Any) -> float:
    return abs(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _is_zero(node: Node, trace: Trace, zero: set[str], huge: set[str]) -> bool:
    """Masks and other numbers that are no activations may be zero anywhere."""
    name = node.short_op
    if not node.is_float or is_zeros(node) or is_constant(node, trace) or is_rectified(node):
        return True
    if (
        node.op in ("state", "input")
        or name in RANDOM
        or name in ("full", "full_like", "new_full", "ones", "ones_like")
    ):
        return False
    if name in UNCHANGED and not all(trace.by_name[ref].is_float for ref in node.refs()):
        return True  # a mask, as numbers
    refs = [ref for ref in node.refs() if trace.by_name[ref].is_float]
    if name in LAYERS or name in NORMS:
        if (read := _READ.get(name)) is not None:
            refs = [value.node] if isinstance(value := node.operands.get(read), Ref) else []
        if _has_bias(node, trace) or name in _DISTANCES:
            return False
        given = (trace.by_name[ref] for ref in refs if ref in zero)
        return _has_empty_windows(node, trace) or any(not _is_softmax(one, trace) for one in given)
    if mixes_by_a_mask(node, zero):
        return any(ref in zero for ref in refs[:2])
    if name in SUMS:
        first, *rest = [ref in zero for ref in node.refs()]
        return first and bool(rest) and (all(rest) if len(rest) == 1 else any(rest))
    if name in ("div", "true_divide"):
        return node.operands["self"].node in zero
    if name == "mul":  # a mask is a factor, too
        return any(ref in zero or _may_be_a_mask(trace.by_name[ref], trace) for ref in node.refs())
    if (
        name in ("clamp", "clamp_min")
        and isinstance(low := node.options.get("min"), (int, float))
        and low > 0
    ):
        return False
    if name in _ABOVE_ZERO:
        return any(ref in huge for ref in refs)
    if name in ("pad", "constant_pad_nd"):
        constant = node.options.get("mode", "constant") == "constant"
        return (constant and not node.options.get("value")) or any(ref in zero for ref in refs)
    if name in _KEEP_EITHER or name in _KEEP_ZERO:
        return any(ref in zero for ref in refs)
    return True


def _has_bias(node: Node, trace: Trace) -> bool:
    """Whether a parameter is added for each unit, so that nothing is zero where the operand is."""
    if node.short_op in ("lstm", "gru", "rnn_tanh"):
        return bool(node.options.get("has_biases"))
    if node.short_op in (
        "embedding",
        "batch_norm",
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
    ):
        return True  # a table, or running statistics
    name = "self" if node.short_op in ("addmm", "baddbmm", "addbmm", "addmv") else "bias"
    bias = node.operands.get(name)
    return isinstance(bias, Ref) and is_fixed(trace.by_name[bias.node], trace.by_name)


def _has_empty_windows(node: Node, trace: Trace) -> bool:
    """Whether a convolution has windows that lie in the padding alone, or a transposed one gaps between its own."""
    weight, padding = node.operands.get("weight"), node.options.get("padding", ())
    if not node.short_op.startswith("conv") or not isinstance(weight, Ref) or isinstance(padding, str):
        return False
    kernel = trace.by_name[weight.node].shape[2:]
    turned = bool(node.options.get("transposed")) or "transpose" in node.short_op

    def each(name: str, default: int) -> list[int]:
        values = [*(node.options.get(name) or (default,))]
        return values * len(kernel) if len(values) == 1 else values

    names = {"padding": 0, "stride": 1, "dilation": 1, "output_padding": 0}
    return any(
        (step > k or spread > 1 or beyond > pad) if turned else pad > spread * (k - 1)
        for k, pad, step, spread, beyond in zip(kernel, *(each(*one) for one in names.items()), strict=True)
    )


def _may_be_a_mask(node: Node, trace: Trace) -> bool:
    """An input, or a buffer: of weights no value is zero by structure."""
    source = moved_from(node, trace.by_name)
    return source.op == "input" or (
        source.op == "state" and trace.state[source.options["tensor"]].kind == "buffer"
    )


def mixes_by_a_mask(node: Node, zero: Collection[str]) -> bool:
    """Whether a lerp may be one of its two operands alone, here one and there the other."""
    weight = node.operands.get("weight")
    return node.short_op == "lerp" and isinstance(weight, Ref) and weight.node in zero


def _is_softmax(node: Node, trace: Trace) -> bool:
    """Of its values some may be zero, and never all that are summed."""
    return moved_from(node, trace.by_name, MOVEMENTS | UNCHANGED).short_op in _SOFTMAX
