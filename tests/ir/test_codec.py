"""The codec: what is written comes back equal, and what does not fit is refused with the path of the field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from permgraph.ir.codec import NOT_IN_FILE, Mismatch, decode, encode
from permgraph.ir.files import strict_json
from permgraph.ir.trace import Ref


@dataclass(frozen=True)
class Leaf:
    name: str
    at: tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    size: float
    leaves: tuple[Leaf, ...]
    table: dict[str, tuple[int, ...]]
    best: Leaf | None = None
    count: int | None = None
    free: Any = None
    fixed: bool = False
    derived: int = field(default=0, metadata=NOT_IN_FILE)

    def completed(self) -> Tree:
        return replace(self, derived=len(self.leaves))


LEAF = Leaf("a", (0, 5))
TREE = Tree(1.5, (LEAF, Leaf("é\n", ())), {"x.y": (1,)}, LEAF, 3, derived=2)
LITERALS = [
    None,
    True,
    0,
    -(2**63),
    1e-300,
    "text",
    (1, (2.0, None)),
    [1, (2, [3])],
    {"a": (1,), "dict": {"ref": "x"}},
    Ref("relu"),
    (Ref("a"), [Ref("b")], {"c": Ref("d")}),
    math.inf,
    -math.inf,
]


@pytest.mark.parametrize("literal", LITERALS, ids=repr)
def test_what_is_written_comes_back(literal: Any) -> None:
    tree = replace(TREE, free=literal)
    text = json.dumps(encode(tree), allow_nan=False)
    back = decode(Tree, strict_json(text))
    assert back == tree
    assert repr(back.free) == repr(literal)  # 1 is not True, and a tuple not a list


def test_a_number_that_is_none_comes_back() -> None:
    back = decode(Tree, encode(replace(TREE, size=math.nan)))
    assert math.isnan(back.size)


def broken(**changes: Any) -> dict[str, Any]:
    return {**encode(TREE), **changes}


WRONG: dict[str, tuple[Any, str]] = {
    "not an object": ([], "expected an object, found a list"),
    "text for int": (broken(count="x"), 'count: expected int, found "x"'),
    "bool for int": (broken(count=True), "count: expected int, found true"),
    "float for int": (broken(count=1.0), "count: expected int, found 1.0"),
    "int for bool": (broken(fixed=1), "fixed: expected bool, found 1"),
    "null for float": (broken(size=None), "size: expected a number, found null"),
    "bool for float": (broken(size=False), "size: expected a number, found false"),
    "object for list": (broken(leaves={}), "leaves: expected a list, found an object"),
    "list for object": (broken(table=[]), "table: expected an object, found a list"),
    "inside": (broken(leaves=[{"name": "a", "at": [0, "x"]}]), 'leaves[0].at[1]: expected int, found "x"'),
    "second": (broken(leaves=[encode(LEAF), {"name": 3, "at": []}]), "leaves[1].name: expected str, found 3"),
    "in a table": (broken(table={"x.y": [None]}), "table['x.y'][0]: expected int, found null"),
    "optional": (broken(best={"name": "a"}), "best: field 'at' is missing"),
    "missing": ({k: v for k, v in broken().items() if k != "table"}, "field 'table' is missing"),
    "unknown": (broken(colour="red"), 'unknown field "colour"'),
    "not in the file": (broken(derived=7), 'unknown field "derived"'),
    "large": (broken(count=2**63), "count: an integer of more than 64 bits"),
    "large in a list": (broken(table={"x": [2**63]}), "table['x'][0]: an integer of more than 64 bits"),
    "large float": (broken(size=json.loads("1e999")), "size: a number of more than 64 bits"),
    "large int for float": (broken(size=10**400), "size: an integer of more than 64 bits"),
    "long text": (broken(count="x" * 500), f'count: expected int, found "{"x" * 56}…'),
    "literal": (broken(free={"dict": [1]}), "free.dict: expected an object, found a list"),
    "literal inside": (broken(free=[1, {"ref": {"node": 3}}]), "free[1].ref.node: expected str, found 3"),
    "no such literal": (
        broken(free={"eval": "f()"}),
        "free: expected one of dict, list, float, ref, found an object",
    ),
    "two literals": (broken(free={"dict": {}, "list": []}), "free: expected one of dict, list, float, ref"),
    "float of text": (broken(free={"float": "1"}), "free: expected a number, found an object"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused_with_its_path(data: Any, message: str) -> None:
    with pytest.raises(Mismatch) as error:
        decode(Tree, data)
    assert str(error.value).startswith(message)


def test_literals_are_bounded_in_depth() -> None:
    deep: Any = 0
    for _ in range(60):
        deep = [deep]
    decode(Tree, broken(free=deep))
    for _ in range(10):
        deep = {"dict": {"a": deep}}
    with pytest.raises(Mismatch, match="nested more than 64 deep"):
        decode(Tree, broken(free=deep))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ("NaN", "NaN is not allowed"),
        ("[-Infinity]", "-Infinity is not allowed"),
        ("1" * 5000, "Exceeds the limit"),
    ],
)
def test_json_that_python_would_take_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json(text)
