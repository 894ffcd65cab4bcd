"""The memory of a calibration, of the function check and of the repair after it, estimated from the models and the first batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from permgraph.matching.memory import Memory
    from permgraph.weights.encoder import Encoder


def memory_for(
    a: Encoder,
    b: Encoder,
    plan: Plan | None,
    pairs: Iterable[Any] | None,
    checkpoint: bool = False,
    check: bool = False,
    repair: bool = False,
) -> Memory:
    """What one pass over all probes will need, and what comes after it: the function check, a repair. Without a plan nothing
    is matched.

    The first batch shows how large the inputs are; a function of the user's, None, is not asked.
    """
    return estimates(a, b, plan, pairs, checkpoint, check, repair)(None)


def estimates(
    a: Encoder,
    b: Encoder,
    plan: Plan | None,
    pairs: Iterable[Any] | None,
    checkpoint: bool,
    check: bool,
    repair: bool,
) -> Callable[[Collection[str] | None], Memory]:
    """The same for a pass over some probes, by their keys; one batch is read for all that is asked."""
    from torch.utils._pytree import tree_leaves

    from permgraph.frontend.batches import sides
    from permgraph.matching.memory import SINGLE, Memory, available, growth, largest_result, needed
    from permgraph.verification.state import bytes_held
    from permgraph.weights.repair import COPIES

    weights = [sum(p.numel() for p in e.source.module.parameters()) for e in (a, b)]
    first = None if pairs is None else next(iter(pairs), None)
    tensors = [] if first is None else tree_leaves(sides(first)[0])
    inputs = tensors[0].numel() if tensors else None
    largest = 0.0 if inputs is None else growth(a.trace, inputs) * largest_result(a.trace)
    sizes = [p.numel() for p in b.source.module.parameters()]

    def estimate(keys: Collection[str] | None) -> Memory:
        if plan is None:
            found = Memory(0, 0, None, "", available())
        else:
            found = needed(plan, sum(weights), a.trace, inputs, checkpoint, keys)
        return replace(
            found,
            check=SINGLE * weights[1] + bytes_held(sizes) + found.moments if check else 0,
            repair=round(SINGLE * (sum(weights) + weights[0] + COPIES * largest)) if repair else 0,
        )

    return estimate
