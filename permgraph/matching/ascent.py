"""Ascent: several networks take turns, each brought to all others as they are by now, until none gains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from permgraph.ir.permutations import Permutations
from permgraph.ir.spec import PermSpec

SWEEPS = 100  # in which every network has its turn; it ends when none gains, after far fewer


class Ascent(ABC):
    """One start: the permutations of every network into the order that all share.

    history  what was reached, before and after every sweep
    """

    def __init__(self, perms: Sequence[Permutations]) -> None:
        self.perms = list(perms)
        self.history: list[float] = []

    @abstractmethod
    def value(self) -> float:
        """What is climbed: a sum over all pairs of networks."""

    @abstractmethod
    def step(self, number: int) -> bool:
        """Assign one network anew with all others held; whether that gained. What does not gain is not taken."""

    def climb(self, rng: np.random.Generator) -> None:
        """Sweeps in random orders, as MergeMany's (Git Re-Basin, algorithm 3), until a sweep gains nothing."""
        self.history.append(self.value())
        for _ in range(SWEEPS):
            gained = [self.step(int(number)) for number in rng.permutation(len(self.perms))]
            if not any(gained):
                break
            self.history.append(self.value())


def in_order_of_first(perms: Sequence[Permutations], spec: PermSpec) -> list[Permutations]:
    """The same, where the order that all share is that of the first network, whose units stay."""
    back = perms[0].inverse(spec)
    return [one.then(back, spec) for one in perms]


def between(perms: Sequence[Permutations], a: int, b: int, spec: PermSpec) -> Permutations:
    """What brings network b to the order in which network a is by itself. From c to b and then from b to a is from c to a.

    >>> from permgraph.ir.spec import Group
    >>> spec = PermSpec("hand-made", "f" * 32, (Group("ffn.0", "ffn", 3),), ())
    >>> some = [Permutations({"ffn.0": np.array(p)}) for p in ([0, 1, 2], [1, 2, 0], [0, 2, 1])]
    >>> between(some, 1, 2, spec)["ffn.0"]
    array([1, 0, 2])
    """
    return perms[b].then(perms[a].inverse(spec), spec)
