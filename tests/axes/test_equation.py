"""The notation of the rules: what is read, and what is refused."""

from __future__ import annotations

import pytest

from permgraph.axes.equation import EquationError, expand_star, in_family, parse


def test_terms_letters_and_marks() -> None:
    read = parse("b (g i) !s*, (g o) i !k*, (g o)? -> b (g o) !t*")
    assert read.operands == (
        (("b",), ("g", "i"), ("s*",)),
        (("g", "o"), ("i",), ("k*",)),
        (("g", "o"),),
    )
    assert read.result == (("b",), ("g", "o"), ("t*",))
    assert read.ordered == {"s*", "k*", "t*"} and not read.mixed


def test_mixed_inside_and_outside_a_factored_axis() -> None:
    read = parse("b (g [c]) [s*], (g c)? -> b (g c) s*")
    assert read.mixed == {"c", "s*"} and not read.ordered
    assert read.operands[0] == (("b",), ("g", "c"), ("s*",))


def test_leading_axes_and_an_empty_result() -> None:
    assert parse("... i, o i -> ... o").operands[0] == (("...",), ("i",))
    assert parse("k, k -> ").result == ()


def test_spaces_do_not_matter_between_letters_of_a_factored_axis() -> None:
    assert parse("( g i ) -> g").operands == parse("(g i) -> g").operands


def test_names_may_be_words() -> None:
    read = parse("... in, out in, out? -> ... out")
    assert read.operands == ((("...",), ("in",)), (("out",), ("in",)), (("out",),))
    assert read.optional == (False, False, True)


WRONG = {
    "a b": ("'->' expected after the operands", 3),
    "a-b -> a": ("not in the notation", 1),
    "a [b -> a": ("']' expected", 5),
    "(a b -> a": ("the name of an axis expected or ')'", 5),
    "a (b ( c)) -> a": ("the name of an axis expected or ')'", 5),
    "a (b s*) -> a": ("a factor of an axis is one axis", 5),
    "a, b% -> a": ("not in the notation", 4),
    "a,  % -> a": ("not in the notation", 4),
    "a! -> a": ("the name of an axis expected", 3),
    "a? b -> a": ("',' or '->' expected", 3),
    "... ... a -> a": ("'...' stands twice in one term", 4),
    "in, out in -> ... uot": ("`uot` is in no operand; a new axis of the result is written `!uot`", 18),
    "a -> [a]": ("axes are mixed where they are read", 5),
    "a -> a?": ("the result is one term, and the last", 6),
    "a -> a -> a": ("the result is one term, and the last", 7),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_in_the_notation_is_refused_with_its_place(text: str) -> None:
    why, place = WRONG[text]
    with pytest.raises(EquationError) as refused:
        parse(text)
    message, shown, caret = str(refused.value).splitlines()
    assert message.startswith(f"equation: {why}")
    assert shown == f"  {text}" and caret.index("^") == place + 2


def test_a_size_is_of_a_name_in_the_equation() -> None:
    assert parse("a s* -> a s*").key("s") == "s*" and parse("(g a) -> g").key("g") == "g"
    with pytest.raises(EquationError, match="`x`, which is not in"):
        parse("a -> a").key("x")


def test_a_star_stands_for_several_axes() -> None:
    assert expand_star("s*", 3) == ["s*0", "s*1", "s*2"]
    assert expand_star("s*", 0) == []
    assert expand_star("c", 3) == ["c"]
    assert in_family("s*1", frozenset({"s*"})) and in_family("c", frozenset({"c"}))
    assert not in_family("t*1", frozenset({"s*"})) and not in_family("s", frozenset({"s*"}))
    assert not in_family("s0", frozenset({"s*"}))
