"""Example calls for matrix functions."""

from __future__ import annotations

from tests.axes.example import ORDERED, P, ex

LINALG = [
    ex("_linalg_det", P(4, 4)),
    ex("_linalg_det", P(2, 4, 4)),
    ex("_linalg_slogdet", P(4, 4), read=(1,)),
    ex("_linalg_slogdet", P(4, 4), read=(0, 1)),
    ex("linalg_inv_ex", P(4, 4)),
    ex("linalg_inv_ex", P(2, 4, 4)),
    ex("linalg_pinv.atol_rtol_tensor", P(3, 5)),
    ex("_linalg_solve_ex", P(4, 4), P(4, 3)),
    ex("_linalg_solve_ex", P(2, 4, 4), P(2, 4, 3)),
    ex("_linalg_solve_ex", P(4, 4), P(4)),
    ex("_linalg_solve_ex", P(4, 4), P(3, 4), left=False),
    ex("linalg_solve_triangular", P(4, 4), P(4, 3), upper=False),
    ex("linalg_solve_triangular", P(4, 4), P(3, 4), upper=True, left=False),
    ex("linalg_matrix_exp", P(4, 4)),
    ex("_linalg_svd", P(3, 5), False, False, read=(1,)),
    ex("_linalg_svd", P(3, 5), read=(0, 1), small=ORDERED),
    ex("linalg_qr", P(4, 3), read=(0, 1)),
    ex("linalg_cholesky_ex", P(4, 4)),
    ex("linalg_lu_factor_ex", P(4, 4), small="pivots make up for the order of rows"),
    ex("_linalg_eigh", P(4, 4)),
]
