"""Every rule against the schemas of all overloads of its ops: names, tensors, and what a rule leaves unread."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules import RULES
from permgraph.axes.rules.rule import EquationRule, FunctionRule
from permgraph.axes.rules.table import equation
from permgraph.frontend.schema import is_tensor, schema_of

OWN = tuple(row for row in RULES if row.startswith(("permgraph.", "transformers.")))
FUNCTIONS = {row: r for row, r in RULES.items() if isinstance(r, FunctionRule) and row not in OWN}
EQUATIONS = {row: r for row, r in RULES.items() if isinstance(r, EquationRule) and row not in OWN}


def overloads(row: str) -> list[Any]:
    """Schemas of the overloads of an op that a graph can hold: they make tensors, write nothing, and number dims."""
    packet = getattr(torch.ops.aten, row, None)
    schemas = [schema_of(f"aten.{row}.{overload}") for overload in (packet.overloads() if packet else ())]
    kept = [s for s in schemas if s is not None and not s.is_mutable and "Dimname" not in str(s)]
    return [s for s in kept if any("Tensor" in str(r.type) for r in s.returns) and "..." not in str(s)]


def tensors(schema: Any) -> tuple[str, ...]:
    """Names of the tensor arguments; the first is `self` in one overload and `input` in another."""
    return tuple(a.name for a in schema.arguments if is_tensor(a))


def alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    first = {"input", "self"}
    return len(one) == len(other) and all(a == b or {a, b} == first for a, b in zip(one, other, strict=True))


def test_every_row_is_an_op_of_torch() -> None:
    assert [row for row in (*FUNCTIONS, *EQUATIONS) if not overloads(row)] == []


def mistakes(rule: FunctionRule, known: list[Any]) -> Iterator[str]:
    """Where the parameters of a rule and the schemas of an op disagree."""
    for parameter in rule.parameters:
        name = parameter.name
        having = [s for s in known if any(a.name == name for a in s.arguments)]
        if parameter.default is inspect.Parameter.empty and len(having) < len(known):
            yield f"{name} has no default, and there are overloads without it"
        if name in rule.tensors and having and not any(name in tensors(s) for s in having):
            yield f"{name} is annotated as a tensor, and is none"
        literal = "Any" not in str(parameter.annotation) and name not in rule.tensors
        if literal and any(name in tensors(s) for s in having):
            yield f"{name} is a tensor, and not annotated as one"


@pytest.mark.parametrize("row", FUNCTIONS)
def test_parameters_are_arguments_of_the_schemas(row: str) -> None:
    assert list(mistakes(FUNCTIONS[row], overloads(row))) == []


def never_bound(rules: dict[str, FunctionRule]) -> list[tuple[str, str]]:
    """Parameters that no op has: one that is mistyped and has a default would always be its default."""
    found = []
    for row, rule in rules.items():
        rows = [other for other in rules if rules[other] is rule]
        known = {a.name for other in rows for s in overloads(other) for a in s.arguments}
        found += [(row, p.name) for p in rule.parameters if p.name not in known]
    return found


def test_every_parameter_is_an_argument_of_some_op() -> None:
    assert never_bound(FUNCTIONS) == []


def shifted(rule: EquationRule, known: list[Any]) -> Iterator[str]:
    """Where the terms of an equation would stand for different arguments in different overloads."""
    count = len(rule.equation.operands)
    if rule.operands:
        yield from (n for n in rule.operands if not any(n in tensors(s) for s in known))
        if len(rule.operands) != count:
            yield f"{count} terms, {len(rule.operands)} names"
    else:
        longest = max((tensors(s)[:count] for s in known), key=len)
        yield from (
            str(s) for s in known if not alike(tensors(s)[:count], longest[: len(tensors(s))][:count])
        )
        needed = sum(not optional for optional in rule.equation.optional)
        yield from (str(s) for s in known if len(tensors(s)) < needed)
    for name in rule.sizes.values():
        yield from (f"{name} in {s}" for s in known if not any(a.name == name for a in s.arguments))


@pytest.mark.parametrize("row", EQUATIONS)
def test_terms_stand_for_the_same_arguments_in_every_overload(row: str) -> None:
    assert list(shifted(EQUATIONS[row], overloads(row))) == []


# -- a mistake is found ----------------------------------------------------------------------------------


def _wrong(self: LabelledTensor, dmi: int = 0, dim1: int = 0, keepdim: LabelledTensor | None = None) -> str:
    return "... -> ..."


def test_mistyped_and_mistaken_parameters_are_found() -> None:
    rule = FunctionRule.of(_wrong)
    assert never_bound({"sum": rule}) == [("sum", "dmi"), ("sum", "dim1")]
    assert list(mistakes(rule, overloads("sum"))) == ["keepdim is annotated as a tensor, and is none"]


def test_terms_that_shift_between_overloads_are_found() -> None:
    """bucketize takes (self, boundaries) or (a number, boundaries): the first tensor is another."""
    rule = equation("... -> ...")
    assert isinstance(rule, EquationRule)
    assert len(list(shifted(rule, overloads("bucketize")))) == 1
