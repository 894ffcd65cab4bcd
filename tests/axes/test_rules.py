"""Every row of the rule table, on example calls: what it allows is true, and it allows all that is true.

The first half is the law of tests/properties, on one op at a time. The second half looks for exchanges of two
coordinates by trying them on numbers; each one that only re-orders the result must be in the inferred group.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pytest
import torch
from oracles.bound import contained, generators_of
from torch import Tensor

from permgraph.axes import movement
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.rules import RULES, rule, rule_of
from permgraph.axes.rules.table import equation, op
from permgraph.errors import RuleError
from permgraph.frontend.decomposition import is_decomposed
from permgraph.ir.spec import PermSpec
from permgraph.planning.moves import moves_of
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import TOLERANCE, verify
from tests.axes.calls import Call, drawn, operands, traced
from tests.axes.example import Example
from tests.axes.examples import BOUNDED, EXAMPLES
from tests.axes.exchanges import exchanged_units

WITHOUT = {
    "view_as_real": "of complex tensors, which examples do not draw: tests/axes/test_forms.py",
    "rand": "no operand is free: tests/symmetry/test_random_values.py",
    "_grouped_mm": "bfloat16 only, so the law cannot be measured in float64",
    "permgraph.read": "what Python code reads: tests/frontend/test_running.py",
    "permgraph.unreached": "what an example does not reach: tests/frontend/test_running.py",
    "masked_select": "its examples are in tests/symmetry/test_pairs.py",
    "triu_indices": "no operand: tests/symmetry/test_pairs.py",
    "linspace": "no operand",
    "nonzero": "how much it finds depends on the data: tests/frontend/test_data_sizes.py",
    **{
        f"permgraph.{joint}": "a joint of a loop: tests/frontend/test_control.py"
        for joint in ("carry", "step", "loop", "collect", "flex_attention")
    },
}

_FIRST = {id(e) for e in {e.row: e for e in reversed(EXAMPLES)}.values()}


def each(found: list[Example]) -> pytest.MarkDecorator:
    """By default the first example of each row."""
    cases = [e if id(e) in _FIRST else pytest.param(e, marks=pytest.mark.slow) for e in found]
    return pytest.mark.parametrize("example", cases, ids=str)


INFERRED: dict[int, tuple[Call, PermSpec]] = {}


def inferred(example: Example) -> tuple[Call, PermSpec]:
    """By the rules as they are; once for all tests."""
    if id(example) not in INFERRED:
        call = Call(example)
        INFERRED[id(example)] = call, infer(traced(call))
    return INFERRED[id(example)]


def error(example: Example, seeds: int = 3) -> float:
    """The largest change of the function under the group that the rules give; infinite for an op without a rule."""
    call = Call(example)
    return change(call, infer(traced(call)), seeds)


def change(call: Call, found: PermSpec, seeds: int = 3) -> float:
    if found.unknown_ops:
        return float("inf")
    return max(verify(call, (), found, seed=seed, explain=False).change for seed in range(seeds))


@each(EXAMPLES)
def test_the_rule_is_true(example: Example) -> None:
    assert change(*inferred(example)) <= TOLERANCE


def test_every_row_has_an_example() -> None:
    tried = {id(rule_of(f"aten.{e.op}", True)) for e in EXAMPLES}
    tried |= {id(RULES[name]) for name in WITHOUT}
    assert [row for row, rule in RULES.items() if id(rule) not in tried] == []


def test_every_example_has_a_row_or_is_pointwise_or_decomposed() -> None:
    for example in EXAMPLES:
        op = Call(example).function
        assert example.row in RULES or torch.Tag.pointwise in op.tags or is_decomposed(op), example


# -- a wrong row is caught -------------------------------------------------------------------------------


@op("test.transposed_view")
def _transposed_view(self: LabelledTensor, call: rule.Call) -> LabelledTensor:
    """As if the new dims were read from the last to the first."""
    *lead, a, b = call.shape
    return movement.swap(movement.reshape(self, (*lead, b, a)), -1, -2)


WRONG = {
    "linear": equation("... i, o j, o? -> ... o"),
    "softmax": equation("... -> ..."),
    "conv1d": equation("b i !s, i o !k, i? -> b o !t"),
    "conv1d ": equation("b i s, o i k, o? -> b o !t"),
    "layer_norm": equation("... [c] -> ... c"),
    "view": RULES.pop("test.transposed_view"),
    "group_norm": equation("b [c] [s*], c?, c? -> b c s*"),
    "cumsum": equation("a b -> a b"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("row", WRONG)
def test_a_wrong_row_is_caught(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [e for e in EXAMPLES if e.row == row.strip()]
    assert all(error(e) <= TOLERANCE for e in mine)
    monkeypatch.setitem(RULES, row.strip(), WRONG[row])
    assert max(map(moved, mine)) > 1e-6


def moved(example: Example) -> float:
    """The error under a wrong rule; 0 where the rule does not even fit the call, which proves nothing."""
    try:
        return error(example)
    except RuleError:
        return 0.0


# -- the bound from above --------------------------------------------------------------------------------

Exchange = tuple[frozenset[tuple[int, int]], int, int]  # axes (operand, axis), and the two coordinates


def exchanged(params: list[Tensor], axes: frozenset[tuple[int, int]], i: int, j: int) -> list[Tensor]:
    made = list(params)
    for operand, axis in axes:
        order = torch.arange(made[operand].shape[axis])
        order[[i, j]] = order[[j, i]]
        made[operand] = made[operand].index_select(axis, order)
    return made


def true_exchanges(call: Call) -> Iterator[Exchange]:
    """Exchanges of two coordinates on a smallest set of axes that re-order the result and do nothing else.

    A fixed order exists when the rows of values that all draws give a coordinate are the same rows.
    """
    kinds = operands(call.example.args)
    exact = all(r.is_floating_point() or r.is_complex() for r in call.results(list(call.params)))
    generator = torch.Generator().manual_seed(1)
    draws = [[drawn(p, generator) for p in kinds] for _ in range(8 if exact else 24)]
    before = rows(call, draws)
    sizes = {n for p in kinds for n in p.shape if n > 1}
    for size in sizes:
        axes = [(k, a) for k, p in enumerate(kinds) for a, n in enumerate(p.shape) if n == size]
        for i, j in combinations(range(size), 2):
            found: list[frozenset[tuple[int, int]]] = []
            for count in range(1, min(len(axes), 4) + 1):
                for chosen in map(frozenset, combinations(axes, count)):
                    if any(known <= chosen for known in found) or not all(
                        matters(call, draws, axis, k) for axis, k in product(chosen, (i, j))
                    ):
                        continue
                    after = rows(call, [exchanged(d, chosen, i, j) for d in draws])
                    if all(same_rows(a, b) for a, b in zip(before, after, strict=True)):
                        found.append(chosen)
                        yield chosen, i, j


def rows(call: Call, draws: list[list[Tensor]]) -> list[np.ndarray]:
    """Per result an array (coordinates, draws)."""
    made = [[r.reshape(-1) for r in call.results(d)] for d in draws]
    return [torch.stack(parts, dim=1).numpy() for parts in zip(*made, strict=True)]


def same_rows(a: np.ndarray, b: np.ndarray) -> bool:
    def ordered(x: np.ndarray) -> np.ndarray:
        x = np.concatenate([x.real, x.imag], axis=1) if np.iscomplexobj(x) else x.astype(float)
        return x[np.lexsort(np.round(x, 9).T)]

    return bool(np.allclose(ordered(a), ordered(b), rtol=0, atol=1e-7))


def matters(call: Call, draws: list[list[Tensor]], axis: tuple[int, int], index: int) -> bool:
    """Whether the result depends on this coordinate at all: where it does not, anything goes."""
    operand, dim = axis
    generator = torch.Generator().manual_seed(2)
    for draw in draws:
        other = list(draw)
        other[operand] = draw[operand].clone()
        part = other[operand].select(dim, index)
        part.copy_(part + torch.rand(part.shape, generator=generator, dtype=part.dtype) - 0.5)
        if any(
            not np.array_equal(a, b, equal_nan=True)
            for a, b in zip(rows(call, [draw]), rows(call, [other]), strict=True)
        ):
            return True
    return False


def inferred_exchanges(found: PermSpec) -> Iterator[frozenset[tuple[int, int, tuple[int, ...]]]]:
    """What exchanging two units of one group does to the operands: (operand, axis, new order) where it moves them.

    An exchange of whole operands is none of those that are tried, which re-order axes.
    """
    for gathers in exchanged_units(found):
        moves = moves_of(found, gathers)
        if any(move.sources != (tensor,) for tensor, move in moves.items()):
            continue
        yield frozenset(
            (int(tensor.split(".")[1]), g.axis, tuple(g.index.ravel().tolist()))
            for tensor, move in moves.items()
            for g in move.steps
            if tensor.startswith("params.")
        )


def missing(example: Example) -> list[Exchange]:
    """True exchanges that the inferred group lacks."""
    call, spec = inferred(example)
    found, generators, lacking = set(inferred_exchanges(spec)), generators_of(spec), []
    for axes, i, j in true_exchanges(call):
        wanted = set()
        for operand, axis in axes:
            order = list(range(call.params[operand].shape[axis]))
            order[i], order[j] = j, i
            wanted.add((operand, axis, tuple(order)))
        move = frozenset((f"params.{operand}", axis, order) for operand, axis, order in wanted)
        if frozenset(wanted) not in found and not contained(move, generators):  # alone, or several at once
            lacking.append((axes, i, j))
    return lacking


@each(BOUNDED)
def test_the_rule_allows_all_that_is_true(example: Example) -> None:
    lacking = missing(example)
    if example.small:
        assert lacking, f"not small any more: {example.small}"
    else:
        assert not lacking
