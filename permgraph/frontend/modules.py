"""Modules: what a user hands in as a network becomes the module to capture, or a sentence that says what to give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from permgraph.errors import TraceError

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def network_of(model: Any) -> nn.Module:
    """The module. Raises TraceError when it is none that can be captured."""
    if isinstance(model, ExportedProgram):
        return model.module()
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise TraceError(f"{model.__name__} is a class: give an instance of it, {model.__name__}(...).")
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"a {type(model).__name__} is no torch.nn.Module. Give the module, or one whose forward calls it."
        )
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            f"{name}: this is TorchScript (torch.jit.script or torch.jit.trace), which torch.export does not read."
            " Give the Python module that it was made from."
        )
    lazy = [n for n, t in _state(model) if isinstance(t, (UninitializedParameter, UninitializedBuffer))]
    if lazy:
        raise TraceError(
            f"{name}: {lazy[0]} has no shape yet, since its module is lazy. Run the network once on the example inputs,"
            " then trace it."
        )
    return model


def unwrapped(module: nn.Module) -> tuple[nn.Module, str]:
    """The module inside torch.compile's and the data-parallel wrappers, and what they put before its names."""
    prefix = ""
    while (attribute := _WRAPPERS.get(type(module).__name__)) and hasattr(module, attribute):
        module, prefix = getattr(module, attribute), f"{prefix}{attribute}."
    return module, prefix


@contextmanager
def for_capture(module: nn.Module) -> Iterator[None]:
    """In eval mode, as if it were trainable, without fused kernels of inference; all of it is put back.

    torch picks other ops for frozen weights and for attention in inference. What is captured must not depend on that.
    """
    flags = [(m, m.training) for m in module.modules()]
    frozen = [p for p in module.parameters() if not p.requires_grad and p.is_floating_point() and p.is_leaf]
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for parameter in frozen:
            stack.callback(parameter.requires_grad_, False)
            parameter.requires_grad_(True)
        for child, training in flags:
            stack.callback(setattr, child, "training", training)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        with suppress(NotImplementedError):  # an exported program has the mode that it was exported in
            module.eval()
        yield


def _state(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
