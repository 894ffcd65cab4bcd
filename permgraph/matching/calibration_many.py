"""Moments of every pair of several models, from one pass: each model runs once over the data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from permgraph.errors import MatchError
from permgraph.frontend.batches import Call, Inputs, sides
from permgraph.ir.moments import Moments
from permgraph.ir.names import letter
from permgraph.ir.plan import Plan
from permgraph.ir.values import refuse_other_values
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.built_alike import alike
from permgraph.matching.calibration import described, fingerprint_of
from permgraph.matching.observers import Observers, clips_of, results_of
from permgraph.matching.probes import layout_of, refuse_unobserved, refuse_unvisited

Pair = tuple[int, int]


def calibrate_many(
    plan: Plan,
    models: Sequence[nn.Module],
    batches: Iterable[Any],
    pairs: Collection[Pair],
    *,
    inputs: Inputs = None,
    stride: int = 1,
) -> dict[Pair, Moments]:
    """The moments that `calibrate` gives for each of these pairs of models (numbers, the smaller first).

    The activations of one batch are held for all models at a time. Raises as `calibrate`, and MatchError for inputs that
    are of two models (`Pair`).
    """
    refuse_unobserved(plan)
    for number, model in enumerate(models):
        refuse_other_values(plan.spec, model.state_dict(), f"model {letter(number)}")
    observers = _Each(plan, models, inputs, stride)
    layouts = {key: layout_of(plan.spec, probe) for key, probe in observers.wanted.items()}
    weights = [fingerprint_of(plan, model) for model in models]
    builders = {
        (i, j): MomentsBuilder(
            layouts,
            replace(plan.origin, weights_a=weights[i], weights_b=weights[j]),
            described(models[i], models[j], stride),
        )
        for i, j in pairs
    }
    count = 0
    for batch in batches:
        for pair, key, a, b in observers.of_pairs(batch, pairs):
            builders[pair].update(key, a, b)
        count += 1
    if not count:
        raise MatchError("no batch to calibrate on: the list of inputs is empty.")
    found = {}
    for pair, builder in builders.items():
        moments = builder.build()
        refuse_unvisited(plan, moments.probes)
        moments.refuse_excluded()
        found[pair] = replace(moments, meta={**moments.meta, "batches": str(count)})
    return found


class _Each(Observers):
    """All models on one batch."""

    def __init__(self, plan: Plan, models: Sequence[nn.Module], inputs: Inputs, stride: int) -> None:
        super().__init__(plan, models[0], models[-1], inputs, stride)
        self.models = tuple(models)
        self._alike = all(alike(models[0], model) for model in models[1:])
        self._prepared = tuple({} for _ in models)

    def of_pairs(self, batch: Any, pairs: Collection[Pair]) -> Iterator[tuple[Pair, str, Tensor, Tensor]]:
        """(pair, key, activations of the one, of the other), row by row the same sample."""
        one, other = sides(batch, self.inputs)
        if one is not other:
            raise MatchError(
                "a batch is a Pair, with inputs of two models, and there are more: calibrate every pair by itself."
            )
        yield from self._of_pairs([self._call(i, one) for i in range(len(self.models))], pairs)

    def _of_pairs(
        self, calls: Sequence[Call], pairs: Collection[Pair]
    ) -> Iterator[tuple[Pair, str, Tensor, Tensor]]:
        prepared = [self._prepare(side, call) for side, call in enumerate(calls)]
        if any(one is None for one in prepared):
            for clips in zip(*map(clips_of, calls), strict=True):
                yield from self._of_pairs(clips, pairs)
            return
        found = [results_of(one, call) for one, call in zip(prepared, calls, strict=True) if one]
        for key in self.wanted:
            each = [results.pop(key) for results in found]
            for i, j in pairs:
                for _, a, b in self.paired(key, each[i], each[j]):
                    yield (i, j), key, a, b
