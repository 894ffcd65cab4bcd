"""How alike two networks are, whatever the order of their units: the cosine of their weights, in place and matched.

Two shares of chance go with it. In place: how often B under a random element of the group is as much like A as B is. The
order in which training puts units is random, so this is an exact test of whether B's units are in A's order, as those of a
copy or of a fine-tuned model are. Matched: how often B with the numbers of each tensor shuffled is matched as well.
Networks that were trained separately on like data pass that too: a copy is told from them by its cosine, near 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from permgraph.errors import PlanError
from permgraph.ir.permutations import random_permutations
from permgraph.ir.plan import Plan
from permgraph.matching.weights import Problem, Weights, match_weights

ELEMENTS = 99  # random elements of the group
SHUFFLES = 19  # of B's numbers


@dataclass(frozen=True)
class Similarity:
    """in_place, matched   cosine of A's weights and B's, as they are and as they are matched best; of tensors that the plan moves
    p_in_place          share of random orders in which B is as much like A as in its own
    shuffled            cosine that matching reaches where the numbers of each tensor of B are shuffled, the mean
    p_matched           share of shuffled B that are matched as well as B
    elements, shuffles  how many of each were drawn; the least share there can be is 1 / (1 + that)
    """

    in_place: float
    matched: float
    p_in_place: float
    shuffled: float
    p_matched: float
    elements: int
    shuffles: int

    def text(self) -> str:
        return (
            f"In place: cosine {self.in_place:.4f}; p {self.p_in_place:.3f} that B in a random order is as much like A.\n"
            f"Matched:  cosine {self.matched:.4f}; {self.shuffled:.4f} where B's numbers are shuffled, p {self.p_matched:.3f}."
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    plan: Plan, weights: Weights, seed: int = 0, shuffles: int = SHUFFLES, elements: int = ELEMENTS
) -> Similarity:
    """Of A and B by the groups of a plan. Raises PlanError where it moves nothing, MatchError as matching does."""
    if not plan.groups:
        raise PlanError(
            "compare: the plan selects no group, so there is nothing to match. Plan with --groups all."
        )
    rng = np.random.default_rng(seed)
    found = match_weights(plan, weights, seed, 0)[1]
    problem = Problem.of(plan, weights)
    orders = [problem.start(random_permutations(plan, _seed(rng))).objective for _ in range(elements)]
    chance = []
    for _ in range(shuffles):
        other = {
            name: rng.permuted(tensor.ravel()).reshape(tensor.shape) for name, tensor in weights.b.items()
        }
        chance.append(match_weights(plan, replace(weights, b=other), seed, 0)[1]["objective"])
    most = found["most"] or 1.0
    return Similarity(
        found["in_place"] / most,
        found["objective"] / most,
        _share(orders, found["in_place"]),
        float(np.mean(chance)) / most if chance else 0.0,
        _share(chance, found["objective"]),
        elements,
        shuffles,
    )


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


def _share(drawn: list[float], value: float) -> float:
    """Of what was drawn and the value itself, how many are as large."""
    return (1 + sum(one >= value for one in drawn)) / (1 + len(drawn))
