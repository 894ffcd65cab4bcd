"""Torch-Pruning's groups of channels, read as permutations: every group of n channels is taken for S_n.

A pruning group lists layers with the channel indices that are removed together. Re-ordering the channels instead, each
index by its root channel, has to keep the function where the group is a symmetry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Move:
    """Indices of one axis of one tensor, with the root channel that each belongs to."""

    tensor: str
    axis: int
    indices: np.ndarray[Any, np.dtype[np.int64]]
    roots: np.ndarray[Any, np.dtype[np.int64]]


class NotPermutable(ValueError):
    """What is pruned together has no reading as a permutation."""


def pruning_groups(
    module: nn.Module, image: Tensor, ignored: list[nn.Module]
) -> Iterator[tuple[int, tuple[Move, ...]]]:
    """(channels, what moves with them) of every group that Torch-Pruning finds; nothing, where it cannot be read.

    Raises what Torch-Pruning raises.
    """
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=image)
    names = {id(m): name for name, m in module.named_modules()}
    tensors = {id(p): name for name, p in module.named_parameters()}
    kinds = [nn.modules.conv._ConvNd, nn.Linear]
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=kinds):
        size = 1 + max(max(item.root_idxs) for item in group if item.root_idxs)
        try:
            yield size, tuple(_moves(group, names, tensors))
        except NotPermutable:
            yield size, ()


def _moves(group: Any, names: dict[int, str], tensors: dict[int, str]) -> Iterator[Move]:
    for item in group:
        layer, handler = item.dep.target.module, item.dep.handler.__name__
        if id(layer) in names or id(layer) in tensors:  # others are ops without weights
            for tensor, axis in _axes(layer, handler, names, tensors):
                yield Move(tensor, axis, np.asarray(item.idxs), np.asarray(item.root_idxs))


def _axes(
    layer: Any, handler: str, names: dict[int, str], tensors: dict[int, str]
) -> Iterator[tuple[str, int]]:
    if isinstance(layer, nn.Parameter):
        sizes = [i for i, n in enumerate(layer.shape) if n > 1]
        yield tensors[id(layer)], sizes[0] if sizes else 0
        return
    name = names[id(layer)]
    if isinstance(layer, nn.MultiheadAttention):
        raise NotPermutable(f"{name}: a pruner's way to narrow attention says nothing of the order inside it")
    if "in_channels" in handler and isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
        alone = getattr(layer, "groups", 1) == 1
        yield f"{name}.weight", 1 if alone and not getattr(layer, "transposed", False) else 0
        return
    for own, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
        if tensor.dim():
            yield f"{name}.{own}", 1 if own == "weight" and getattr(layer, "transposed", False) else 0


def permuted(
    state: dict[str, Tensor], moves: tuple[Move, ...], order: np.ndarray[Any, Any]
) -> dict[str, Tensor]:
    """The state with root channel r taken from root channel order[r]; each axis of a tensor once."""
    state = dict(state)
    gathers: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    for move in moves:
        key = (move.tensor, move.axis)
        gather = gathers.setdefault(key, np.arange(state[move.tensor].shape[move.axis]))
        at = defaultdict(list)
        for index, root in zip(move.indices.tolist(), move.roots.tolist(), strict=True):
            at[root].append(index)
        for root, indices in at.items():
            gather[indices] = at[int(order[root])]
    for (tensor, axis), gather in gathers.items():
        state[tensor] = state[tensor].index_select(axis, torch.from_numpy(gather))
    return state


def changes(
    groups: list[tuple[int, tuple[Move, ...]]],
    state: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], float],
    seed: int = 0,
) -> list[float]:
    """Relative change of the function under a random order of each group by itself.

    inf where it cannot be applied or has no reading as a permutation.
    """
    rng = np.random.default_rng(seed)
    found = []
    for size, moves in groups:
        if not moves:
            found.append(float("inf"))
            continue
        try:
            found.append(change(permuted(state, moves, rng.permutation(size))))
        except (IndexError, ValueError, KeyError, RuntimeError):
            found.append(float("inf"))
    return found
