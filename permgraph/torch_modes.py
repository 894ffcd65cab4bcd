"""Settings of torch for the length of a block: eval mode, and the seed of random numbers."""

from __future__ import annotations

import random
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
def flex_attention_uncompiled() -> Iterator[None]:
    """flex_attention runs as plain ops inside: by itself it is compiled, which is not done under a dispatch mode."""
    from torch.nn.attention import flex_attention

    name = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    before = getattr(flex_attention, name, None)  # torch's own switch, not in every version
    if before is not None:
        setattr(flex_attention, name, True)
    try:
        yield
    finally:
        if before is not None:
            setattr(flex_attention, name, before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch (CPU), numpy and Python start at this seed inside, and go on as before after."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
