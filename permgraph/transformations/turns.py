"""Turns: as forms, for an orthogonal matrix that mixes the units of a group.

An element is marked by the slot of a place and by the unit that it belongs to. An op that sees units one by one keeps none
of the matrix; an inner product over all units of two slots does not see it, when both are turned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from permgraph.transformations.forms import ANY, NONE, Form


class Turns:
    """Which slots may be turned, and which only together. The slots begin apart and free."""

    def __init__(self, slots: int, units: int) -> None:
        self.units = units
        self._joined = list(range(slots))  # slot → another of its set, the first one to itself
        self._fixed = [False] * slots

    def mark(self, slot: int, unit: int) -> Form:
        return 1 + slot * self.units + unit

    def unit(self, mark: Form) -> int:
        return (mark - 1) % self.units

    def slot(self, mark: Form) -> int:
        """The first slot of those that are turned together with this."""
        slot = (mark - 1) // self.units
        while self._joined[slot] != slot:
            slot = self._joined[slot]
        return slot

    def add(self, a: Form, b: Form, times: int = 1) -> Form:
        """A product element by element."""
        if ANY in (a, b):
            return ANY
        self.require_none(a)
        self.require_none(b)
        return NONE

    def times(self, a: Form, power: int) -> Form:
        if a == ANY or power == 1:
            return a
        self.require_none(a)
        return NONE

    def contract(self, pairs: Sequence[tuple[Form, Form]]) -> Form:
        """An inner product over all units of two slots, or one marked element times what is not marked.

        Several vectors may be in it: since the units may change places, no op takes one unit from here and one from there.
        """
        pairs = [pair for pair in pairs if ANY not in pair]
        distinct = set(pairs)
        if len(distinct) == 1 and NONE in next(iter(distinct)):
            return max(next(iter(distinct)))
        both = [(a, b) for a, b in pairs if a > NONE and b > NONE]
        seen: dict[tuple[int, int], Counter[int]] = {}
        for a, b in both:
            if self.unit(a) == self.unit(b):
                seen.setdefault((self.slot(a), self.slot(b)), Counter())[self.unit(a)] += 1
        whole = {
            key for key, count in seen.items() if len(set(count.values())) == 1 and len(count) == self.units
        }
        for a, b in pairs:
            if (a, b) == (NONE, NONE):
                continue
            if NONE not in (a, b) and (self.slot(a), self.slot(b)) in whole and self.unit(a) == self.unit(b):
                continue
            self.require_none(a)
            self.require_none(b)
        for a, b in whole:
            self._join(a, b)
        return NONE

    def require_equal(self, a: Form, b: Form) -> Form:
        if a in (ANY, b) or b == ANY:
            return b if a == ANY else a
        if NONE not in (a, b) and self.unit(a) == self.unit(b):
            self._join(self.slot(a), self.slot(b))
            return a
        self.require_none(a)
        self.require_none(b)
        return NONE

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
        for slot in range(len(self._joined)):
            sets.setdefault(self.slot(1 + slot * self.units), []).append(slot)
        return [slots for first, slots in sets.items() if not self._fixed[first]]

    def _join(self, a: int, b: int) -> None:
        self._fixed[min(a, b)] = self._fixed[a] or self._fixed[b]
        self._joined[max(a, b)] = min(a, b)
