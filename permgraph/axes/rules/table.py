"""The table of rules, and how a rule gets into it.

A rule is an equation over the tensors that an op reads, or a function of the op's arguments by the names of the
op's own schema, that returns an equation (or the labelled results, where no equation can say it):

    register("linear", "... i, o i, o? -> ... o")
    register("group_norm", "b (g [c]) [s*], (g c)?, (g c)? -> b (g c) s*", g="num_groups")

    @op("glu")
    def glu(self: LabelledTensor, dim: int) -> LabelledTensor: ...

A tensor that the rule left unused is pinned. `UnsupportedForm` is how a rule says what it does not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from permgraph.axes.equation import parse
from permgraph.axes.rules.rule import EquationRule, FunctionRule, Rule

F = TypeVar("F", bound=Callable[..., Any])
RULES: dict[str, Rule] = {}


def register(names: str, rule: Rule | str, *operands: str, **sizes: str) -> None:
    """Give ops a rule; the last one given holds.

    Args:
        names: ops, separated by spaces: "linear" for aten.linear, "lib.op" for others. All overloads share a rule.
        rule: an equation, or a rule that `equation` made.
        operands, sizes: see `equation`.
    """
    row = equation(rule, *operands, **sizes) if isinstance(rule, str) else rule
    RULES.update(dict.fromkeys(names.split(), row))


def equation(text: str, *operands: str, **sizes: str) -> Rule:
    """A rule that is one equation.

    Args:
        text: in the notation of `permgraph.axes.equation`; raises EquationError where it is mistyped.
        operands: names of the arguments that its terms stand for; left out, the tensors of the schema in order.
        sizes: what the shapes leave open, as the name of an argument: g="num_groups". For a starred axis it is
            how many there are: a number (a negative one counts from the end of the first tensor), or a list's length.
    """
    parsed = parse(text)
    return EquationRule(parsed, operands, {parsed.key(name): argument for name, argument in sizes.items()})


def op(names: str) -> Callable[[F], F]:
    """Give ops a rule that is a function of their arguments, by the names of the schema.

    Parameters annotated with `LabelledTensor` arrive as labelled tensors, the others as literals, and one annotated
    `Call` as the call itself. It returns an equation over its tensors, (equation, sizes), or the results. A
    parameter that an op or overload may lack has a default.
    """

    def decorate(function: F) -> F:
        register(names, FunctionRule.of(function))
        return function

    return decorate


def rule_of(op: str, pointwise: bool) -> Rule | None:
    """The rule for "aten.linear.default"; pointwise ops without a row of their own share one."""
    namespace, _, rest = op.partition(".")
    name = rest.partition(".")[0]
    if namespace != "aten":
        return RULES.get(f"{namespace}.{name}")
    return RULES.get(name) or (RULES["permgraph.pointwise"] if pointwise else None)
