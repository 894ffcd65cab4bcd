"""Outputs: what a network returns, as tensors. Caches for the next call are left out; other classes are opened.

A cache of keys and values is state that the same network reads again, not a result: as an output it would hold the
order of its heads. One that is a plain tuple of tensors cannot be told from results, and is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from permgraph.frontend.arguments import tensors_in


@contextmanager
def plain_outputs(module: nn.Module) -> Iterator[list[str]]:
    """While it is open the module returns only what torch.export takes; yields the classes of caches left out."""
    caches: list[str] = []

    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        if _is_plain(output):
            return output
        caches.extend(type(leaf).__name__ for leaf in tree_leaves(output) if is_cache(leaf))
        return tuple(result_tensors(output))

    handle = module.register_forward_hook(hook)
    try:
        yield caches
    finally:
        handle.remove()


def result_tensors(output: Any) -> list[Tensor]:
    """The tensors that a network returned, numbered as the outputs of its trace are."""
    if _is_plain(output):
        return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return [t for leaf in tree_leaves(output) if not is_cache(leaf) for t in tensors_in(leaf)]


def _is_plain(output: Any) -> bool:
    """Whether torch.export knows all that is in it."""
    return all(isinstance(leaf, (Tensor, int, float, bool, str, type(None))) for leaf in tree_leaves(output))


def is_cache(value: Any) -> bool:
    """Whether a value is a cache for the next call, by the name of its class or of one it extends."""
    return any(kind.__name__.endswith("Cache") for kind in type(value).__mro__)
