"""Equations: the notation in which an op's rule is written.

    linear     "... in, out in, out? -> ... out"
    conv       "... (g i) !s*, (g o) i !k*, (g o)? -> ... (g o) !t*"
    layer_norm "... [c*], c*?, c*? -> ... c*"

One term per operand, one name per axis, separated by spaces. A name shared by operands ties their axes; a name
absent from the result is contracted. `(g i)` is an axis that factors, `s*` stands for several axes, `...` for any
leading axes (broadcast from the right), `[c]` is mixed (normalised over), `!s` is ordered and therefore pinned,
`?` after a term marks an operand that may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

_TOKEN = re.compile(r"\s*(\.\.\.|->|[^\W\d]\w*\*?|[()\[\],!?]|$)")
DOTS = "..."
Axis = tuple[str, ...]  # the names of one axis: one, or several when it factors; ("...",) for leading axes
Term = tuple[Axis, ...]


class EquationError(ValueError):
    """An equation that is not in the notation; the message shows the place."""


@dataclass(frozen=True)
class Equation:
    """Operand terms, result term, which operands may be absent, and which names are mixed or ordered."""

    operands: tuple[Term, ...]
    result: Term
    optional: tuple[bool, ...]
    mixed: frozenset[str]
    ordered: frozenset[str]
    text: str

    def __str__(self) -> str:
        return self.text

    def key(self, name: str) -> str:
        """A name as the equation writes it: `s` stands for `s*` too. Raises EquationError for any other."""
        names = {x for term in (*self.operands, self.result) for axis in term for x in axis}
        for spelling in (name, f"{name}*"):
            if spelling in names:
                return spelling
        raise EquationError(f"a size is given for `{name}`, which is not in {self.text!r}")


@cache
def parse(text: str) -> Equation:
    """Read an equation. Raises EquationError, with a caret under the place, on what is not in the notation."""
    reader = _Reader(text)
    operands, optional = [reader.term()], [reader.accept("?")]
    while reader.accept(","):
        operands.append(reader.term())
        optional.append(reader.accept("?"))
    if not reader.accept("->"):
        reader.fail("'->' expected after the operands" if not reader.token else "',' or '->' expected")
    reader.known, reader.in_result = {x for term in operands for axis in term for x in axis}, True
    result = reader.term()
    if reader.token:
        reader.fail("the result is one term, and the last")
    return Equation(
        tuple(operands), result, tuple(optional), frozenset(reader.mixed), frozenset(reader.ordered), text
    )


class _Reader:
    """One equation, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.end = text, 0
        self.mixed: set[str] = set()
        self.ordered: set[str] = set()
        self.known: set[str] = set()
        self.in_result = False
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            self.at = self.end + len(self.text[self.end :]) - len(self.text[self.end :].lstrip())
            self.fail("not in the notation of equations")
        self.token, self.at, self.end = match[1], match.start(1), match.end()

    def fail(self, why: str) -> NoReturn:
        raise EquationError(f"equation: {why}\n  {self.text}\n  {' ' * self.at}^")

    def accept(self, token: str) -> bool:
        accepted = self.token == token
        if accepted:
            self.advance()
        return accepted

    def term(self) -> Term:
        axes: list[Axis] = []
        while self.token not in (",", "->", "?", ""):
            if self.token == DOTS and (DOTS,) in axes:
                self.fail("'...' stands twice in one term")
            axes.append(self.axis())
        return tuple(axes)

    def axis(self) -> Axis:
        if self.accept(DOTS):
            return (DOTS,)
        if self.accept("("):
            return tuple(self.factors())
        return (self.name(),)

    def factors(self) -> Iterator[str]:
        """The names up to the bracket that closes."""
        while not self.accept(")"):
            if self.token.endswith("*"):
                self.fail("a factor of an axis is one axis")
            yield self.name(")")

    def name(self, instead: str = "") -> str:
        """One axis with its marks; `instead` is what else may stand here."""
        ordered = self.accept("!")
        if not ordered and self.token == "[":
            return self.mix()
        name = self.token
        if not (name[:1].isalpha() or name[:1] == "_"):
            self.fail(f"the name of an axis expected{f' or {instead!r}' if instead else ''}")
        if self.in_result and not ordered and name not in self.known:
            self.fail(f"`{name}` is in no operand; a new axis of the result is written `!{name}`")
        self.advance()
        if ordered:
            self.ordered.add(name)
        return name

    def mix(self) -> str:
        if self.in_result:
            self.fail("axes are mixed where they are read, in an operand")
        self.advance()
        name = self.name()
        self.mixed.add(name)
        if not self.accept("]"):
            self.fail("']' expected")
        return name


def expand_star(name: str, count: int) -> list[str]:
    """`s*` over three axes is s*0, s*1, s*2; a name without a star is itself."""
    return [f"{name}{i}" for i in range(count)] if name.endswith("*") else [name]


def in_family(name: str, names: frozenset[str]) -> bool:
    """Whether a bound name (s*0) belongs to a set written in the equation (s*)."""
    head, star, _ = name.partition("*")
    return head + star in names
