"""Factors: what units may be multiplied by so that the function stays, and by which power at each place."""

from __future__ import annotations

from dataclasses import dataclass

from permgraph.ir.spec import Place


@dataclass(frozen=True)
class Power:
    """At a place of the spec a unit's weights are multiplied by factor^exponent: one exponent for each slot of the place."""

    place: Place
    exponents: tuple[int, ...]


@dataclass(frozen=True)
class Factor:
    """Every unit of a group may be multiplied by a number of its own.

    group   name of the group
    kind    "signs": by -1; "scales": by a positive number
    powers  what happens at each place; where none is named, nothing
    seen    what happens to the group's activations: node of a probe and exponent, where it is not 0
    """

    group: str
    kind: str
    powers: tuple[Power, ...]
    seen: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        parts = [f"{p.place}^{'/'.join(map(str, p.exponents))}" for p in self.powers]
        return f"{self.group} {self.kind}: {', '.join(parts)}"
