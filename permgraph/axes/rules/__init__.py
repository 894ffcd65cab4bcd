"""The rule table: one row per ATen op. An op that is not here pins all it touches and is reported."""

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
from permgraph.axes.rules.rule import Call, Results, Rule, results_of
from permgraph.axes.rules.table import RULES, rule_of

# importing these fills the table
FAMILIES = (
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

__all__ = ["RULES", "Call", "Results", "Rule", "results_of", "rule_of"]
