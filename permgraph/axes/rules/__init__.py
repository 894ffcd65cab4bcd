"""The rule table: one row per ATen op. An op that is not here pins all it touches and is reported."""

# ruff: noqa: F401 (to import a file of rules puts them into the table)
from permgraph.axes.rules import (
    attention,
    control,
    convolution,
    create,
    elementwise,
    indexing,
    linalg,
    matrix_products,
    movement,
    normalise,
    pooling,
    position,
    reading,
    recurrent,
    reduce,
)
from permgraph.axes.rules.table import RULES, Call, Rule, results_of, rule_of

__all__ = ["RULES", "Call", "Rule", "results_of", "rule_of"]
