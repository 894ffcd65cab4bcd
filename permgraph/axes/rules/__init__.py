"""The rule table: one row per ATen op. An op that is not here pins all it touches and is reported."""

# importing the families fills the table
from permgraph.axes.rules import (  # noqa: F401
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
    writing,
)
from permgraph.axes.rules.rule import Call, Results, Rule, results_of
from permgraph.axes.rules.table import RULES, rule_of

__all__ = ["RULES", "Call", "Results", "Rule", "results_of", "rule_of"]
