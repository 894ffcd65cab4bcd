"""Layers: which layer of a deeper network goes with which of a shallower one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from permgraph.errors import PlanError, UsageError


@dataclass(frozen=True)
class Layers:
    """paired   path of a list of layers ("encoder.layers") → for each layer of B, that of A that it goes with
    counts   the same path → how many layers A has
    """

    paired: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def of_a(self, name: str) -> str:
        """What a tensor of B is called in A."""
        for path, numbers in self.paired.items():
            if found := _numbered(path, name):
                return f"{path}.{numbers[int(found[1])]}{found[2]}"
        return name

    def left_out(self, name: str) -> bool:
        """Whether a tensor of A is in a layer that no layer of B goes with."""
        return any(
            (found := _numbered(path, name)) is not None and int(found[1]) not in numbers
            for path, numbers in self.paired.items()
        )


def layers_of(a: Iterable[str], b: Iterable[str], given: Mapping[str, Sequence[int]] | None = None) -> Layers:
    """The lists of layers that are longer in A than in B, by the names of tensors, and their pairing: as given, or by position.

    By position the first goes with the first, the last with the last, and the others evenly between. Raises UsageError for a
    pairing that is not one, PlanError where B is the deeper one.
    """
    of_a, of_b = _counts(a), _counts(b)
    paired: dict[str, tuple[int, ...]] = {}
    given = dict(given or {})
    for path in of_a.keys() & of_b.keys():
        many, few = of_a[path], of_b[path]
        if few > many:
            raise PlanError(
                f"{path}: B has {few} layers and A {many}: B is the deeper one. Name the deeper model as A."
            )
        if few < many or path in given:
            paired[path] = (
                _checked(path, given.pop(path), many, few) if path in given else by_position(many, few)
            )
    if given:
        raise UsageError(
            f"layers {next(iter(given))!r}: no such list of layers. There are: {', '.join(sorted(of_a)) or 'none'}."
        )
    return Layers(paired, {path: of_a[path] for path in paired})


def by_position(many: int, few: int) -> tuple[int, ...]:
    """
    >>> by_position(12, 6)
    (0, 2, 4, 7, 9, 11)
    """
    return (0,) if few == 1 else tuple((2 * i * (many - 1) + few - 1) // (2 * (few - 1)) for i in range(few))


def _checked(path: str, numbers: Sequence[int], many: int, few: int) -> tuple[int, ...]:
    found = tuple(int(n) for n in numbers)
    rising = all(x < y for x, y in pairwise(found))
    if len(found) != few or not rising or min(found) < 0 or max(found) >= many:
        raise UsageError(
            f"layers {path!r}: {list(found)}: give a layer of A, 0 to {many - 1}, for each of B's {few}, rising."
        )
    return found


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Path of a list of layers → how many there are: the outermost numbers in the names of tensors."""
    found: dict[str, set[int]] = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdecimal() and i:
                found.setdefault(".".join(parts[:i]), set()).add(int(part))
                break
    return {path: len(n) for path, n in found.items() if n == set(range(len(n)))}


def _numbered(path: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{re.escape(path)}\.(\d+)(\..*)", name)
