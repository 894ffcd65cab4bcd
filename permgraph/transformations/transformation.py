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
    ones    tensors that have to be one, for a rotation past the scales of norms: `fold` makes them so
    """

    group: str
    kind: str
    powers: tuple[Power, ...]
    seen: tuple[tuple[str, int], ...] = ()
    ones: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{p.place}^{'/'.join(map(str, p.exponents))}" for p in self.powers]
        return f"{self.group} {self.kind}: {', '.join(parts)}"

    def folds(self) -> str | None:
        """The scale of a norm that this factor can make one, since what reads it is divided by as much."""
        up = [power for power in self.powers if max(power.exponents) > 0]
        if self.kind != "scales" or len(up) != 1 or len(up) == len(self.powers) or up[0].exponents != (1,):
            return None
        return up[0].place.tensor
