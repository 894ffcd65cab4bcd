"""A dim that is counted from the end is the same dim: every rule reads both as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from permgraph.frontend.decomposition import is_decomposed
from permgraph.symmetry.infer import infer
from tests.axes.calls import Call, traced
from tests.axes.example import Example, ex
from tests.axes.examples import EXAMPLES

NAMES = {"dim", "dim0", "dim1", "dim2", "dims", "dimension", "axis", "axis0", "axis1", "start_dim", "end_dim"}


def negative(example: Example) -> Iterator[Example]:
    """The call with one of its dims written as a negative number, where torch computes the same."""
    call = Call(example)
    if is_decomposed(call.function):  # it has no rule
        return
    names = [a.name for a in call.function._schema.arguments]
    rank = max((t.dim() for t in call.results(list(call.params))), default=0)
    for place, name in enumerate(names[: len(example.args)]):
        for count in {rank - 1, rank, rank + 1} if name in NAMES else ():
            value = _from_the_end(example.args[place], count)
            other = replace(example, args=(*example.args[:place], value, *example.args[place + 1 :]))
            if value != example.args[place] and _same(call, other):
                yield other


def _from_the_end(value: Any, rank: int) -> Any:
    if isinstance(value, list):
        return [_from_the_end(v, rank) for v in value]
    return value - rank if type(value) is int and value >= 0 else value


def _same(call: Call, other: Example) -> bool:
    try:
        made = Call(other).results(list(call.params))
    except (IndexError, RuntimeError):
        return False
    return all(map(torch.equal, call.results(list(call.params)), made))


def found(example: Example) -> tuple[Any, ...]:
    spec = infer(traced(Call(example)))
    return spec.groups, spec.places, spec.unknown_ops


# _fft_* take no negative dim: the process would crash
FIRST = {e.row: e for e in reversed(EXAMPLES) if not e.row.startswith("_fft")}
CASES = [(e, other) for e in FIRST.values() for other in negative(e)]


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("example", "other"), CASES, ids=[str(other) for _, other in CASES])
def test_the_group_is_the_same(example: Example, other: Example) -> None:
    assert found(other) == found(example)


def test_windows_of_the_last_dim() -> None:
    one, other = (ex("unfold", *_args("unfold", dim=dim)) for dim in (1, -1))
    assert found(one) == found(other) and not found(other)[-1]


def test_many_rules_have_a_dim_and_a_difference_is_seen() -> None:
    assert len({example.row for example, _ in CASES}) > 40
    one, other = (next(e for e in EXAMPLES if e.row == "unfold"), ex("unfold", *_args("unfold", dim=0)))
    assert found(one) != found(other)


def _args(row: str, dim: int) -> tuple[Any, ...]:
    first, _, *rest = next(e for e in EXAMPLES if e.row == row).args
    return first, dim, *rest
