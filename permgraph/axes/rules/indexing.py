"""Indexing: by a constant table the labels follow the table; by anything else the indexed axis is pinned."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.contraction import contract, settled
from permgraph.axes.equal_values import is_zeros, zero_where
from permgraph.axes.labelled_tensor import Chosen, LabelledTensor
from permgraph.axes.movement import expand, merged, permute, reshape, resized, take
from permgraph.axes.pairs import take_jointly
from permgraph.axes.points import Labels
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.builders import INDEX, axes, broadcast, one_dim, placed, pointwise, term, written
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.tables import computed
from permgraph.ir.trace import Shape

CONTENT = "selected by its values"

# Rows named by an index are scaled to a largest norm: rows keep their place, channels are mixed.
register("embedding_renorm", "!r [c] -> r c", "self")


def by_choice(index: LabelledTensor, size: int) -> Chosen | None:
    """What an index was chosen from, when it chooses among as many as the dim has and equal ones do not matter."""
    chosen = index.chosen
    if chosen is None or not chosen.index or chosen.ties or chosen.values.shape[-1] != size:
        return None
    index.space.use(index)
    return chosen


def pick(tensor: LabelledTensor, dim: int, index: LabelledTensor) -> LabelledTensor:
    """tensor.index_select(dim, index), with `index` of any rank put in place of the dim."""
    dim = one_dim(dim, tensor.rank)
    shape = resized(tensor.shape, dim, *index.shape)
    if (chosen := by_choice(index, tensor.shape[dim])) is not None:
        sizes = {"l*": dim, "i*": index.rank}
        before = contract(
            "l* n r*, i* n -> l* i* r* n",
            [settled(tensor), chosen.values],
            (*shape, tensor.shape[dim]),
            sizes,
        )
        before = replace(before, weight=tensor.weight)
        at = tuple(dim + d for d in chosen.at)
        weights = Chosen(before, at, chosen.key)
        return LabelledTensor(tensor.space, shape, weight=tensor.weight, chosen=weights)
    index = settled(index)
    if index.table is not None:
        table = np.asarray(index.table).reshape(-1).astype(np.int64) % tensor.shape[dim]
        tensor.space.use(index)
        taken = _by_pairs(tensor, dim, table)
        return reshape(take(tensor, dim, table) if taken is None else taken, shape)
    in_order = placed(settled(tensor), (dim,), INDEX)
    sizes = {"l*": dim, "i*": index.rank}
    picked = contract("l* n r*, i* -> l* i* r*", [in_order, index], shape, sizes)
    return replace(picked, weight=tensor.weight and index.weight)


@op("embedding")
def embedding(weight: LabelledTensor, indices: LabelledTensor) -> LabelledTensor:
    return pick(weight, 0, indices)


@op("index_select")
def index_select(self: LabelledTensor, dim: int, index: LabelledTensor) -> LabelledTensor:
    return pick(self, dim, index)


def _by_pairs(tensor: LabelledTensor, dim: int, table: Labels) -> LabelledTensor | None:
    """The same, where the dim was merged of several just before: the table addresses these jointly."""
    source = tensor.source
    if source is None:
        return None
    dims = merged(source.shape, tensor.shape, dim)
    if dims is None:
        return None
    tensor.space.use(tensor)
    return take_jointly(source, dims, np.unravel_index(table, [source.shape[d] for d in dims]))


@op("masked_select")
def masked_select(self: LabelledTensor, mask: LabelledTensor, call: Call) -> LabelledTensor | Results:
    """The elements where a mask is true, one after another: a table says which, or the data."""
    if mask.table is not None:
        shape = broadcast(self.shape, mask.shape)
        at = np.nonzero(np.broadcast_to(mask.table, shape))
        wide = replace(expand(self, shape), name=self.name if self.shape == shape else "")
        taken = take_jointly(wide, range(len(shape)), at) if at[0].size == prod(call.shape) else None
        if taken is not None:
            call.only_shapes(mask, self)
            return taken
        if self.table is not None:
            table = np.broadcast_to(self.table, shape)[at]
            return replace(call.pinned("position")[0] or self, table=table)
    return call.pin_all(CONTENT)


@op("""nonzero nonzero_static bincount _unique _unique2 unique_dim unique_consecutive put
    multinomial repeat_interleave""")
def by_content(call: Call) -> Results:
    """What is found where depends on all that enters: nothing of it may move."""
    return call.pin_all(CONTENT)


@op("_embedding_bag _embedding_bag_forward_only")
def embedding_bag(weight: LabelledTensor, call: Call) -> Results:
    """Rows of a weight summed by bag: which rows is a matter of position, channels pass."""
    for tensor in call.tensors[1:]:
        tensor.pin(INDEX)
    return (contract("!r c -> !b c", [weight], call.shape), *call.pinned(INDEX, 1))


@op("diagonal_scatter")
def diagonal_scatter(self: LabelledTensor, src: LabelledTensor, dim1: int, dim2: int) -> str:
    """A diagonal written into a tensor: the two dims it runs through are addressed by position."""
    dims, names = (dim1 % self.rank, dim2 % self.rank), axes(self.rank)
    rest = [x for d, x in enumerate(names) if d not in dims]
    return f"{term(names, ordered=dims)}, {term([*rest, '!diagonal'])} -> {term(names)}"


@op("index _unsafe_index")
def index(self: LabelledTensor, indices: tuple[LabelledTensor | None, ...], call: Call) -> LabelledTensor:
    """x[idx, :, idx2]: one index tensor is a pick; several address positions together and pin them."""
    used = [(d, i) for d, i in enumerate(indices) if i is not None]
    (dim, first), *more = used
    if not more and not is_mask(first):
        return pick(self, dim, first)
    dims: list[int] = []
    at = 0
    for tensor in indices:  # a mask addresses as many dims as it has
        count = tensor.rank if tensor is not None and is_mask(tensor) else 1
        dims += range(at, at + count) if tensor is not None else []
        at += count
    given = [i for _, i in used]
    taken = _by_tables(self, dims, given, call.shape)
    if taken is not None:
        return taken
    for tensor in given:
        tensor.pin(INDEX)
    return _joint_pick(self, dims, call.shape)


def _by_tables(
    tensor: LabelledTensor, dims: list[int], given: list[LabelledTensor], shape: Shape
) -> LabelledTensor | None:
    """Dims addressed by tables whose contents are known; None where they are not."""
    if any(i.table is None for i in given):
        return None
    tables = [t for i in given for t in (np.nonzero(i.table) if is_mask(i) else [np.asarray(i.table)])]
    at = np.broadcast_arrays(*tables)
    sizes = [tensor.shape[d] for d in dims]
    flat = [t.reshape(-1).astype(np.int64) % n for t, n in zip(at, sizes, strict=True)]
    together = dims == list(range(dims[0], dims[-1] + 1))
    taken = take_jointly(tensor, dims, flat)
    if taken is None:
        return None
    for i in given:
        tensor.space.use(i)
    if not together:  # what is addressed apart comes first
        taken = permute(taken, [dims[0], *(d for d in range(taken.rank) if d != dims[0])])
    return reshape(taken, shape)


def _joint_pick(tensor: LabelledTensor, dims: list[int], shape: Shape) -> LabelledTensor:
    """Dims addressed together become position dims; the other dims keep their arrays."""
    names = axes(tensor.rank)
    at = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    new = [f"!new{i}" for i in range(len(shape) - tensor.rank + len(dims))]
    kept = [x for d, x in enumerate(names) if d not in dims]
    text = f"{term(names, ordered=dims)} -> {term([*kept[:at], *new, *kept[at:]])}"
    return contract(text, [tensor], shape)


def is_mask(tensor: LabelledTensor) -> bool:
    """Whether an index is a boolean mask, which addresses several dims."""
    return tensor.dtype in ("bool", "uint8")


def _same_but(dim: int, one: LabelledTensor, other: LabelledTensor) -> bool:
    """Whether two shapes are equal in every dim but one."""
    return resized(one.shape, dim) == resized(other.shape, dim)


@op("gather")
def gather(self: LabelledTensor, dim: int, index: LabelledTensor, call: Call) -> LabelledTensor | Results:
    """Positions along dim are read; the other dims go together."""
    dim = one_dim(dim, self.rank)
    if not _same_but(dim, self, index):
        self.pin(INDEX)
        settled(index).pin(INDEX)
        return call.pinned(INDEX)
    self = settled(self)
    if (chosen := by_choice(index, self.shape[dim])) is not None:
        text = "l* n r*, l* m r* n -> l* m r* n"
        before = contract(text, [self, chosen.values], (*index.shape, self.shape[dim]), {"l*": dim})
        return LabelledTensor(self.space, index.shape, chosen=Chosen(before, chosen.at, chosen.key))
    in_order = placed(self, (dim,), INDEX)
    return contract("l* n r*, l* m r* -> l* m r*", [in_order, settled(index)], index.shape, {"l*": dim})


@op("one_hot")
def one_hot(self: LabelledTensor, call: Call) -> LabelledTensor:
    """A place for every value: in order, unless the values were chosen among as many."""
    chosen = by_choice(self, call.shape[-1])
    return chosen.values if chosen else contract("... -> ... !k", [settled(self)], call.shape)


@op("eq")
def equal(self: LabelledTensor, call: Call) -> LabelledTensor:
    """Elementwise; an index compared with all that it may be is its one-hot form."""
    other = call.operands.get("other")
    ramp = other.table if isinstance(other, LabelledTensor) else None
    if self.shape[-1:] == (1,) and ramp is not None and np.array_equal(ramp, np.arange(call.shape[-1])):
        chosen = by_choice(self, call.shape[-1])
        if chosen is not None:
            return reshape(chosen.values, call.shape)
    return replace(pointwise(*call.tensors), table=computed(call.node, call.operands))


@op("scatter scatter_add scatter_reduce")
def scatter(
    self: LabelledTensor, dim: int, index: LabelledTensor, call: Call, src: LabelledTensor | None = None
) -> LabelledTensor:
    """self with src (or a number) put in along dim: that dim is addressed by position, the others go together."""
    dim = one_dim(dim, self.rank)
    if not _same_but(dim, self, index):
        raise UnsupportedForm("an index smaller than what it writes to")
    if src is not None and not _same_but(dim, index, src):
        raise UnsupportedForm("an index smaller than its source")
    self, src = settled(self), src and settled(src)
    chosen = index.chosen
    among_all = chosen is not None and chosen.index and chosen.values.shape[-1] == self.shape[dim]
    if chosen is not None and among_all and (not chosen.ties or _zeros_into_zeros(call, index)):
        self.space.use(index)
        parts, text = [chosen.values, *([src] if src else [])], "l* m r* n" + (", l* m r*" if src else "")
        put = contract(f"{text} -> l* n r*", parts, self.shape, {"l*": dim, "r*": self.rank - dim - 1})
        return pointwise(self, put)
    index = settled(index)
    return written(self, dim, [index] if src is None else [index, src])


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
    self: LabelledTensor, dim: int, index: LabelledTensor, source: LabelledTensor | None = None
) -> LabelledTensor:
    """Whole slices of `source` added or copied at positions of dim."""
    index.pin(INDEX)
    return written(self, one_dim(dim, self.rank), [source] if source is not None and source.rank else [])


@op("index_put _unsafe_index_put")
def index_put(
    self: LabelledTensor, indices: tuple[LabelledTensor | None, ...], values: LabelledTensor
) -> LabelledTensor:
    """self[indices] = values: the dims that are addressed stay, the others go together with those of values."""
    used = [(d, i) for d, i in enumerate(indices) if i is not None]
    first, tensors = used[0][0], [i for _, i in used]
    mask = tensors[0].rank if any(is_mask(i) for i in tensors) else 0
    if mask and len(used) > 1:
        raise UnsupportedForm("a mask among other indices")
    count = mask or len(used)
    if not mask and [d for d, _ in used] != list(range(first, first + count)):
        raise UnsupportedForm("indices apart from each other")
    for tensor in tensors:
        tensor.pin(INDEX)
    names = axes(self.rank)
    new = [f"new{i}" for i in range(1 if mask else max(i.rank for i in tensors))]
    full = [*names[:first], *new, *names[first + count :]]
    part = full[len(full) - values.rank :]
    base = placed(self, tuple(range(first, first + count)), INDEX)
    values = placed(values, tuple(d for d, x in enumerate(part) if x in new), INDEX)
    return contract(f"{term(names)}, {term(part)} -> {term(names)}", [base, values], self.shape)


@op("masked_scatter")
def masked_scatter(self: LabelledTensor, mask: LabelledTensor, source: LabelledTensor) -> LabelledTensor:
    """Rows of source put where a mask says, when the mask is the same along the last dim and rows fit it."""
    if (mask.on(mask.rank - 1) and mask.shape[-1] > 1) or source.shape[-1:] != self.shape[-1:]:
        raise UnsupportedForm("a mask that differs along the last dim")
    mask.pin(INDEX)
    base = placed(self, tuple(range(self.rank - 1)), INDEX)
    rows = placed(source, tuple(range(source.rank - 1)), INDEX)
    return contract("x* c, y* c -> x* c", [base, rows], self.shape)
