"""Kinds of ops: those that compute nothing (they re-order coordinates, take some of them, or repeat them), and by what they compute."""

from __future__ import annotations

REORDERINGS = frozenset(  # every coordinate of the operand once, unchanged
    [
        "alias",
        "clone",
        "contiguous",
        "detach",
        "flatten",
        "flip",
        "movedim",
        "permute",
        "reshape",
        "roll",
        "squeeze",
        "t",
        "transpose",
        "unflatten",
        "unsqueeze",
        "view",
        "_unsafe_view",
    ]
)
CUTTINGS = frozenset(
    ["chunk", "narrow", "select", "slice", "split", "split_with_sizes", "unbind"]
)  # some of them
MOVEMENTS = REORDERINGS | CUTTINGS | frozenset(["expand", "to", "_to_copy"])
UNCHANGED = frozenset(["alias", "clone", "contiguous", "detach", "dropout", "to", "_to_copy"])
RESHAPES = frozenset(["flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view", "_unsafe_view"])
LAYERS = frozenset(  # products and sums of them, most with weights
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
NORMS = frozenset(  # over some coordinates, each then with its own weight
    [
        "layer_norm",
        "native_layer_norm",
        "rms_norm",
        "_fused_rms_norm",
        "group_norm",
        "native_group_norm",
    ]
)
SUMS = frozenset(["add", "sub", "rsub", "addcmul", "addcdiv", "lerp"])
ZERO_AT_ZERO = frozenset(  # of one number, zero nowhere else
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
RECTIFIED = frozenset(["relu", "hardswish", "softshrink", "hardshrink"])
RANDOM = frozenset(["rand", "randn", "rand_like", "randn_like"])
