"""Turns: as forms, for an orthogonal matrix that mixes the units of a group.

An element is marked by the slot of a place and by the unit that it belongs to. An op that sees units one by one keeps none
of the matrix; an inner product over all units of two slots does not see it, when both are turned, nor does the sum of all
their squares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from permgraph.transformations.forms import ANY, NONE, ONE, Form


class Turns:
    """Which slots may be turned, and which only together. The slots begin apart and free."""

    def __init__(self, slots: int, units: int) -> None:
        self.slots, self.units = slots, units
        self._joined = list(range(slots))  # slot → another of its set, the first one to itself
        self._fixed = [False] * slots

    def mark(self, slot: int, unit: int) -> Form:
        return 1 + slot * self.units + unit

    def unit(self, mark: Form) -> int:
        return (mark - 1) % self.units

    def slot(self, mark: Form) -> int:
        """The first slot of those that are turned together with this."""
        slot = (mark - 1) // self.units % self.slots
        while self._joined[slot] != slot:
            slot = self._joined[slot]
        return slot

    def is_square(self, mark: Form) -> bool:
        """Marks of squares follow the others."""
        return mark > self.slots * self.units

    def add(self, a: Form, b: Form, times: int = 1) -> Form:
        """A product element by element."""
        if ANY in (a, b):
            return ANY
        if b == ONE:
            return a
        if a == ONE and times == 1:
            return b
        self.require_none(a)
        return self._none(b)

    def times(self, a: Form, power: int) -> Form:
        if a <= NONE or power == 1:
            return a
        if power == 2 and not self.is_square(a):
            return a + self.slots * self.units
        return self._none(a)

    def contract(self, pairs: Sequence[tuple[Form, Form]]) -> Form:
        """An inner product over all units of two slots, or one marked element times what is not marked.

        Several vectors may be in it: since the units may change places, no op takes one unit from here and one from there.
        """
        pairs = [pair for pair in pairs if ANY not in pair]
        distinct = set(pairs)
        if len(distinct) == 1 and NONE in next(iter(distinct)):
            return self.times(max(next(iter(distinct))), 1)
        seen: dict[tuple[int, int], Counter[int]] = {}
        for a, b in pairs:
            if self._meet(a, b):
                seen.setdefault((self.slot(a), self.slot(b)), Counter())[self.unit(a)] += 1
        whole = {key for key, count in seen.items() if self._whole(count)}
        for a, b in pairs:
            if not self._meet(a, b) or (self.slot(a), self.slot(b)) not in whole:
                self.require_none(a)
                self.require_none(b)
        for a, b in whole:
            self._join(a, b)
        return NONE

    def total(self, forms: Sequence[Form]) -> Form:
        """The sum of all squares of a slot, or of elements that are alike."""
        marks = [form for form in forms if form != ANY]
        if len(set(marks)) < 2:
            return marks[0] if marks else ANY
        squares: dict[int, Counter[int]] = {}
        for mark in marks:
            if mark > NONE and self.is_square(mark):
                squares.setdefault(self.slot(mark), Counter())[self.unit(mark)] += 1
        for mark in set(marks):
            if not (mark > NONE and self.is_square(mark) and self._whole(squares[self.slot(mark)])):
                self.require_none(mark)
        return NONE

    def require_equal(self, a: Form, b: Form) -> Form:
        if a in (ANY, b) or b == ANY:
            return b if a == ANY else a
        if self._meet(a, b):
            self._join(self.slot(a), self.slot(b))
            return a
        self.require_none(a)
        return self._none(b)

    def require_none(self, a: Form) -> None:
        if a > NONE:
            self._fixed[self.slot(a)] = True

    def refuse_varying(self, pattern: Tensor, dim: int) -> None:
        """Units that differ along a dim are multiplied one by one."""
        marks = pattern.movedim(dim, 0).flatten(1)
        some = marks > NONE
        units = (marks - 1) % self.units
        low = units.masked_fill(~some, self.units).amin(0)
        high = units.masked_fill(~some, -1).amax(0)
        for mark in sorted(set(marks[:, low < high].reshape(-1).tolist())):
            self.require_none(mark)

    def free(self) -> list[list[int]]:
        """The sets of slots that may be turned, each as a whole."""
        sets: dict[int, list[int]] = {}
        for slot in range(self.slots):
            sets.setdefault(self.slot(1 + slot * self.units), []).append(slot)
        return [slots for first, slots in sets.items() if not self._fixed[first]]

    def _none(self, a: Form) -> Form:
        self.require_none(a)
        return NONE

    def _meet(self, a: Form, b: Form) -> bool:
        """Whether both are marked as one unit, and neither is a square."""
        return (
            a > NONE
            and b > NONE
            and self.unit(a) == self.unit(b)
            and not (self.is_square(a) or self.is_square(b))
        )

    def _whole(self, count: Counter[int]) -> bool:
        """Whether all units occur, equally often."""
        return len(count) == self.units and len(set(count.values())) == 1

    def _join(self, a: int, b: int) -> None:
        self._fixed[min(a, b)] = self._fixed[a] or self._fixed[b]
        self._joined[max(a, b)] = min(a, b)
