"""Ops whose result depends on where things are: transforms, sampling, triangles, windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from permgraph.axes.addressing import take_jointly
from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.movement import permute
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.builders import axes, dims_of, ordered_along, placed, pointwise, term
from permgraph.axes.rules.rule import Call
from permgraph.axes.rules.table import op, register

register("stft", "... !t -> ... !f !s", "self")
register("unfold unfold_copy", "l* !n r* -> l* !w r* !z", l="dimension")
register("bucketize", "... -> ...", "self")
register("segment_reduce", "l* !n r* -> l* !segments r*", "data", l="axis")
register("grid_sampler_2d grid_sampler_3d", "b c !s*, b t* !p -> b c t*")


@op("_fft_r2c _fft_c2c _fft_c2r")
def fourier(self: LabelledTensor, dim: tuple[int, ...]) -> str:
    return ordered_along(self.rank, dims_of(dim, self.rank))


@op("triu tril")
def triangle(self: LabelledTensor, diagonal: int, call: Call) -> LabelledTensor:
    result = placed(self, (self.rank - 2, self.rank - 1))
    if self.table is None:
        return result
    return replace(result, table=(np.triu if call.node.short_op == "triu" else np.tril)(self.table, diagonal))


@op("diagonal diagonal_copy")
def diagonal(self: LabelledTensor, offset: int, dim1: int, dim2: int) -> LabelledTensor | str:
    """Two dims become one, the last."""
    dims, names = (dim1 % self.rank, dim2 % self.rank), axes(self.rank)
    at = np.arange(max(0, -offset), min(self.shape[dims[0]], self.shape[dims[1]] - offset))
    # of a weight, too, no other input reads more than this
    taken = take_jointly(replace(self, weight=False), dims, (at, at + offset))
    if taken is not None:
        self.space.use(self)
        taken = replace(taken, weight=self.weight)
        return permute(taken, [*(d for d in range(taken.rank) if d != min(dims)), min(dims)])
    kept = [x for d, x in enumerate(names) if d not in dims]
    return f"{term(names, ordered=dims)} -> {term([*kept, '!new'])}"


@op("searchsorted")
def search(sorted_sequence: LabelledTensor, self: LabelledTensor | None = None) -> LabelledTensor:
    """Where each element falls among sorted ones, of all or of its own row: those are ordered."""
    if self is None:
        raise UnsupportedForm("a number searched for")
    if sorted_sequence.rank > 1:
        return contract("l* !s, l* v -> l* v", [sorted_sequence, self], self.shape, {"l*": self.rank - 1})
    sorted_sequence.pin("ordered axis")
    return pointwise(self)
