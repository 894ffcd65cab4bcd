"""Indexing: by a constant table the labels follow the table; by anything else the indexed axis is pinned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes import movement as moves
from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import INDEX, Result, Rule, pin_everything, placed, written
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context


def pick(context: Context, value: Value, dim: int, index: Value) -> Value:
    """value.index_select(dim, index), with `index` of any rank put in place of the dim."""
    shape = (*value.shape[:dim], *index.shape, *value.shape[dim + 1 :])
    if index.table is not None:
        table = np.asarray(index.table).reshape(-1).astype(np.int64) % value.shape[dim]
        taken = moves.take(context, value, dim, table)
        return moves.reshape(context, taken, shape)
    value = placed(context, value, (dim,), INDEX)
    left = "abcdefgh"[: len(value.shape)]
    middle = "ijklmnop"[: len(index.shape)]
    right = " ".join(left[:dim] + middle + left[dim + 1 :])
    made = contract(context, f"{' '.join(left)}, {' '.join(middle)} -> {right}", [value, index], shape)
    return replace(made, weight=value.weight and index.weight)


def _embedding(context: Context) -> Value:
    return pick(context, context.need(0, "weight"), 0, context.need(1, "indices"))


def _by_content(context: Context) -> Result:
    """What is found where depends on all that enters: nothing of it may move."""
    return pin_everything(context, "selected by its values")


def _embedding_bag(context: Context) -> Result:
    """Rows of a weight summed by bag: which rows is a matter of position, channels pass."""
    weight, bags = context.need(0, "weight"), context.node.shape[0]
    for name, at in (("indices", 1), ("offsets", 2), ("per_sample_weights", 6)):
        operand = context.operand(at, name)
        context.pin(operand.arrays if operand else (), INDEX)
    made = contract(context, "!r c -> !b c", [weight], (bags, weight.shape[1]))
    rest = context.node.results[1:]
    return (made, *(context.pinned_value(m.shape, INDEX) if m else None for m in rest))


def _renorm_rows(context: Context) -> Value:
    """Rows named by an index are scaled to a largest norm: rows keep their place, channels are mixed."""
    context.pin(context.need(1, "indices").arrays, INDEX)
    return contract(context, "!r [c] -> r c", [context.need(0, "self")], context.node.shape)


def _diagonal_scatter(context: Context) -> Value:
    """A diagonal written into a tensor: the two dims it runs through are addressed by position."""
    base, source = context.need(0, "self"), context.need(1, "src")
    dims = [context.arg(at, name, default) % len(base.shape) for at, name, default in _DIAGONAL]
    letters = "abcdefgh"[: len(base.shape)]
    left = " ".join(f"!{x}" if d in dims else x for d, x in enumerate(letters))
    rest = " ".join(x for d, x in enumerate(letters) if d not in dims)
    return contract(context, f"{left}, {rest} !z -> {' '.join(letters)}", [base, source], base.shape)


_DIAGONAL = ((3, "dim1", 0), (4, "dim2", 1))


def _index_select(context: Context) -> Value:
    value = context.need(0, "self")
    return pick(context, value, context.arg(1, "dim") % len(value.shape), context.need(2, "index"))


def _index(context: Context) -> Value:
    """x[idx, :, idx2]: one index tensor is a pick; several address positions together and pin them."""
    value, indices = context.need(0, "self"), context.arg(1, "indices")
    used = [(d, context.value(i)) for d, i in enumerate(indices) if i is not None]
    (dim, first), *more = used
    assert first is not None
    if not more and not first_is_mask(context, indices[dim]):
        return pick(context, value, dim, first)
    dims: list[int] = []
    for d, index in used:
        mask = index is not None and first_is_mask(context, indices[d])
        dims += (
            range(d, d + len(index.shape)) if index and mask else [d]
        )  # a mask addresses as many as it has
        context.pin(index.arrays if index else (), INDEX)
    return _joint_pick(context, value, dims)


def _joint_pick(context: Context, value: Value, dims: list[int]) -> Value:
    """Dims addressed together become position dims; the other dims keep their arrays."""
    shape, letters = context.node.shape, "abcdefghijklm"[: len(value.shape)]
    at = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    added = ["!" + x for x in "stuvwxyz"[: len(shape) - (len(letters) - len(dims))]]
    left = " ".join(f"!{x}" if d in dims else x for d, x in enumerate(letters))
    kept = [x for d, x in enumerate(letters) if d not in dims]
    right = " ".join([*kept[:at], *added, *kept[at:]])
    return contract(context, f"{left} -> {right}", [value], shape)


def first_is_mask(context: Context, ref: object) -> bool:
    """Whether an index is a boolean mask, which addresses several dims."""
    from permgraph.ir.trace import Ref

    return isinstance(ref, Ref) and context.dtype(ref) in ("bool", "uint8")


def _gather(context: Context) -> Value:
    """gather(x, dim, index): positions along dim are read; the other dims go together."""
    return _gathered(context, context.need(0, "self"), context.need(2, "index"), context.arg(1, "dim"))


def _take_along(context: Context) -> Value:
    value, index, dim = context.need(0, "self"), context.need(1, "indices"), context.arg(2, "dim")
    if dim is None:
        raise NotImplementedError("take_along_dim over the flattened tensor")
    return _gathered(context, value, index, dim)


def _gathered(context: Context, value: Value, index: Value, dim: int) -> Value:
    dim %= max(1, len(value.shape))
    value = placed(context, value, (dim,), INDEX)
    letters = "abcdefgh"[: len(value.shape)]
    other = letters[:dim] + "z" + letters[dim + 1 :]
    if any(n != m for d, (n, m) in enumerate(zip(value.shape, index.shape, strict=True)) if d != dim):
        context.pin(value.arrays + index.arrays, INDEX)
        return context.pinned_value(context.node.shape, INDEX)
    text = f"{' '.join(letters)}, {' '.join(other)} -> {' '.join(other)}"
    return contract(context, text, [value, index], index.shape)


def _scatter(context: Context) -> Value:
    """self with src (or a number) put in along dim: that dim is addressed by position, the others go together."""
    base, index = context.need(0, "self"), context.need(2, "index")
    dim = context.arg(1, "dim") % max(1, len(base.shape))
    values = [v for v in (base, index, context.operand(3, "src")) if v is not None]
    if any(n != m for d, (n, m) in enumerate(zip(base.shape, index.shape, strict=True)) if d != dim):
        raise NotImplementedError("an index smaller than what it writes to")
    if len(values) > 2 and any(
        n != m for d, (n, m) in enumerate(zip(index.shape, values[2].shape, strict=True)) if d != dim
    ):
        raise NotImplementedError("an index smaller than its source")
    return written(context, base, dim, values[1:])


def _index_add(context: Context) -> Value:
    """Whole slices of `source` added or copied at positions of dim."""
    base, source = context.need(0, "self"), context.operand(3, "source")
    dim = context.arg(1, "dim") % len(base.shape)
    context.pin(context.need(2, "index").arrays, INDEX)
    return written(context, base, dim, [source] if source is not None and source.shape else [])


def _index_put(context: Context) -> Value:
    """self[indices] = values: the dims that are addressed stay, the others go together with those of values."""
    base, indices, values = context.need(0, "self"), context.arg(1, "indices"), context.need(2, "values")
    found = [(d, context.value(i)) for d, i in enumerate(indices) if i is not None]
    masks = [v for (d, v) in found if v is not None and first_is_mask(context, indices[d])]
    if masks and len(found) > 1:
        raise NotImplementedError("a mask among other indices")
    dims = list(range(found[0][0], found[0][0] + len(masks[0].shape))) if masks else [d for d, _ in found]
    if dims != list(range(dims[0], dims[-1] + 1)):
        raise NotImplementedError("indices apart from each other")
    for _, index in found:
        context.pin(index.arrays if index else (), INDEX)
    base = placed(context, base, tuple(dims), INDEX)
    letters = "abcdefgh"[: len(base.shape)]
    count = 1 if masks else max(len(v.shape) for _, v in found if v is not None)
    full = letters[: dims[0]] + "uvwxyz"[:count] + letters[dims[-1] + 1 :]
    term = full[len(full) - len(values.shape) :]
    values = placed(context, values, tuple(d for d, x in enumerate(term) if x in "uvwxyz"), INDEX)
    whole = " ".join(letters)
    return contract(context, f"{whole}, {' '.join(term)} -> {whole}", [base, values], base.shape)


def _masked_scatter(context: Context) -> Value:
    """Rows of source put where a mask says, when the mask is the same along the last dim and rows fit it."""
    base, mask, source = context.need(0, "self"), context.need(1, "mask"), context.need(2, "source")
    last = len(base.shape) - 1
    if (mask.on(len(mask.shape) - 1) and mask.shape[-1] > 1) or source.shape[-1] != base.shape[-1]:
        raise NotImplementedError("a mask that differs along the last dim")
    base = placed(context, base, tuple(range(last)), INDEX)
    source = placed(context, source, tuple(range(len(source.shape) - 1)), INDEX)
    letters = "abcdefgh"[: len(base.shape)]
    other = "stuvwxyz"[: len(source.shape) - 1] + letters[-1]
    text = f"{' '.join(letters)}, {' '.join(other)} -> {' '.join(letters)}"
    return contract(context, text, [base, source], base.shape)


_SELECTED = """nonzero nonzero_static masked_select bincount _unique _unique2 unique_dim unique_consecutive put
multinomial"""

RULES: dict[str, Rule] = {
    "embedding": _embedding,
    **dict.fromkeys(_SELECTED.split(), _by_content),
    "_embedding_bag": _embedding_bag,
    "embedding_renorm": _renorm_rows,
    "diagonal_scatter": _diagonal_scatter,
    "index_select": _index_select,
    "index": _index,
    "_unsafe_index": _index,
    **{name: _scatter for name in ("scatter", "scatter_add", "scatter_reduce")},
    **{name: _index_add for name in ("index_add", "index_copy", "index_reduce")},
    "index_fill": _index_add,
    **{name: _index_put for name in ("index_put", "_unsafe_index_put")},
    "masked_scatter": _masked_scatter,
    "gather": _gather,
    "take_along_dim": _take_along,
}
