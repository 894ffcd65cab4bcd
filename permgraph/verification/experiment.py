"""Experiment: a network at fixed weights and inputs, to be run with its units in other orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from permgraph.errors import CheckError, PlanError
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.planning.gather import Gather, gathers
from permgraph.planning.moves import moves_of
from permgraph.tolerances import MARGIN, MOST, TOLERANCE
from permgraph.verification.float64 import Run, run, wide
from permgraph.verification.state import State, Weights, permuted

if TYPE_CHECKING:
    from torch import nn

NOISE = (1.0, 0.1, 0.0)  # tried in this order, until the network is not NaN
NUDGES = (1.0, -1.0, 2.0, -2.0)  # last bits: of two equal values each may come out larger in some of them


class Experiment:
    """The network before any unit moves, and how far its outputs are from that after.

    noise   how much of `NOISE` its weights have
    before  what it computes with all units in order
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Raises PlanError for a model without weights, or inputs without values; CheckError for a model that gives nothing to
        compare."""
        self.model = model
        self.weights = Weights(model, seed)
        given = tuple(example_inputs), dict(kwargs or {})
        if any(t.is_meta for t in tree_leaves(given) if isinstance(t, torch.Tensor)):
            raise PlanError(
                "an example input is on the meta device and has no values: verify computes with it. "
                "Give one on the device of the model."
            )
        self.inputs = tree_map_only(torch.Tensor, wide, given)
        self.noise, self.before = self._start()
        self._refuse_nothing()
        self._rounding: float | None = None

    def change(self, plan: Plan, perms: Permutations) -> float:
        """Largest relative change of any output when the permutations are applied."""
        moves = moves_of(plan.spec, gathers(plan, perms))
        after = run(self.model, State(self.weights, self.noise, moves), self.inputs)
        back = gathers(plan, perms.only(plan.selected).inverse(plan.spec), outputs=True)
        return change(self.before.outputs, [_put_back(t, i, back) for i, t in enumerate(after.outputs)])

    def limit(self) -> float:
        """The relative change that still counts as none.

        `TOLERANCE` for most networks. In one that is ill-conditioned (a deep network whose activations grow from layer
        to layer), summing in another order changes more than that; so a hundred times the change that rounding makes is
        allowed, at most 1e-4.
        """
        return max(TOLERANCE, min(MARGIN * self.rounding(), MOST))

    def rounding(self) -> float:
        """The largest relative change when each weight is moved by its last bits, and all units stay in order."""
        if self._rounding is None:
            self._rounding = max(self._nudged(nudge) for nudge in NUDGES)
        return self._rounding

    def _nudged(self, nudge: float) -> float:
        after = run(self.model, State(self.weights, self.noise, nudge=nudge), self.inputs)
        return change(self.before.outputs, after.outputs)

    def limit_of(self, largest: float) -> tuple[float, float]:
        """The limit that a change is held against, and `rounding`: measured only where it is above TOLERANCE, 0 elsewhere."""
        return (TOLERANCE, 0.0) if largest <= TOLERANCE else (self.limit(), self.rounding())

    @property
    def nan(self) -> float:
        """Share of the output values that are NaN."""
        total = sum(t.numel() for t in self.before.outputs)
        return sum(int(torch.isnan(t).sum()) for t in self.before.outputs) / max(total, 1)

    def _start(self) -> tuple[float, Run]:
        """The most noise at which the network gives no more NaN and inf than its own weights do."""
        own: Run | None = None
        for noise in NOISE[:-1]:
            try:
                noisy = run(self.model, State(self.weights, noise), self.inputs)
            except (RuntimeError, ValueError, IndexError):  # a probability below 0, an index out of range
                noisy = None
            if noisy is not None and all(bool(torch.isfinite(t).all()) for t in noisy.outputs):
                return noise, noisy
            own = own or run(self.model, State(self.weights), self.inputs)
            if noisy is not None and _same_finite(noisy, own):
                return noise, noisy
        assert own is not None
        return 0.0, own

    def _refuse_nothing(self) -> None:
        name, outputs = type(self.model).__name__, self.before.outputs
        if not any(t.numel() for t in outputs):
            raise CheckError(
                f"{name}: it returns no tensor with values in it, so there is no function to check."
            )
        floats = [t for t in outputs if t.is_floating_point() or t.is_complex()]
        if floats and all(bool(torch.isnan(t).all()) for t in floats):
            raise CheckError(
                f"{name}: all outputs are NaN before any unit moves, with noise on the weights and without: nothing can "
                "be checked. Give inputs, and weights, at which the network computes numbers."
            )


def change(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """Largest relative change of any output; infinite when their number, a shape, or what is finite differs."""
    if len(before) != len(after):
        return float("inf")
    return max((_change(a, b) for a, b in zip(before, after, strict=True)), default=0.0)


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.shape != after.shape:
        return float("inf")
    if not before.is_floating_point() and not before.is_complex():
        return float(not torch.equal(before, after))
    finite = torch.isfinite(before)
    if not torch.equal(finite, torch.isfinite(after)) or not torch.equal(before.isnan(), after.isnan()):
        return float("inf")
    one, other = before[finite], after[finite]
    size = float(max(one.abs().max(), other.abs().max())) if one.numel() else 0.0
    return float((other - one).abs().max() / size) if size else 0.0


def _same_finite(one: Run, other: Run) -> bool:
    return len(one.outputs) == len(other.outputs) and all(
        a.shape == b.shape and torch.equal(torch.isfinite(a), torch.isfinite(b))
        for a, b in zip(one.outputs, other.outputs, strict=True)
    )


def _put_back(tensor: torch.Tensor, index: int, back: list[Gather]) -> torch.Tensor:
    return permuted(tensor, [g for g in back if g.tensor == f"output:{index}"])
