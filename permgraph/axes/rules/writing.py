"""Writing by index: by a constant table parts keep their labels; by anything else the dim that is written to is pinned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from permgraph.axes.addressing import put_jointly
from permgraph.axes.contraction import contract, settled
from permgraph.axes.equal_values import zero_where
from permgraph.axes.extreme_values import is_zeros
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import expand, permute, reshape, resized, span
from permgraph.axes.points import Labels
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.builders import INDEX, added, axes, one_dim, placed, pointwise, term, written
from permgraph.axes.rules.indexing import addressed, are_together, differ_in, is_mask, places
from permgraph.axes.rules.rule import Call
from permgraph.axes.rules.table import op


@op("diagonal_scatter")
def diagonal_scatter(
    self: LabelledTensor, src: LabelledTensor, offset: int, dim1: int, dim2: int
) -> LabelledTensor:
    """A diagonal written into a tensor."""
    dims = (dim1 % self.rank, dim2 % self.rank)
    start = max(0, -offset)
    at = np.arange(start, start + src.shape[-1])
    first = min(dims)
    order = [*range(first), src.rank - 1, *range(first, src.rank - 1)]
    put = put_jointly(self, permute(src, order), dims, (at, at + offset), False)
    if put is not None:
        return put
    rest = [x for d, x in enumerate(axes(self.rank)) if d not in dims]
    return _put_in_order(self, src, dims, [*rest, "new"], ["new"])


@op("scatter scatter_add scatter_reduce")
def scatter(
    self: LabelledTensor, dim: int, index: LabelledTensor, call: Call, src: LabelledTensor | None = None
) -> LabelledTensor:
    """self with src (or a number) put in along dim: that dim is addressed by position, the others go together."""
    dim = one_dim(dim, self.rank)
    if differ_in(dim, self, index):
        raise UnsupportedForm("an index smaller than what it writes to")
    self, src = settled(self), src and settled(src)
    for d, size in enumerate(index.shape):  # what lies beyond the index is not read
        src = span(src, d, 0, size) if src is not None and src.shape[d] > size else src
    chosen = index.chosen
    among_all = chosen is not None and chosen.index and chosen.values.shape[-1] == self.shape[dim]
    if chosen is not None and among_all and (not chosen.ties or _zeros_into_zeros(call, index)):
        self.space.use(index)
        values = chosen.values
        if src and call.node.short_op == "scatter" and not call.node.options.get("reduce"):
            # of what is written to one place the last stays
            values, src = (placed(part, (dim,), INDEX) for part in (values, src))
        parts, text = [values, *([src] if src else [])], "l* m r* n" + (", l* m r*" if src else "")
        put = contract(f"{text} -> l* n r*", parts, self.shape, {"l*": dim, "r*": self.rank - dim - 1})
        return pointwise(self, put)
    index = settled(index)
    done = _by_one_table(self, dim, index, src, call)
    if done is not None:
        return done
    return (added if _reduces(call) else written)(self, dim, [index] if src is None else [index, src])


def _reduces(call: Call) -> bool:
    """Whether what meets at a position is reduced, in no order; otherwise the last that is written there stays."""
    op, options = call.node.short_op, call.node.options
    return op in ("scatter_add", "scatter_reduce", "index_add", "index_reduce") or bool(options.get("reduce"))


def _by_one_table(
    base: LabelledTensor, dim: int, index: LabelledTensor, src: LabelledTensor | None, call: Call
) -> LabelledTensor | None:
    """The same, where one known table says for all other dims which places are meant."""
    if index.table is None or call.node.options.get("reduce") is not None:
        return None
    table = np.moveaxis(np.asarray(index.table), dim, -1).reshape(-1, index.shape[dim])
    if (table != table[0]).any():
        return None
    part = _filled_like(base, dim, table.shape[1]) if src is None else src
    put = _put_by_tables(base, [dim], [table[0] % base.shape[dim]], part, call.node.short_op == "scatter_add")
    if put is not None:
        base.space.use(index)
    return put


def _zeros_into_zeros(call: Call, index: LabelledTensor) -> bool:
    """Whether what is written are the very values that were selected, or zero where these are, into zeros: where
    several are zero it does not matter which of them is written."""
    chosen, into, source = index.chosen, call.given("self"), call.given("src")
    if chosen is None or into is None or source is None or len(chosen.key) > 1:
        return False
    selection = call.nodes[str(chosen.key[0])]
    in_place = selection.shape == index.shape and chosen.at == tuple(
        d for d, n in enumerate(index.shape) if n > 1
    )
    return in_place and is_zeros(into) and zero_where(selection, source, call.nodes)


@op("index_add index_copy index_reduce index_fill")
def index_add(
    self: LabelledTensor, dim: int, index: LabelledTensor, call: Call, source: LabelledTensor | None = None
) -> LabelledTensor:
    """Whole slices of `source` added or copied at positions of dim."""
    dim = one_dim(dim, self.rank)
    at = None if index.table is None else places(self, [dim], [index])
    filling = source is None or not source.rank
    part = _filled_like(self, dim, index.shape[0] if index.rank else 1) if filling else source
    if at is not None and part is not None and call.node.short_op != "index_reduce" and self.rank:
        put = _put_by_tables(
            self, [dim], [t.reshape(-1) for t in at], part, call.node.short_op == "index_add"
        )
        if put is not None:
            call.only_shapes(index, *([source] if source is not None and filling else []))
            return put
    if source is not None and source.rank and index.rank and _reduces(call):
        return added(self, dim, [index, source])
    index.pin(INDEX)
    return written(self, dim, [source] if source is not None and source.rank else [])


def _filled_like(tensor: LabelledTensor, dim: int, size: int) -> LabelledTensor:
    """A part of a tensor that has one value everywhere."""
    return LabelledTensor(tensor.space, resized(tensor.shape, dim, size), weight=True)


@op("index_put _unsafe_index_put")
def index_put(
    self: LabelledTensor,
    indices: tuple[LabelledTensor | None, ...],
    values: LabelledTensor,
    accumulate: bool = False,
) -> LabelledTensor:
    """self[indices] = values: the dims that are addressed stay, the others go together with those of values."""
    dims, given = addressed(indices)
    at = places(self, dims, given)
    if at is not None:
        put = _put_by_tables(self, dims, at, values, accumulate)
        if put is not None:
            for tensor in given:
                self.space.use(tensor)
            return put
    mask = any(is_mask(i) for i in given)
    if mask and len(given) == 1 and not values.rank:  # one number wherever the mask is true
        names = axes(self.rank)
        text = f"{term(names)}, {term([names[d] for d in dims])}, -> {term(names)}"
        return contract(text, [self, given[0], values], self.shape)
    if mask and len(given) > 1:
        raise UnsupportedForm("a mask among other indices")
    if not are_together(dims):
        raise UnsupportedForm("indices apart from each other")
    names = axes(self.rank)
    new = [f"new{i}" for i in range(1 if mask else max(i.rank for i in given))]
    full = [*names[: dims[0]], *new, *names[dims[-1] + 1 :]]
    part = full[len(full) - values.rank :]
    if accumulate and not mask:
        terms = ", ".join([*(term(new[len(new) - i.rank :]) for i in given), term(part)])
        tensors = [placed(self, tuple(dims), INDEX), *map(settled, (*given, values))]
        return contract(f"{term(names)}, {terms} -> {term(names)}", tensors, self.shape)
    for tensor in given:
        tensor.pin(INDEX)
    return _put_in_order(self, values, dims, part, new)


def _put_in_order(
    base: LabelledTensor, values: LabelledTensor, dims: Sequence[int], part: list[str], new: list[str]
) -> LabelledTensor:
    """Values written at positions: these are distinguished in both, and all else is elementwise."""
    names = axes(base.rank)
    base = placed(base, tuple(dims), INDEX)
    values = placed(values, tuple(d for d, x in enumerate(part) if x in new), INDEX)
    return contract(f"{term(names)}, {term(part)} -> {term(names)}", [base, values], base.shape)


def _put_by_tables(
    base: LabelledTensor, dims: list[int], at: list[Labels], values: LabelledTensor, added: bool
) -> LabelledTensor | None:
    """The same, where it is known which places are meant; None where nothing there could move."""
    lead, rest = (dims[0] if are_together(dims) else 0), [d for d in range(base.rank) if d not in dims]
    kept = [base.shape[d] for d in rest]
    wide = expand(values, (*kept[:lead], *at[0].shape, *kept[lead:]))
    flat = reshape(wide, (*kept[:lead], at[0].size, *kept[lead:]))
    first = sum(d < dims[0] for d in rest)
    order = [d for d in range(flat.rank) if d != lead]
    turned = permute(flat, [*order[:first], lead, *order[first:]])
    put = put_jointly(base, turned, dims, [t.reshape(-1) for t in at], added)
    return pointwise(base, put) if added and put is not None else put


@op("masked_scatter")
def masked_scatter(self: LabelledTensor, mask: LabelledTensor, source: LabelledTensor) -> LabelledTensor:
    """Rows of source put where a mask says, when the mask is the same along the last dim and rows fit it."""
    if (mask.on(mask.rank - 1) and mask.shape[-1] > 1) or source.shape[-1:] != self.shape[-1:]:
        raise UnsupportedForm("a mask that differs along the last dim")
    mask.pin(INDEX)
    base = placed(self, tuple(range(self.rank - 1)), INDEX)
    rows = placed(source, tuple(range(source.rank - 1)), INDEX)
    return contract("x* c, y* c -> x* c", [base, rows], self.shape)
