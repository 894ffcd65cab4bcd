"""Patterns: which form every element of a tensor has. What ops do to forms, element by element.

A pattern is an integer tensor of the shape of what it stands for, or None where no element is multiplied by anything.
Movements are done by torch itself, so a pattern cannot go another way than the numbers do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from permgraph.ir.trace import Shape
from permgraph.transformations.forms import ANY, NONE, ONE, Algebra, Form

Pattern = Tensor | None


class Blocked(Exception):
    """A form of an op that is not covered: nothing that the op reads may be multiplied."""


def full(pattern: Pattern, shape: Shape) -> Tensor:
    """The pattern with every element written out."""
    return torch.full(shape, NONE, dtype=torch.int32) if pattern is None else pattern.expand(shape)


def short(pattern: Tensor) -> Pattern:
    """None for a pattern in which nothing is multiplied."""
    return pattern if bool((pattern != NONE).any()) else None


def pairwise(a: Tensor, b: Tensor, of: Callable[[Form, Form], Form]) -> Tensor:
    """`of` every pair of forms that meet, broadcast."""
    code = (a.long() - ONE) * (1 << 32) + b.long() - ONE
    pairs, which = distinct(code)
    results = [of((pair >> 32) + ONE, (pair & 0xFFFFFFFF) + ONE) for pair in pairs]
    return torch.tensor(results, dtype=torch.int32)[which]


def distinct(numbers: Tensor) -> tuple[list[int], Tensor]:
    """The numbers that occur, ascending, and which one each element is."""
    found, which = numbers.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return found.tolist(), which


def added(forms: Algebra, patterns: Sequence[Pattern], shape: Shape) -> Pattern:
    """A sum: what meets is multiplied alike."""
    given = [p for p in patterns if p is not None]
    if not given:
        return None
    total = full(given[0], given[0].shape)
    for other in [*given[1:], *([torch.tensor(NONE, dtype=torch.int32)] if None in patterns else [])]:
        total = pairwise(total, other, forms.require_equal)
    return short(total.expand(shape))


def multiplied(forms: Algebra, a: Pattern, b: Pattern, shape: Shape, times: int = 1) -> Pattern:
    """a · b^times, element by element."""
    if a is None and b is None:
        return None
    one, other = (torch.tensor(NONE, dtype=torch.int32) if p is None else p for p in (a, b))
    return short(pairwise(one, other, lambda x, y: forms.add(x, y, times)).expand(shape))


def to_power(forms: Algebra, pattern: Pattern, power: int) -> Pattern:
    if pattern is None:
        return None
    nothing = torch.tensor(NONE, dtype=torch.int32)
    return short(pairwise(pattern, nothing, lambda x, _: forms.times(x, power)))


def blocked(forms: Algebra, pattern: Pattern) -> None:
    """An op that commutes with no factor reads this."""
    for form in [] if pattern is None else distinct(pattern)[0]:
        forms.require_none(form)


def alike_along(forms: Algebra, pattern: Tensor, dims: Sequence[int]) -> Tensor:
    """The pattern with one coordinate on each of `dims`, along which the elements are added or compared."""
    for dim in dims:
        one = pattern.narrow(dim, 0, 1)
        if pattern.shape[dim] > 1:
            rest = pattern.narrow(dim, 1, pattern.shape[dim] - 1)
            if bool((one == ANY).any()):  # of what is zero, the others tell
                one = torch.where(one == ANY, rest.amax(dim, keepdim=True), one)
            pairwise(one, rest, forms.require_equal)
        pattern = one
    return pattern


def summed(forms: Algebra, pattern: Tensor, dims: Sequence[int]) -> Tensor:
    """The pattern with one coordinate on each of `dims`, over which the elements are added."""
    dims = sorted({d % pattern.dim() for d in dims})
    shape = [1 if d in dims else n for d, n in enumerate(pattern.shape)]
    kept = [d for d in range(pattern.dim()) if d not in dims]
    rows = pattern.permute([*kept, *dims]).reshape(*(pattern.shape[d] for d in kept), -1)
    distinct_rows, which = _distinct(rows)
    totals = [forms.total(row) for row in distinct_rows.tolist()]
    return torch.tensor(totals, dtype=torch.int32)[which].reshape(shape)


def contracted(
    forms: Algebra, equation: str, a: Pattern, b: Pattern, shapes: tuple[Shape, Shape], out: Shape
) -> Pattern:
    """An einsum of two tensors: what is summed over is multiplied alike.

    equation   "ik,ok->io": one letter for each dim
    """
    if a is None and b is None:
        return None
    left, _, result = equation.partition("->")
    of_a, of_b = left.split(",")
    sizes = dict(zip(of_a + of_b, (*shapes[0], *shapes[1]), strict=True))
    one, other = full(a, shapes[0]), full(b, shapes[1])
    for term, shape in ((of_a, shapes[0]), (of_b, shapes[1])):
        if 0 in shape or len(set(term)) < len(term):
            raise Blocked(f"einsum {equation}")
    for dim, letter in enumerate(of_a):  # summed over by itself
        if letter not in of_b and letter not in result:
            one, sizes[letter] = alike_along(forms, one, [dim]), 1
    for dim, letter in enumerate(of_b):
        if letter not in of_a and letter not in result:
            other, sizes[letter] = alike_along(forms, other, [dim]), 1
    for letter in (x for x in of_a if x in of_b and x in result):  # element by element
        forms.refuse_varying(one, of_a.index(letter))
        forms.refuse_varying(other, of_b.index(letter))
    summed = [x for x in of_a if x in of_b and x not in result]
    batch = [x for x in of_a if x in of_b and x in result]
    rows = [x for x in of_a if x not in of_b and x in result]
    columns = [x for x in of_b if x not in of_a and x in result]
    one = _ordered(one, of_a, [*batch, *rows, *summed], sizes)
    other = _ordered(other, of_b, [*batch, *columns, *summed], sizes)

    def count(letters: list[str]) -> int:
        total = 1
        for letter in letters:
            total *= sizes[letter]
        return total

    n, m, k, c = count(batch), count(rows), count(summed), count(columns)
    product = _products(forms, one.reshape(n, m, k), other.reshape(n, c, k))
    letters = [*batch, *rows, *columns]
    wide = product.reshape([sizes[x] for x in letters])
    return short(wide.permute([letters.index(x) for x in result]).expand(out))


def _ordered(pattern: Tensor, term: str, letters: list[str], sizes: dict[str, int]) -> Tensor:
    """Dims in the order of `letters`; those that are left out have one coordinate."""
    rest = [x for x in term if x not in letters]
    turned = pattern.permute([term.index(x) for x in [*letters, *rest]])
    return turned.reshape([sizes[x] for x in letters])


def _products(forms: Algebra, a: Tensor, b: Tensor) -> Tensor:
    """(n, m, k) and (n, c, k) → (n, m, c): rows that are equal are looked at once."""
    rows_a, which_a = _distinct(a)
    rows_b, which_b = _distinct(b)
    code = which_a[:, :, None] * len(rows_b) + which_b[:, None, :]
    pairs, which = distinct(code)
    results = []
    for pair in pairs:
        one, other = rows_a[pair // len(rows_b)].tolist(), rows_b[pair % len(rows_b)].tolist()
        results.append(forms.contract(list(zip(one, other, strict=True))))
    return torch.tensor(results, dtype=torch.int32)[which]


def _distinct(a: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of the last dim, the first of them all NONE, and which one each is."""
    flat = a.reshape(-1, a.shape[-1])
    some = (flat != NONE).any(-1)
    which = torch.zeros(len(flat), dtype=torch.long)
    rows = torch.full((1, a.shape[-1]), NONE, dtype=a.dtype)
    if bool(some.any()):
        found, where = flat[some].unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        which[some] = where + 1
        rows = torch.cat([rows, found])
    return rows, which.reshape(a.shape[:-1])
