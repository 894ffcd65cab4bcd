"""What each op does to forms: one row an op. An op that has no row commutes with no factor."""

# importing the families fills the table
from permgraph.transformations.rows import (  # noqa: F401
    functions,
    movement,
    norms,
    positions,
    products,
    recurrent,
)
