"""Fused experts of transformers: while they are traced, the weights of a token's experts are picked by index.

The implementation that is run sorts tokens by expert, and what is sorted by data has no axis that could be followed.
The two compute the same; which one runs is no part of the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_FIELD, _BY_INDEX = "_experts_implementation_internal", "batched_mm"


@contextmanager
def experts_by_index(module: nn.Module) -> Iterator[None]:
    """For as long as this lasts, fused experts anywhere in `module` pick weights by index."""
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    before = {key: vars(c)[_FIELD] for key, c in configs.items() if _FIELD in getattr(c, "__dict__", {})}
    try:
        for key in before:
            vars(configs[key])[_FIELD] = _BY_INDEX
        yield
    finally:
        for key, value in before.items():
            vars(configs[key])[_FIELD] = value
