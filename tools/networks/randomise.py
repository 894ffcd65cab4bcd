"""Random weights under which a wrong permutation cannot hide."""

from __future__ import annotations

import torch
from torch import nn


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a distinct random value; return the module in eval mode.

    Fresh models have norm scales of 1, biases of 0 and running variances of 1: permuting those changes
    nothing, so a spec that forgets them would pass. Weights keep the scale of their fan-in.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("weight_g", "original0")):  # the norms of weight_norm: positive
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            elif parameter.dim() >= 2:
                normal(parameter, 0.0, max(parameter[0].numel(), 1) ** -0.5)
            else:  # scales near 1, biases near 0, far enough from either to tell units apart
                normal(parameter, 1.0 if name.endswith("weight") else 0.0, 0.3)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                normal(buffer, 0.0, 0.3)
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    """Standard normal float32 of `shape`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, vocabulary: int, seed: int = 1) -> torch.Tensor:
    """Random token ids of `shape`, from 2 up (0 and 1 are often special)."""
    return torch.randint(2, vocabulary, shape, generator=torch.Generator().manual_seed(seed))
