"""Indexing: by a constant table the labels follow the table; by anything else the indexed axis is pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from permgraph.axes.addressing import take_jointly
from permgraph.axes.contraction import contract, settled, settled_if_done
from permgraph.axes.labelled_tensor import Chosen, LabelledTensor
from permgraph.axes.movement import expand, merged, permute, reshape, resized, select, take
from permgraph.axes.points import Labels
from permgraph.axes.rules.builders import INDEX, axes, broadcast, one_dim, placed, pointwise, term
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op, register
from permgraph.axes.tables import computed, known
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
        return settled_if_done(LabelledTensor(tensor.space, shape, weight=tensor.weight, chosen=weights))
    index = settled(index)
    if index.table is None and index.name in tensor.space.slicing and tensor.weight and not tensor.chosen:
        return _given(tensor, dim, index, shape)
    if index.table is not None:
        table = np.asarray(index.table).reshape(-1).astype(np.int64) % tensor.shape[dim]
        tensor.space.use(index)
        taken = _by_pairs(tensor, dim, table)
        return reshape(take(tensor, dim, table) if taken is None else taken, shape)
    in_order = placed(settled(tensor), (dim,), INDEX)
    sizes = {"l*": dim, "i*": index.rank}
    picked = contract("l* n r*, i* -> l* i* r*", [in_order, index], shape, sizes)
    return replace(picked, weight=tensor.weight and index.weight)


def _given(tensor: LabelledTensor, dim: int, index: LabelledTensor, shape: Shape) -> LabelledTensor:
    """The same of a weight, where an input or a computed number says which: in order, and each slice may have its own inner order."""
    one_hot = LabelledTensor(tensor.space, (*index.shape, tensor.shape[dim]), index.arrays)
    one_hot = one_hot.with_positions((index.rank,), INDEX)
    sizes = {"l*": dim, "i*": index.rank}
    before = contract("l* n r*, i* n -> l* i* r* n", [tensor, one_hot], (*shape, tensor.shape[dim]), sizes)
    at = tuple(dim + d for d, size in enumerate(index.shape) if size > 1)
    chosen = Chosen(before, at, (index.name, tensor.shape[dim]))
    return settled_if_done(LabelledTensor(tensor.space, shape, chosen=chosen))


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
    sums = contract("!r c -> !b c", [weight], call.shape)
    return (replace(sums, weight=False), *call.pinned(INDEX, 1))


@op("index _unsafe_index")
def index(self: LabelledTensor, indices: tuple[LabelledTensor | None, ...], call: Call) -> LabelledTensor:
    """x[idx, :, idx2]: one index tensor is a pick; several address places together, by a table or not."""
    used = [(d, i) for d, i in enumerate(indices) if i is not None]
    (dim, first), *more = used
    if not more and not is_mask(first):
        return pick(self, dim, first)
    dims, given = addressed(indices)
    at = places(self, dims, given)
    taken = None if at is None else take_jointly(self, dims, [t.reshape(-1) for t in at])
    if at is None or taken is None:
        for tensor in given:
            tensor.pin(INDEX)
        picked = _joint_pick(self, dims, call.shape)
        return replace(picked, weight=self.weight and all(tensor.weight for tensor in given))
    for tensor in given:
        self.space.use(tensor)
    if not are_together(dims):  # what is addressed apart comes first
        taken = permute(taken, [dims[0], *(d for d in range(taken.rank) if d != dims[0])])
    return reshape(taken, call.shape)


def addressed(indices: tuple[LabelledTensor | None, ...]) -> tuple[list[int], list[LabelledTensor]]:
    """The dims that are addressed, and by what: a mask addresses as many as it has."""
    dims: list[int] = []
    at = 0
    for tensor in indices:
        count = tensor.rank if tensor is not None and is_mask(tensor) else 1
        dims += range(at, at + count) if tensor is not None else []
        at += count
    return dims, [i for i in indices if i is not None]


def places(tensor: LabelledTensor, dims: list[int], given: list[LabelledTensor]) -> list[Labels] | None:
    """The coordinate on each of the dims of every place, where the contents of what addresses them is known."""
    if any(i.table is None for i in given):
        return None
    tables = [t for i in given for t in (np.nonzero(i.table) if is_mask(i) else [np.asarray(i.table)])]
    at = np.broadcast_arrays(*tables)
    return [t.astype(np.int64) % tensor.shape[d] for t, d in zip(at, dims, strict=True)]


def are_together(dims: Sequence[int]) -> bool:
    """Whether dims follow one another."""
    return list(dims) == list(range(dims[0], dims[-1] + 1))


def _joint_pick(tensor: LabelledTensor, dims: list[int], shape: Shape) -> LabelledTensor:
    """Dims addressed together become position dims; the other dims keep their arrays."""
    names = axes(tensor.rank)
    at = dims[0] if are_together(dims) else 0
    new = [f"!new{i}" for i in range(len(shape) - tensor.rank + len(dims))]
    kept = [x for d, x in enumerate(names) if d not in dims]
    text = f"{term(names, ordered=dims)} -> {term([*kept[:at], *new, *kept[at:]])}"
    return contract(text, [tensor], shape)


def is_mask(tensor: LabelledTensor) -> bool:
    """Whether an index is a boolean mask, which addresses several dims."""
    return tensor.dtype in ("bool", "uint8")


def differ_in(dim: int, one: LabelledTensor, other: LabelledTensor) -> bool:
    """Whether two shapes differ in another dim than this one."""
    return resized(one.shape, dim) != resized(other.shape, dim)


@op("gather")
def gather(self: LabelledTensor, dim: int, index: LabelledTensor, call: Call) -> LabelledTensor | Results:
    """Positions along dim are read; the other dims go together."""
    dim = one_dim(dim, self.rank)
    if differ_in(dim, self, index):
        self.pin(INDEX)
        settled(index).pin(INDEX)
        return call.pinned(INDEX)
    self = settled(self)
    if (chosen := by_choice(index, self.shape[dim])) is not None:
        text = "l* n r*, l* m r* n -> l* m r* n"
        before = contract(text, [self, chosen.values], (*index.shape, self.shape[dim]), {"l*": dim})
        picked = Chosen(before, chosen.at, chosen.key)
        return settled_if_done(LabelledTensor(self.space, index.shape, chosen=picked))
    in_order = placed(self, (dim,), INDEX)
    return contract("l* n r*, l* m r* -> l* m r*", [in_order, settled(index)], index.shape, {"l*": dim})


@op("one_hot")
def one_hot(self: LabelledTensor, call: Call) -> LabelledTensor:
    """A place for every value: in order, unless the values were chosen among as many."""
    chosen = by_choice(self, call.shape[-1])
    return chosen.values if chosen else contract("... -> ... !k", [settled(self)], call.shape)


@op("eq")
def equal(self: LabelledTensor, call: Call) -> LabelledTensor:
    """Elementwise; an index compared with all that it may be is its one-hot form, with one number a part of that."""
    other = call.operands.get("other")
    if isinstance(number := call.number("other"), int) and self.chosen is not None:
        chosen = by_choice(self, self.chosen.values.shape[-1])
        if chosen is not None and 0 <= number < chosen.values.shape[-1]:
            return select(chosen.values, chosen.values.rank - 1, number)
    ramp = other.table if isinstance(other, LabelledTensor) else None
    if self.shape[-1:] == (1,) and ramp is not None and np.array_equal(ramp, np.arange(call.shape[-1])):
        chosen = by_choice(self, call.shape[-1])
        if chosen is not None:
            return reshape(chosen.values, call.shape)
    return known(pointwise(*call.tensors), computed(call.node, call.operands))
