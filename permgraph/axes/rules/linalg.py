"""Matrix functions: what they do when rows and columns are re-ordered; what depends on an order pins it.

(P X Q)⁻¹ = Qᵀ X⁻¹ Pᵀ, det(P X Pᵀ) = det X, exp(P X Pᵀ) = P exp(X) Pᵀ. Decompositions into triangles, and those of
which only one triangle is read, depend on the order of rows.
"""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules.builders import positions_only
from permgraph.axes.rules.rule import Call, Results
from permgraph.axes.rules.table import op
from permgraph.ir.trace import Shape


def _sides(matrix: LabelledTensor) -> tuple[LabelledTensor, LabelledTensor]:
    """The rows and the columns of a matrix, each for itself: nothing else of it survives a matrix function."""
    *lead, i, j = matrix.shape
    rows = contract("... i j -> ... i", [matrix], (*lead, i))
    return rows, contract("... i j -> ... j", [matrix], (*lead, j))


@op("_linalg_det")
def determinant(A: LabelledTensor) -> LabelledTensor:
    rows, columns = _sides(A)
    return contract("... i, ... i -> ...", [rows, columns], rows.shape[:-1])


@op("_linalg_slogdet")
def log_determinant(A: LabelledTensor, call: Call) -> Results:
    """(sign, logarithm, …): the logarithm alone does not see a re-ordering of rows, the sign does."""
    if call.read & {2, 3}:
        raise UnsupportedForm("the factors of a determinant")
    rows, columns = _sides(A)
    result = (
        determinant(A) if 0 in call.read else contract("... i, ... j -> ...", [rows, columns], A.shape[:-2])
    )
    return (result, result, *call.pinned("factors", 2))


def _inverse(matrix: LabelledTensor) -> LabelledTensor:
    rows, columns = _sides(matrix)
    return contract("... j, ... i -> ... j i", [columns, rows], columns.shape + rows.shape[-1:])


@op("linalg_inv_ex")
def inverse(A: LabelledTensor) -> LabelledTensor:
    return _inverse(A)


@op("linalg_pinv")
def pseudo_inverse(self: LabelledTensor) -> LabelledTensor:
    return _inverse(self)


@op("_linalg_solve_ex")
def solve(A: LabelledTensor, B: LabelledTensor, left: bool, call: Call) -> LabelledTensor:
    """A X = B, or X A = B."""
    sides = [*_sides(A), B]
    if B.rank == 1:
        return contract("... i, ... j, i -> ... j", sides, call.shape)
    if B.rank != A.rank:
        raise UnsupportedForm("a batch of vectors")
    text = "... i, ... j, ... i k -> ... j k" if left else "... i, ... j, ... k j -> ... k i"
    return contract(text, sides, call.shape)


@op("linalg_solve_triangular")
def solve_triangular(self: LabelledTensor, B: LabelledTensor, left: bool) -> str:
    return "... !i !j, ... !i k -> ... !n k" if left else "... !i !j, ... k !j -> ... k !n"


@op("linalg_matrix_exp")
def exponential(self: LabelledTensor) -> LabelledTensor:
    rows, columns = _sides(self)
    both = contract("... i, ... i -> ... i", [rows, columns], rows.shape)
    return contract("... i, ... j -> ... i j", [both, both], self.shape)


def _in_order(matrix: LabelledTensor, shape: Shape) -> LabelledTensor:
    """A result in which rows and columns know their place, as they do in the matrix it comes from."""
    lead = contract("... !i !j -> ...", [matrix], matrix.shape[:-2])
    return positions_only(lead, shape, lead.rank, "order of rows and columns")


@op("""linalg_qr linalg_cholesky_ex linalg_lu_factor_ex linalg_lu cholesky _linalg_eigh linalg_eig
    linalg_ldl_factor_ex linalg_householder_product geqrf""")
def decomposition(call: Call) -> Results:
    """QR, LU, Cholesky, eigenvectors: factors that depend on the order of rows."""
    matrix = call.tensors[0]
    return tuple(_in_order(matrix, shape) for shape in call.shapes)


@op("_linalg_svd")
def singular_values(A: LabelledTensor, call: Call) -> Results:
    """(U, S, Vh): the singular values alone do not see an order, and come sorted."""
    if call.read & {0, 2}:
        return tuple(_in_order(A, shape) for shape in call.shapes)
    lead = contract("... i, ... j -> ...", [*_sides(A)], A.shape[:-2])
    values = positions_only(lead, call.shapes[1], lead.rank, "sorted")
    first, *_, last = call.pinned("not read")
    return first, values, last
