"""Matrix functions: what they do when rows and columns are re-ordered; what depends on an order pins it.

(P X Q)⁻¹ = Qᵀ X⁻¹ Pᵀ, det(P X Pᵀ) = det X, exp(P X Pᵀ) = P exp(X) Pᵀ. Decompositions into triangles, and those of
which only one triangle is read, depend on the order of rows.
"""

from __future__ import annotations

from permgraph.axes.contraction import contract
from permgraph.axes.rules.builders import Result, Rule, several
from permgraph.axes.tensor_labels import Value
from permgraph.axes.workspace import Context
from permgraph.ir.trace import Shape


def _sides(context: Context, value: Value) -> tuple[Value, Value]:
    """The rows and the columns of a matrix, each for itself: nothing else of it survives a matrix function."""
    *lead, i, j = value.shape
    rows = contract(context, "... i j -> ... i", [value], (*lead, i))
    return rows, contract(context, "... i j -> ... j", [value], (*lead, j))


def _determinant(context: Context) -> Value:
    rows, columns = _sides(context, context.need(0, "A"))
    return contract(context, "... i, ... i -> ...", [rows, columns], rows.shape[:-1])


def _log_determinant(context: Context) -> Result:
    """(sign, logarithm, …): the logarithm alone does not see a re-ordering of rows, the sign does."""
    value = context.need(0, "A")
    if any(context.reads(i) for i in (2, 3)):
        raise NotImplementedError("the factors of a determinant")
    if context.reads(0):
        made = _determinant(context)
    else:
        made = contract(context, "... i j -> ...", [value], value.shape[:-2])
    return (made, made, *(context.pinned_value(m.shape, "factors") for m in context.node.results[2:] if m))


def _inverse(context: Context) -> Value:
    rows, columns = _sides(context, context.need(0, "A"))
    return contract(context, "... j, ... i -> ... j i", [columns, rows], context.node.shape)


def _solve(context: Context) -> Value:
    """A X = B, or X A = B."""
    a, b = context.need(0, "A"), context.need(1, "B")
    sides: list[Value | None] = [*_sides(context, a), b]
    shape = context.node.shape
    if len(b.shape) == 1:
        return contract(context, "... i, ... j, i -> ... j", sides, shape)
    if len(b.shape) != len(a.shape):
        raise NotImplementedError("a batch of vectors")
    if context.arg(2, "left", True):
        return contract(context, "... i, ... j, ... i k -> ... j k", sides, shape)
    return contract(context, "... i, ... j, ... k j -> ... k i", sides, shape)


def _solve_triangular(context: Context) -> Value:
    a, b, shape = context.need(0, "self"), context.need(1, "B"), context.node.shape
    if context.arg(3, "left", True):
        return contract(context, "... !i !j, ... !i k -> ... !J k", [a, b], shape)
    return contract(context, "... !i !j, ... k !j -> ... k !I", [a, b], shape)


def _exponential(context: Context) -> Value:
    value = context.need(0, "self")
    rows, columns = _sides(context, value)
    both = contract(context, "... i, ... i -> ... i", [rows, columns], rows.shape)
    return contract(context, "... i, ... j -> ... i j", [both, both], value.shape)


def _placed(context: Context, value: Value, shape: Shape) -> Value:
    """A result in which rows and columns know their place, as they do in the matrix it comes from."""
    lead = contract(context, "... !i !j -> ...", [value], value.shape[:-2])
    dims = tuple(range(len(lead.shape), len(shape)))
    fixed = context.positions(shape, dims, "order of rows and columns")
    return Value(shape, lead.arrays + fixed, value.weight, name=context.node.name)


def _decomposed(context: Context) -> Result:
    """QR, LU, Cholesky, eigenvectors: factors that depend on the order of rows."""
    value = context.need(0, "A")
    made = tuple(_placed(context, value, m.shape) if m else None for m in context.node.results)
    return made if context.node.multiple else made[0]


def _singular(context: Context) -> Result:
    """(U, S, Vh): the singular values alone do not see an order, and come sorted."""
    if context.reads(0) or context.reads(2):
        return _decomposed(context)
    value, (u, s, v) = context.need(0, "A"), context.node.results
    assert s is not None
    lead = contract(context, "... i j -> ...", [value], value.shape[:-2])
    fixed = context.positions(s.shape, (len(s.shape) - 1,), "sorted")
    rest = [context.pinned_value(m.shape, "not read") if m else None for m in (u, v)]
    return rest[0], Value(s.shape, lead.arrays + fixed, value.weight), rest[1]


_DECOMPOSED = """linalg_qr linalg_cholesky_ex linalg_lu_factor_ex linalg_lu cholesky _linalg_eigh linalg_eig
linalg_eigvals linalg_ldl_factor_ex linalg_householder_product geqrf"""

RULES: dict[str, Rule] = {
    "_linalg_det": several(_determinant),
    "_linalg_slogdet": _log_determinant,
    "linalg_inv_ex": several(_inverse),
    "linalg_pinv": _inverse,
    "_linalg_solve_ex": several(_solve),
    "linalg_solve_triangular": _solve_triangular,
    "linalg_matrix_exp": _exponential,
    "_linalg_svd": _singular,
    **{name: _decomposed for name in _DECOMPOSED.split()},
}
