"""Settings of torch for the length of a block: eval mode, and the seed of random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Dropout, SpecAugment and layerdrop off; the flag of every module is put back."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch from this seed; the generators of CPU and GPU are put back."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
