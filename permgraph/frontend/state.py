"""State: the parameters and persistent buffers of a module, each tensor under its first name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from permgraph.frontend.flatten import dtype_of
from permgraph.ir.trace import StateTensor


def state_names(module: nn.Module) -> dict[str, str]:
    """Every name of every parameter and persistent buffer → the first name of that tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in _named(module)}


def state_of(module: nn.Module, names: dict[str, str]) -> dict[str, StateTensor]:
    """First name → tensor."""
    state: dict[str, StateTensor] = {}
    for name, tensor in _named(module):
        first = names[name]
        if first in state:
            state[first] = replace(state[first], aliases=(*state[first].aliases, name))
            continue
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        # what is sparse has no axes to permute: by its type it is a table, in order as one of integers
        dtype = dtype_of(tensor.dtype) if tensor.layout == torch.strided else "sparse"
        state[name] = StateTensor(name, tuple(tensor.shape), dtype, kind)
    return state


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    persistent = set(module.state_dict(keep_vars=True))
    for name, tensor in named_tensors(module):
        if name in persistent:
            yield name, tensor


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, then buffers, under every name that they have."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
