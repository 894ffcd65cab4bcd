"""Kinds of ops that compute nothing: they re-order coordinates, take some of them, or repeat them."""

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
