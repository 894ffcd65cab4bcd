"""One random network before all judges."""

from __future__ import annotations

from dataclasses import dataclass

from networks.random_networks import random_network

import permgraph as pg
from oracles.automorphisms import log10_order
from oracles.bound import above
from oracles.law import law, rounding

TOLERANCE = 1e-9  # relative, in float64
_TIES = 10  # times what rounding changes
_SEEN = 1e-6  # a tensor out of step changes the function by more


@dataclass(frozen=True)
class Verdict:
    """What was found of the network of one seed.

    log10_ours, log10_nauty   orders of the group
    change, put_back          see `oracles.law.law`
    rounding                  where the change is above the tolerance: what the last bits of the weights change by themselves
    above                     exchanges outside the group that keep the function; -1: not tried
    error                     why infer, plan or apply failed, or ""
    """

    seed: int
    families: tuple[str, ...]
    log10_ours: float = 0.0
    log10_nauty: float = 0.0
    frozen: int = 0
    change: float = 0.0
    put_back: float = 0.0
    above: int = -1
    error: str = ""
    rounding: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of what is wrong; a smaller order is none where inference says that vertices are frozen."""
        apart = self.log10_ours - self.log10_nauty
        wrong = {
            "unplanned": bool(self.error),
            "unsound": not self.change <= TOLERANCE and not self.undecided,
            "order": apart > 1e-6 or (apart < -1e-6 and not self.frozen),
            "above": self.above > 0 and not self.frozen and not self.dead,
        }
        return tuple(name for name, true in wrong.items() if true)

    @property
    def undecided(self) -> bool:
        """Whether rounding changes the function as much as the new order does: it chooses between equal values."""
        return TOLERANCE < self.change <= _TIES * self.rounding

    @property
    def dead(self) -> bool:
        """Whether nothing notices what moves: the function does not depend on it (the softmax of a single number)."""
        return self.log10_ours > 0 and not self.moves

    @property
    def moves(self) -> bool:
        """Whether a tensor put back out of step is noticed."""
        return self.put_back > _SEEN


def judge(seed: int, bound: bool = True) -> Verdict:
    """`bound` also tries exchanges outside the group, which takes most of the time."""
    module, inputs = random_network(seed)
    families = tuple(getattr(module, "names", ()))
    trace = pg.trace(module, inputs)
    try:
        spec = pg.infer(trace)
        change, put_back = law(module, inputs, spec, seed) if spec.groups else (0.0, 0.0)
        last_bits = 0.0 if change <= TOLERANCE else rounding(module, inputs, seed)
        beyond = len(above(module, inputs, spec)) if bound else -1
    except (pg.PermgraphError, ArithmeticError, LookupError, ValueError, AssertionError) as error:
        return Verdict(seed, families, error=f"{type(error).__name__}: {error}")
    order = log10_order(trace)
    return Verdict(
        seed, families, spec.log10_order, order, spec.frozen, change, put_back, beyond, "", last_bits
    )
