"""Fitting: a narrower or shallower network of A's family as a network of A's shapes, and the check that it still is itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from permgraph.errors import VerificationError
from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from torch import nn

    from permgraph.matching.weights import Weights
    from permgraph.weights.fitted import Fitted

LIMIT = 1e-5  # relative change of an output, in float64; some norms compute in float32


def fit(
    plan: Plan,
    model_a: nn.Module,
    model_b: nn.Module,
    example_inputs: Any,
    layers: Mapping[str, Sequence[int]] | None = None,
) -> Fitted:
    """B laid out in A's shapes. See `permgraph.fit`."""
    from permgraph.frontend.capture import capture
    from permgraph.symmetry.infer import infer
    from permgraph.weights.fitted import fitted
    from permgraph.weights.layers import layers_of

    spec_b = infer(capture(model_b, example_inputs), plan.spec.free_output)
    pairing = layers_of(plan.spec.tensors, spec_b.tensors, layers)
    found = fitted(plan.spec, model_a.state_dict(), spec_b, model_b.state_dict(), pairing)
    if not any(len(numbers) < pairing.counts[path] for path, numbers in pairing.paired.items()):
        _refuse_other_function(model_a, model_b, found, example_inputs)
    return found


def weights_of(plan: Plan, state_a: Mapping[str, Any], found: Fitted) -> Weights:
    """A and B for weight matching, by the distance of what B has.

    Among as many units, the nearest are those of the largest inner product. Where slots stay empty they are not: a large unit of A
    may be more alike than the right one by its size alone. The sum over B's numbers of ⟨a, b⟩ - a²/2 falls with the distance, and is
    an inner product as well: of (a, -a²/2) with (b, 1), or (0, 0) where B has none. So every tensor has one axis more.
    """
    import numpy as np

    from permgraph.matching.weights import Weights
    from permgraph.weights.planned import numbers_in

    a, weights_a = numbers_in(plan, state_a, "state dict of A")
    b, weights_b = numbers_in(plan, found.state, "B as it is fitted")
    held, _ = numbers_in(plan, found.held, "B as it is fitted")
    pairs_a = {name: np.stack([x, -np.square(x) / 2], -1) for name, x in a.items()}
    pairs_b = {name: np.stack([x, held[name].astype(x.dtype)], -1) for name, x in b.items()}
    return Weights.of(plan, (pairs_a, weights_a), (pairs_b, weights_b))


def _refuse_other_function(
    model_a: nn.Module, model_b: nn.Module, found: Fitted, example_inputs: Any
) -> None:
    """B in A's shapes has to compute what B computes: a norm over more units, say, does not. Raises VerificationError."""
    import torch
    from torch.utils._pytree import tree_leaves, tree_map_only

    from permgraph.frontend.arguments import call_of

    args, kwargs = tree_map_only(
        torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, call_of(example_inputs, None)
    )
    wide, narrow = (copy.deepcopy(model).double().eval() for model in (model_a, model_b))
    wide.load_state_dict(found.state)
    with torch.no_grad():
        said = [tree_leaves(model(*args, **kwargs)) for model in (narrow, wide)]
    for one, other in zip(*said, strict=True):
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            change = float("inf")
            if one.shape == other.shape:
                change = float((one - other).norm() / one.norm().clamp(min=1e-30))
            if not change <= LIMIT:
                raise VerificationError(
                    f"B in A's widths no longer computes what B computes (relative change {change:.1e}): A has other operations than "
                    "B, or one that reads all units at once, as a norm over a narrower stream does. Only widths whose units "
                    "nothing mixes can differ."
                )
