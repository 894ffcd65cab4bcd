"""Forms: by what power of a unit's factor a number is multiplied, as a sum of unknown exponents of weights.

When every weight of a unit is multiplied by s to an exponent of its own, an element of an activation is multiplied by s to
a sum of exponents: its *form*. A product adds forms, and a sum needs equal ones. What is found so is a set of linear
equations, as in dimensional analysis; their solutions are the exponents that keep the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Form = int  # a number for each form: a key, which patterns of elements hold
NONE: Form = 0  # not multiplied
ANY: Form = -1  # an element that is zero, whatever it is multiplied by
ONE: Form = -2  # an element that is one

Vector = NDArray[np.int64]


class Algebra(Protocol):
    """What the table of ops asks of forms, whatever they stand for."""

    def add(self, a: Form, b: Form, times: int = 1) -> Form:
        """The form of x · y^times, element by element."""

    def times(self, a: Form, power: int) -> Form:
        """The form of x^power."""

    def contract(self, pairs: Sequence[tuple[Form, Form]]) -> Form:
        """The form of a sum of products, given the pairs of forms that meet in it, in order."""

    def total(self, forms: Sequence[Form]) -> Form:
        """The form of a sum."""

    def require_equal(self, a: Form, b: Form) -> Form:
        """Both are added: they have to be multiplied alike. Returns the form of the sum."""

    def require_none(self, a: Form) -> None:
        """An op does not commute with any factor here."""

    def refuse_varying(self, pattern: Tensor, dim: int) -> None:
        """Elements along a dim of a pattern are multiplied by others one by one."""


class Forms:
    """The forms over `count` unknown exponents, and the equations that ops make among them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._rows: list[Vector] = []
        self._numbers: dict[bytes, Form] = {}
        self._equations: dict[bytes, Vector] = {}
        self._number(np.zeros(count, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def unknown(self, index: int) -> Form:
        """The form that is one exponent."""
        row = np.zeros(self.count, dtype=np.int64)
        row[index] = 1
        return self._number(row)

    def vector(self, form: Form) -> Vector:
        """The coefficients of the exponents; of an element that is zero, none."""
        return self._rows[max(form, NONE)]

    def add(self, a: Form, b: Form, times: int = 1) -> Form:
        """The form of x · y^times."""
        if ANY in (a, b):
            return ANY
        return self._number(self._rows[a] + times * self._rows[b])

    def times(self, a: Form, power: int) -> Form:
        """The form of x^power."""
        return ANY if a == ANY else self._number(power * self._rows[a])

    def contract(self, pairs: Sequence[tuple[Form, Form]]) -> Form:
        """The form of a sum of products, given the pairs of forms that meet in it."""
        return self.total([self.add(a, b) for a, b in dict.fromkeys(pairs)])

    def total(self, forms: Sequence[Form]) -> Form:
        """The form of a sum."""
        total: Form = ANY
        for form in dict.fromkeys(forms):
            total = self.require_equal(total, form)
        return total

    def require_equal(self, a: Form, b: Form) -> Form:
        """Both are added: they have to be multiplied alike. Returns the form of the sum."""
        if a in (ANY, b) or b == ANY:
            return b if a == ANY else a
        self._require(self._rows[a] - self._rows[b])
        return a

    def require_none(self, a: Form) -> None:
        """An op does not commute with any factor here."""
        if a > NONE:
            self._require(self._rows[a])

    def refuse_varying(self, pattern: Tensor, dim: int) -> None:
        """A factor of each unit does not mind."""

    def _number(self, row: Vector) -> Form:
        key = row.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._rows)
            self._rows.append(row)
        return self._numbers[key]

    def _require(self, row: Vector) -> None:
        self._equations.setdefault(row.tobytes(), row)

    def exponents(self, modulo: int = 0) -> list[Vector]:
        """A basis of the exponents that satisfy every equation: over the rationals, as whole numbers, or modulo 2."""
        pivots = _eliminate(
            [_sparse(enumerate(map(int, row)), modulo) for row in self._equations.values()], modulo
        )
        basis = []
        for index in (i for i in range(self.count) if i not in pivots):
            solution = _sparse([(c, -row.get(index, 0)) for c, row in pivots.items()], modulo)
            solution[index] = Fraction(1)
            scale = int(np.lcm.reduce([x.denominator for x in solution.values()]))
            vector = np.zeros(self.count, dtype=np.int64)
            for column, x in solution.items():
                vector[column] = int(x * scale)
            basis.append(vector)
        return _shorter(basis, modulo)


def _shorter(basis: list[Vector], modulo: int) -> list[Vector]:
    """The same solutions by vectors that touch fewer weights, where one less another does."""
    basis = list(basis)
    for i, vector in enumerate(basis):
        for other in basis[:i] + basis[i + 1 :]:
            for sign in (1, -1):
                less = (vector - sign * other) % modulo if modulo else vector - sign * other
                if np.count_nonzero(less) < np.count_nonzero(vector):
                    vector = basis[i] = less
    return basis


Row = dict[int, Fraction]  # column → entry, those that are not 0


def _sparse(entries: Iterable[tuple[int, int | Fraction]], modulo: int) -> Row:
    numbers = ((c, Fraction(x) % modulo if modulo else Fraction(x)) for c, x in entries)
    return {c: x for c, x in numbers if x}


def _eliminate(rows: list[Row], modulo: int) -> dict[int, Row]:
    """Gauss-Jordan: column of each pivot → its row, reduced. The last columns are pivots first, so that what produces a
    unit comes out free, and what consumes it as the inverse of that."""
    pivots: dict[int, Row] = {}
    for row in rows:
        for column in [c for c in row if c in pivots]:
            row = _less(row, pivots[column], row[column], modulo)
        if not row:
            continue
        last = max(row)
        row = {c: x / row[last] for c, x in row.items()}  # modulo 2 the entry is 1
        for column, known in pivots.items():
            if last in known:
                pivots[column] = _less(known, row, known[last], modulo)
        pivots[last] = row
    return pivots


def _less(row: Row, other: Row, times: Fraction, modulo: int) -> Row:
    return _sparse([(c, row.get(c, 0) - times * other.get(c, 0)) for c in row.keys() | other.keys()], modulo)
