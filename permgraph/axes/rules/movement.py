"""Movement ops: each is one call into `axes.moves`."""

from __future__ import annotations

from typing import Any

import numpy as np

from permgraph.axes import movement as moves
from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, dims_of, placed, written
from permgraph.axes.rules.data_dependent import part_by_data, repeat_by_data
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Ref


def _reshape(context: Context) -> Value:
    return moves.reshape(context, context.need(0, "self"), context.node.shape)


def _transpose(context: Context) -> Value:
    value = context.need(0, "self")
    return moves.swap(context, value, context.arg(1, "dim0", 0), context.arg(2, "dim1", 1))


def _t(context: Context) -> Value:
    value = context.need(0, "self")
    return moves.permute(context, value, range(len(value.shape))[::-1])


def _adjoint(context: Context) -> Value:
    return moves.swap(context, context.need(0, "self"), -2, -1)


def _permute(context: Context) -> Value:
    return moves.permute(context, context.need(0, "self"), context.arg(1, "dims"))


def _movedim(context: Context) -> Value:
    value, rank = context.need(0, "self"), len(context.node.shape)
    source, target = dims_of(context.arg(1, "source"), rank), dims_of(context.arg(2, "destination"), rank)
    order = [d for d in range(rank) if d not in source]
    for new, old in sorted(zip(target, source, strict=True)):
        order.insert(new, old)
    return moves.permute(context, value, order)


def _expand(context: Context) -> Value:
    return moves.expand(context, context.need(0, "self"), context.node.shape)


def _broadcast_all(context: Context) -> Result:
    """broadcast_tensors: each is widened to the common shape."""
    values = [context.value(a) for a in context.arg(0, "tensors")]
    return tuple(
        moves.expand(context, v, m.shape) if v and m else None
        for v, m in zip(values, context.node.results, strict=True)
    )


def _slice(context: Context) -> Value:
    value = context.need(0, "self")
    dim = context.arg(1, "dim", 0) % len(value.shape)
    bounds = slice(context.arg(2, "start"), context.arg(3, "end"), context.arg(4, "step", 1))
    if isinstance(bounds.start, Ref) or isinstance(bounds.stop, Ref):
        return part_by_data(context, value, dim)
    return moves.span(context, value, dim, *bounds.indices(value.shape[dim]))


def _narrow(context: Context) -> Value:
    start, length = context.arg(2, "start"), context.arg(3, "length")
    value, dim = context.need(0, "self"), context.arg(1, "dim") % len(context.node.shape)
    if isinstance(start, Ref) or isinstance(length, Ref):
        return part_by_data(context, value, dim)
    start %= value.shape[dim]
    return moves.span(context, value, dim, start, start + length)


def _select(context: Context) -> Value:
    value, dim, index = context.need(0, "self"), context.arg(1, "dim"), context.arg(2, "index")
    if isinstance(index, Ref):
        return part_by_data(context, value, dim % len(value.shape))
    return moves.select(context, value, dim, index)


def _split(context: Context) -> Result:
    """split, chunk, tensor_split, split_with_sizes: sizes are read off the results."""
    value, sizes = context.need(0, "self"), context.arg(1, "split_size")
    (dim,) = dims_of(context.arg(2, "dim", 0), len(value.shape))
    if any(isinstance(size, Ref) for size in _many(sizes)):
        return tuple(part_by_data(context, value, dim, m.shape) for m in context.node.results if m)
    parts, start = [], 0
    for meta in context.node.results:
        assert meta is not None
        parts.append(moves.span(context, value, dim, start, start + meta.shape[dim]))
        start += meta.shape[dim]
    return tuple(parts)


def _unbind(context: Context) -> Result:
    value, dim = context.need(0, "self"), context.arg(1, "dim", 0)
    return tuple(moves.select(context, value, dim, i) for i in range(value.shape[dim]))


def _cat(context: Context) -> Value:
    values = [v for v in (context.value(a) for a in context.arg(0, "tensors")) if v is not None]
    return moves.concat(context, values, context.arg(1, "dim", 0))


def _stack(context: Context) -> Value:
    dim = context.arg(1, "dim", 0) % len(context.node.shape)
    values = [context.value(a) for a in context.arg(0, "tensors")]
    return moves.concat(context, [moves.insert(context, v, dim) for v in values if v is not None], dim)


def _flip(context: Context) -> Value:
    value = context.need(0, "self")
    for dim in dims_of(context.arg(1, "dims"), len(value.shape)):
        value = moves.take(context, value, dim, np.arange(value.shape[dim])[::-1])
    return value


def _roll(context: Context) -> Value:
    value = context.need(0, "self")
    shifts, dims = context.arg(1, "shifts"), context.arg(2, "dims", ())
    if dims == ():
        flat = moves.reshape(context, value, (int(np.prod(value.shape)),))
        rolled = moves.take(context, flat, 0, np.roll(np.arange(flat.shape[0]), _one(shifts)))
        return moves.reshape(context, rolled, value.shape)
    for dim, shift in zip(_many(dims), _many(shifts), strict=True):
        value = moves.take(context, value, dim, np.roll(np.arange(value.shape[dim]), shift))
    return value


def _half_turn(context: Context) -> Value:
    """fftshift and ifftshift: roll every dim by half its length, rounded down or up."""
    value = context.need(0, "self")
    for dim in dims_of(context.arg(1, "dim"), len(value.shape)):
        n = value.shape[dim]
        shift = n // 2 if context.node.op.startswith("aten.fft_fft") else (n + 1) // 2
        value = moves.take(context, value, dim, np.roll(np.arange(n), shift))
    return value


def _one(value: Any) -> int:
    return _many(value)[0]


def _many(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _repeat(context: Context) -> Value:
    value, counts = (
        context.need(0, "self"),
        context.arg(1, "repeats" if "repeat" in context.node.op else "dims"),
    )
    counts = counts if isinstance(counts, tuple) else (counts,)
    counts = (1,) * (len(value.shape) - len(counts)) + counts  # tile may name fewer
    value = moves.reshape(context, value, (1,) * (len(counts) - len(value.shape)) + value.shape)
    for dim, count in enumerate(counts):
        if isinstance(count, Ref):
            value = part_by_data(
                context, value, dim, (*value.shape[:dim], context.node.shape[dim], *value.shape[dim + 1 :])
            )
        elif count != 1:
            value = moves.tile(context, value, dim, count, inner=False)
    return value


def _repeat_interleave(context: Context) -> Value:
    value, count, dim = context.need(0, "self"), context.arg(1, "repeats"), context.arg(2, "dim")
    if not isinstance(count, int):
        return repeat_by_data(context, value, dim)
    if dim is None:
        value, dim = moves.reshape(context, value, (int(np.prod(value.shape)),)), 0
    return moves.tile(context, value, dim % len(value.shape), count, inner=True)


def _pad(context: Context) -> Value:
    value, widths = context.need(0, "self"), context.arg(1, "pad")
    ordered = context.arg(2, "mode", "constant") in ("reflect", "replicate", "circular")
    return _pad_by(context, value, widths, ordered)


def _pad_ordered(context: Context) -> Value:
    return _pad_by(context, context.need(0, "self"), context.arg(1, "padding"), True)


def _pad_by(context: Context, value: Value, widths: tuple[int, ...], ordered: bool) -> Value:
    rank = len(value.shape)
    for i in range(len(widths) // 2):
        dim, (before, after) = rank - 1 - i, widths[2 * i : 2 * i + 2]
        if isinstance(before, Ref) or isinstance(after, Ref):
            shape = (*value.shape[:dim], context.node.shape[dim], *value.shape[dim + 1 :])
            value = part_by_data(context, value, dim, shape)
        else:
            value = moves.pad(context, value, dim, before, after, ordered)
    return value


def _slice_scatter(context: Context) -> Value:
    base, part = context.need(0, "self"), context.need(1, "src")
    dim = context.arg(2, "dim", 0) % len(base.shape)
    size = base.shape[dim]
    bounds = slice(context.arg(3, "start"), context.arg(4, "end"), context.arg(5, "step", 1))
    if isinstance(bounds.start, Ref) or isinstance(bounds.stop, Ref):
        return written(context, base, dim, [part])
    start, stop, step = bounds.indices(size)
    if step != 1:
        raise NotImplementedError("slice_scatter with a step")
    return _replace_span(context, base, part, dim, start, stop)


def _select_scatter(context: Context) -> Value:
    base, part = context.need(0, "self"), context.need(1, "src")
    dim = context.arg(2, "dim") % len(base.shape)
    index = context.arg(3, "index") % base.shape[dim]
    return _replace_span(context, base, moves.insert(context, part, dim), dim, index, index + 1)


def _replace_span(context: Context, base: Value, part: Value, dim: int, start: int, stop: int) -> Value:
    size = base.shape[dim]
    before = [moves.span(context, base, dim, 0, start)] if start > 0 else []
    after = [moves.span(context, base, dim, stop, size)] if stop < size else []
    if part.shape != (want := (*base.shape[:dim], stop - start, *base.shape[dim + 1 :])):
        part = moves.expand(context, part, want)
    return moves.concat(context, [*before, part, *after], dim)


def _view_complex(context: Context) -> Value:
    """(…, 2) ↔ complex (…): the real and the imaginary part are told apart."""
    value = context.need(0, "self")
    if context.node.op.startswith("aten.view_as_complex"):
        pairs = placed(context, value, (len(value.shape) - 1,), "real and imaginary part")
        return contract(context, "... p -> ...", [pairs], context.node.shape)
    made = moves.expand(context, moves.insert(context, value, len(value.shape)), context.node.shape)
    parts = context.positions(made.shape, (len(value.shape),), "real and imaginary part")
    return moves.result(context, made, made.shape, [*made.arrays, *parts])


_RESHAPE = """view _unsafe_view reshape flatten unflatten squeeze unsqueeze view_copy ravel _reshape_alias
squeeze_copy unsqueeze_copy"""

RULES: dict[str, Rule] = {
    **{name: _reshape for name in _RESHAPE.split()},
    "transpose": _transpose,
    "swapaxes": _transpose,
    "transpose_copy": _transpose,
    "t": _t,
    "numpy_T": _t,
    "mT": _adjoint,
    "adjoint": _adjoint,
    "permute": _permute,
    "permute_copy": _permute,
    "movedim": _movedim,
    "expand": _expand,
    "expand_copy": _expand,
    "expand_as": _expand,
    "broadcast_to": _expand,
    "broadcast_tensors": _broadcast_all,
    "slice": _slice,
    "slice_copy": _slice,
    "narrow": _narrow,
    "select": _select,
    "select_copy": _select,
    "split": _split,
    "chunk": _split,
    "split_with_sizes": _split,
    "split_with_sizes_copy": _split,
    "split_copy": _split,
    "tensor_split": _split,
    "unsafe_split": _split,
    "unbind": _unbind,
    "unbind_copy": _unbind,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    "fft_fftshift": _half_turn,
    "fft_ifftshift": _half_turn,
    "repeat": _repeat,
    "tile": _repeat,
    "repeat_interleave": _repeat_interleave,
    "pad": _pad,
    "constant_pad_nd": _pad,
    **{f"{kind}_pad{n}d": _pad_ordered for kind in ("reflection", "replication") for n in (1, 2, 3)},
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "view_as_complex": _view_complex,
    "view_as_real": _view_complex,
    "view_as_real_copy": _view_complex,
    "view_as_complex_copy": _view_complex,
}
