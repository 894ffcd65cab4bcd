"""Which layer of a shallower network is most like which of a deeper one: linear CKA, layers in order.

Centred kernel alignment (Kornblith et al., https://arxiv.org/abs/1905.00414) does not see the order of units, nor how many there are.
Its unbiased estimate is averaged over batches (Nguyen et al., https://arxiv.org/abs/2010.15327, eq. 3 and 4): the samples of a batch are
its clips, images or lines. The pairing is the one of rising layers with the largest sum, by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from permgraph.errors import MatchError, UsageError, nearest
from permgraph.frontend.batches import Inputs, call_for, sides
from permgraph.ir.moments import FloatArray
from permgraph.torch_modes import eval_mode

LEAST = 4  # samples of a batch, below which there is no unbiased estimate


def pair_layers(
    model_a: nn.Module, model_b: nn.Module, path: str, batches: Iterable[Any], inputs: Inputs = None
) -> tuple[tuple[int, ...], FloatArray]:
    """For each layer of B the layer of A that it is paired with, rising; and their likeness, (layers of A, layers of B).

    path   of the list of layers in both, "encoder.layers"

    Raises UsageError where there is no such list, or B's is the longer one, MatchError for batches that are too small.
    """
    layers = [_layers(model, path, whose) for model, whose in ((model_a, "A"), (model_b, "B"))]
    if len(layers[0]) < len(layers[1]):
        raise UsageError(
            f"{path}: B has {len(layers[1])} layers and A {len(layers[0])}. Name the deeper model as A."
        )
    sums = [np.zeros((len(x), len(y))) for x, y in ((layers[0], layers[1]), *((one, one) for one in layers))]
    count = 0
    with torch.no_grad(), eval_mode(model_a, model_b):
        for batch in batches:
            seen = []
            for model, own, value in zip((model_a, model_b), layers, sides(batch, inputs), strict=True):
                seen.append([_gram(x) for x in _outputs(model, own, call_for(model, value))])
            for total, (one, other) in zip(sums, ((seen[0], seen[1]), *((s, s) for s in seen)), strict=True):
                total += [[_hsic(x, y) for y in other] for x in one]
            count += 1
    if not count:
        raise MatchError("no batch to compare layers on: the list of inputs is empty.")
    scale = np.sqrt(np.outer(*(np.maximum(np.diag(own), 1e-300) for own in sums[1:])))
    alike = np.asarray(sums[0] / scale)
    return rising(alike), alike


def rising(score: FloatArray) -> tuple[int, ...]:
    """For each column the row that it is paired with, rising, with the largest sum. There are as many rows as columns or more.

    >>> rising(np.array([[0.9, 0.8], [0.2, 0.7], [0.1, 0.9]]))
    (0, 2)
    """
    rows, columns = score.shape
    best = np.full((columns + 1, rows + 1), -np.inf)  # of the first columns, in the first rows
    best[0] = 0
    for c in range(1, columns + 1):
        for r in range(c, rows + 1):
            best[c, r] = max(best[c, r - 1], best[c - 1, r - 1] + score[r - 1, c - 1])
    found, r = [], rows
    for c in range(columns, 0, -1):
        while best[c, r] == best[c, r - 1]:
            r -= 1
        r -= 1
        found.append(r)
    return tuple(reversed(found))


def _layers(model: nn.Module, path: str, whose: str) -> Sequence[nn.Module]:
    modules = dict(model.named_modules())
    found = modules.get(path)
    if not isinstance(found, (nn.ModuleList, nn.Sequential)) or not len(found):
        lists = [
            name for name, m in modules.items() if isinstance(m, (nn.ModuleList, nn.Sequential)) and name
        ]
        raise UsageError(
            f"{path}: {whose} has no such list of layers.{nearest(path, lists)} There are: {', '.join(lists) or 'none'}."
        )
    return list(found)


def _outputs(model: nn.Module, layers: Sequence[nn.Module], call: Any) -> list[Tensor]:
    """What each layer returned last, its first tensor. Raises MatchError for one that did not run."""
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda module, args, out, number=number: seen.update({number: tree_leaves(out)[0].detach()})
        )
        for number, layer in enumerate(layers)
    ]
    try:
        model(*call[0], **call[1])
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < len(layers):
        raise MatchError(
            f"layer {min({*range(len(layers))} - seen.keys())} is not called by itself: give `layers` instead."
        )
    return [seen[number] for number in range(len(layers))]


def _gram(outputs: Tensor) -> FloatArray:
    """(samples, samples): inner products of what a layer says of each, without those with itself."""
    flat = outputs.double().flatten(1).cpu().numpy()
    if len(flat) < LEAST:
        raise MatchError(
            f"a batch of {len(flat)} samples: layers are compared on batches of {LEAST} or more."
        )
    flat = flat - flat.mean(0)  # so that nothing is lost to a large mean; the estimate is blind to it
    gram = flat @ flat.T
    np.fill_diagonal(gram, 0)
    return np.asarray(gram)


def _hsic(x: FloatArray, y: FloatArray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, of Gram matrices with zeros on the diagonal."""
    n = len(x)
    whole = (x * y).sum() + x.sum() * y.sum() / ((n - 1) * (n - 2)) - 2 * (x.sum(0) @ y.sum(0)) / (n - 2)
    return float(whole / (n * (n - 3)))
