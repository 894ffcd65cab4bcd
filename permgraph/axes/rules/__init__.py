"""The rule table: one row per ATen op. An op that is not here pins all it touches and is reported."""

from __future__ import annotations

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
from permgraph.axes.rules.builders import Rule, pin_everything

RULES: dict[str, Rule] = {
    **matrix_products.RULES,
    **linalg.RULES,
    **convolution.RULES,
    **pooling.RULES,
    **normalise.RULES,
    **attention.RULES,
    **reduce.RULES,
    **elementwise.RULES,
    **movement.RULES,
    **indexing.RULES,
    **create.RULES,
    **position.RULES,
    **recurrent.RULES,
    **control.RULES,
    **reading.RULES,
}


def rule_of(op: str, pointwise: bool) -> Rule | None:
    """The rule for "aten.linear.default"; pointwise ops without a row of their own share one."""
    namespace, _, rest = op.partition(".")
    name = rest.partition(".")[0]
    if namespace != "aten":
        return RULES.get(f"{namespace}.{name}")
    return RULES.get(name) or (elementwise.every_tensor if pointwise else None)


__all__ = ["RULES", "Rule", "pin_everything", "rule_of"]
