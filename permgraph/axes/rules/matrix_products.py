"""Products: linear maps, matrix products, einsum."""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.builders import broadcast, pointwise
from permgraph.axes.rules.table import op, register

register("linear", "... i, o i, o? -> ... o")
register("mm", "m k, k n -> m n")
register("bmm", "b m k, b k n -> b m n")
register("mv", "m k, k -> m")
register("dot vdot", "k, k -> ")
register("bilinear", "... i, ... j, o i j, o? -> ... o")
register("cdist _cdist_forward", "... m k, ... n k -> ... m n")
register("_pdist_forward", "!n k -> !p")
# rows sorted by expert, a matrix per expert, offsets of their runs: rows and experts are distinguished by position
register("_grouped_mm transformers.grouped_mm_fallback", "!t k, !e k n, e? -> !t n")


@op("matmul")
def product(self: LabelledTensor, other: LabelledTensor) -> LabelledTensor:
    """self @ other, with the vector cases of `torch.matmul`."""
    left, right = self.rank > 1, other.rank > 1
    text = f"{'... m k' if left else 'k'}, {'... k n' if right else 'k'} -> "
    text += f"{'... ' if left or right else ''}{'m ' if left else ''}{'n' if right else ''}"
    lead = broadcast(self.shape[:-2], other.shape[:-2])
    shape = lead + (self.shape[-2:-1] if left else ()) + (other.shape[-1:] if right else ())
    return contract(text, [self, other], shape)


@op("addmm")
def add_product(self: LabelledTensor, mat1: LabelledTensor, mat2: LabelledTensor) -> LabelledTensor:
    return pointwise(self, product(mat1, mat2))


@op("baddbmm")
def add_products(self: LabelledTensor, batch1: LabelledTensor, batch2: LabelledTensor) -> LabelledTensor:
    return pointwise(self, product(batch1, batch2))


@op("addbmm")
def add_sum(self: LabelledTensor, batch1: LabelledTensor, batch2: LabelledTensor) -> LabelledTensor:
    shape = (batch1.shape[1], batch2.shape[2])
    return pointwise(self, contract("b m k, b k n -> m n", [batch1, batch2], shape))


@op("addmv")
def add_vector(self: LabelledTensor, mat: LabelledTensor, vec: LabelledTensor) -> LabelledTensor:
    return pointwise(self, product(mat, vec))


@op("einsum")
def einsum(equation: str, tensors: tuple[LabelledTensor, ...]) -> str:
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        once = sorted({x for x in left if x.isalpha() and left.count(x) == 1})
        right = ("..." if "..." in left else "") + "".join(once)
    if len(left.split(",")) != len(tensors):
        raise UnsupportedForm(f"einsum {equation!r} of {len(tensors)} tensors")
    return f"{', '.join(_spaced(term) for term in left.split(','))} -> {_spaced(right)}"


def _spaced(term: str) -> str:
    return " ".join(term.replace("...", "@")).replace("@", "...")
