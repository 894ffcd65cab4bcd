"""Ops whose result depends on where things are: transforms, sampling, triangles, windows."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.movement import reshape
from permgraph.axes.rules.builders import Rule, dims_of, equation, placed, pointwise
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context

_LETTERS = "abcdefghijklmnop"


def ordered(context: Context, value: Value, dims: tuple[int, ...]) -> Value:
    """Same rank; the coordinates along `dims` may not move, and those of the result know their place."""
    letters = _LETTERS[: len(value.shape)]
    left = " ".join(f"!{x}" if d in dims else x for d, x in enumerate(letters))
    right = " ".join(f"!{x.upper()}" if d in dims else x for d, x in enumerate(letters))
    return contract(context, f"{left} -> {right}", [value], context.node.shape)


def _fourier(context: Context) -> Value:
    value = context.need(0, "self")
    return ordered(context, value, dims_of(context.arg(1, "dim"), len(value.shape)))


def _transform(context: Context) -> Value:
    """torch.fft.*: over one dim, the last two, or all."""
    value, several_dims = context.need(0, "self"), context.node.op.split(".")[1].endswith(("2", "n"))
    default = ((-2, -1) if context.node.op.split(".")[1].endswith("2") else None) if several_dims else -1
    return ordered(context, value, dims_of(context.arg(2, "dim", default), len(value.shape)))


def _triangle(context: Context) -> Value:
    value = context.need(0, "self")
    rank = len(value.shape)
    return placed(context, value, (rank - 2, rank - 1))


def _windows(context: Context) -> Value:
    """x.unfold(dim, size, step): a new last dim holds the window."""
    value = context.need(0, "self")
    (dim,) = dims_of(context.arg(1, "dimension"), len(value.shape))
    letters = _LETTERS[: len(value.shape)]
    left = " ".join(f"!{x}" if d == dim else x for d, x in enumerate(letters))
    right = " ".join("!Y" if d == dim else x for d, x in enumerate(letters))
    return contract(context, f"{left} -> {right} !Z", [value], context.node.shape)


def _diagonal(context: Context) -> Value:
    """Two dims become one, the last."""
    value, rank = context.need(0, "self"), len(context.need(0, "self").shape)
    dims = context.arg(2, "dim1", 0) % rank, context.arg(3, "dim2", 1) % rank
    letters = _LETTERS[:rank]
    left = " ".join(f"!{x}" if d in dims else x for d, x in enumerate(letters))
    right = " ".join(x for d, x in enumerate(letters) if d not in dims)
    return contract(context, f"{left} -> {right} !Z", [value], context.node.shape)


def _diagonal_matrix(context: Context) -> Value:
    value, rank = context.need(0, "self"), len(context.node.shape)
    dims = context.arg(2, "dim1", -2) % rank, context.arg(3, "dim2", -1) % rank
    letters = _LETTERS[: rank - 2]
    rest = iter(letters)
    right = " ".join("!YZ"[0] + "YZ"[dims.index(d)] if d in dims else next(rest) for d in range(rank))
    return contract(context, f"{' '.join(letters)} !z -> {right}", [value], context.node.shape)


def _one_hot(context: Context) -> Value:
    value = context.need(0, "self")
    letters = " ".join(_LETTERS[: len(value.shape)])
    return contract(context, f"{letters} -> {letters} !Z", [value], context.node.shape)


def _search(value_at: int, table_at: int) -> Rule:
    """Where each element falls among sorted ones: those are ordered."""

    def rule(context: Context) -> Value:
        value, table = context.need(value_at, "self"), context.need(table_at, "boundaries")
        if len(table.shape) > 1:
            raise NotImplementedError("a table per row")
        context.pin(table.arrays, "ordered axis")
        return pointwise(context, value)

    return rule


def _fold(context: Context) -> Value:
    """col2im: (b, c·taps, places) → (b, c, h, w)."""
    value = context.need(0, "self")
    *lead, rows, places = value.shape
    channels = context.node.shape[-3]
    wide = reshape(context, value, (*lead, channels, rows // channels, places))
    return contract(context, "... c !k !p -> ... c !Y !Z", [wide], context.node.shape)


def _cross(context: Context) -> Value:
    """Vector product: the three coordinates are ordered."""
    a, b = context.need(0, "self"), context.need(1, "other")
    made = pointwise(context, a, b)
    default = (
        -1 if context.node.op.startswith("aten.linalg") else next(d for d, n in enumerate(a.shape) if n == 3)
    )
    dim = context.node.kwargs.get("dim", context.arg(2, "dim", default))
    return placed(context, made, dims_of(default if dim is None else dim, len(context.node.shape)))


def _segments(context: Context) -> Value:
    """segment_reduce along dim 0: its order decides what falls together, the other dims pass."""
    value = context.need(0, "data")
    if context.arg(5, "axis", 0) != 0:
        raise NotImplementedError("segments along another dim")
    for name in ("lengths", "indices", "offsets"):
        operand = context.operand(99, name)
        context.pin(operand.arrays if operand else (), "ordered axis")
    rest = " ".join(_LETTERS[1 : len(value.shape)])
    return contract(context, f"!a {rest} -> !Z {rest}", [value], context.node.shape)


RULES: dict[str, Rule] = {
    **{name: _fourier for name in ("_fft_r2c", "_fft_c2c", "_fft_c2r")},
    **{f"fft_{kind}{n}": _transform for kind in ("fft", "ifft", "rfft", "irfft") for n in ("", "2", "n")},
    **{f"fft_{kind}": _transform for kind in ("hfft", "ihfft")},
    "stft": equation("b !t -> b !f !s", (0, "self")),
    "triu": _triangle,
    "tril": _triangle,
    "unfold": _windows,
    "unfold_copy": _windows,
    "diagonal": _diagonal,
    "diagonal_copy": _diagonal,
    "diag_embed": _diagonal_matrix,
    "one_hot": _one_hot,
    "bucketize": _search(0, 1),
    "searchsorted": _search(1, 0),
    "segment_reduce": _segments,
    "col2im": _fold,
    "cross": _cross,
    "linalg_cross": _cross,
    "grid_sampler": equation("b c !s*, b t* !p -> b c t*", (0, "input"), (1, "grid")),
    "grid_sampler_2d": equation("b c !s*, b t* !p -> b c t*", (0, "input"), (1, "grid")),
    "grid_sampler_3d": equation("b c !s*, b t* !p -> b c t*", (0, "input"), (1, "grid")),
}
