"""The same numbers, elsewhere: movements are done by torch on the forms themselves."""

from __future__ import annotations

from typing import Any

import torch

from permgraph.transformations.call import Blocked, Call, Results, row
from permgraph.transformations.forms import ANY, NONE
from permgraph.transformations.patterns import (
    alike_along,
    full,
    short,
)


@row(
    "clone contiguous detach alias lift lift_fresh lift_fresh_copy _to_copy to dropout alpha_dropout "
    "feature_dropout identity alias_copy detach_copy"
)
def same(call: Call) -> Results:
    return call.of("self") if "self" in call.patterns else call.of("input")


@row("native_dropout")
def same_and_mask(call: Call) -> Results:
    return [call.of("input"), None]


@row(
    "transpose t permute expand squeeze unsqueeze slice select split "
    "split_with_sizes chunk unbind flip roll repeat narrow movedim swapaxes flatten unflatten unfold diagonal "
    "pixel_shuffle pixel_unshuffle channel_shuffle rot90 permute_copy transpose_copy expand_copy squeeze_copy "
    "unsqueeze_copy slice_copy select_copy unbind_copy split_copy split_with_sizes_copy repeat_interleave tile cat stack"
)
def movement(call: Call) -> Results:
    """Done by torch on the forms themselves."""
    arguments: dict[str, Any] = {}
    for name in (*call.node.operands, *call.node.options):
        if name not in call.shapes:
            arguments[name] = _literal(call.option(name))
        elif isinstance(call.shapes[name], list):
            arguments[name] = [
                full(p, s) for p, s in zip(call.patterns[name], call.shapes[name], strict=True)
            ]
        elif call.shapes[name] is not None:
            arguments[name] = full(call.patterns[name], call.shapes[name])
    overload = call.node.op.removeprefix("aten.")
    name, _, which = overload.partition(".")
    try:
        done = getattr(getattr(torch.ops.aten, name), which or "default")(**arguments)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise Blocked(str(error)) from None
    return [short(p) for p in done] if isinstance(done, (tuple, list)) else short(done)


def _literal(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@row("view _unsafe_view reshape _reshape_alias view_copy")
def reshape(call: Call) -> Results:
    pattern = call.of("self")
    if "dtype" in call.node.options:
        raise Blocked("other numbers in the same bytes")
    return None if pattern is None else pattern.reshape(call.shape)


@row("constant_pad_nd pad")
def pad(call: Call) -> Results:
    """What is added is zero, and may be multiplied by anything."""
    if call.option("mode", "constant") != "constant":
        raise Blocked("padding that copies")
    added_form = NONE if call.option("value", 0) else ANY
    return short(
        torch.constant_pad_nd(
            full(call.of("self"), call.shapes["self"]), list(call.option("pad")), added_form
        )
    )


@row("zeros zeros_like new_zeros")
def zeros(call: Call) -> Results:
    return torch.full(call.shape, ANY, dtype=torch.int32)


@row("embedding")
def embedding(call: Call) -> Results:
    weight = call.of("weight")
    if weight is None:
        return None
    return alike_along(call.forms, weight, [0])[0].expand(call.shape)
