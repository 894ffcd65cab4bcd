"""Rescaling: the outputs of a layer times a factor, plus an offset, channel by channel, by its own weight and bias alone.

Exact for linear layers, convolutions (transposed ones too) and norms with a scale. A weight that is computed from parts is
rescaled where the parts can compute the new one: weight norm can (a norm and a direction say any matrix), spectral norm
and orthogonal parametrizations cannot.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

NORMS = (nn.LayerNorm, nn.GroupNorm)


def why_not(layer: nn.Module, shared: set[int]) -> str:
    """Why the outputs of this layer, one that has an output axis, cannot be rescaled; "" when they can.

    shared  ids of the parameters that several layers have
    """
    if any(id(p) in shared for p in layer.parameters()):
        return "its weight or bias is shared with another layer"
    if is_parametrized(layer, "bias"):
        return "its bias is computed"
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        return "it normalises over several axes"
    if isinstance(layer, NORMS) and (layer.weight is None or layer.bias is None):
        return "a norm without scale or bias"
    if is_parametrized(layer, "weight"):
        return _computed(layer)
    if not isinstance(layer._parameters.get("weight"), nn.Parameter) and _old_weight_norm(layer) is None:
        return "its weight is computed"
    return ""


def output_axis(layer: nn.Module) -> int | None:
    """Which axis of its weight holds the output channels; None for other kinds of layer."""
    if isinstance(layer, _ConvTransposeNd) or _is_gpt2_linear(layer):
        return 1
    return 0 if isinstance(layer, (nn.Linear, _ConvNd, _BatchNorm, *NORMS)) else None


def channel_axis(layer: nn.Module) -> int:
    """Which axis of its output holds the channels, batched or not."""
    if isinstance(layer, _ConvNd):
        return -1 - len(layer.kernel_size)
    return 1 if isinstance(layer, nn.GroupNorm) else -1


def rescale(layer: nn.Module, factor: Tensor, offset: Tensor) -> None:
    """Outputs times `factor` plus `offset`, (channels,) float64 each; without a bias the offset is left out."""
    with torch.no_grad():
        weight = _weight(layer)
        _set_weight(layer, (weight.double() * _broadcast(layer, factor, weight)).to(weight.dtype))
        bias = layer.bias
        if isinstance(bias, Tensor):
            bias.copy_(bias.double() * factor + offset)


def _is_gpt2_linear(layer: nn.Module) -> bool:
    """transformers' Conv1D: a linear layer whose weight is (in, out)."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils"


def _weight(layer: nn.Module) -> Tensor:
    """The weight that the layer uses."""
    hook = _old_weight_norm(layer)
    weight: Any = layer.weight if hook is None else hook.compute_weight(layer)
    assert isinstance(weight, Tensor)
    return weight.detach()


def _broadcast(layer: nn.Module, factor: Tensor, weight: Tensor) -> Tensor:
    """The factors, along the axis of the weight that holds the output channels."""
    if _is_gpt2_linear(layer):
        return factor[None, :]
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, …), the inputs of each group side by side
        inputs, outputs = weight.shape[:2]
        rows = factor.reshape(layer.groups, 1, outputs).expand(-1, inputs // layer.groups, -1)
        return rows.reshape(inputs, outputs, *[1] * (weight.dim() - 2))
    return factor.reshape(-1, *[1] * (weight.dim() - 1))


def _set_weight(layer: nn.Module, new: Tensor) -> None:
    """Make the layer use this weight."""
    hook = _old_weight_norm(layer)
    if hook is not None:
        getattr(layer, f"{hook.name}_v").copy_(new)
        getattr(layer, f"{hook.name}_g").copy_(torch.norm_except_dim(new, 2, hook.dim))
    elif is_parametrized(layer, "weight"):
        layer.weight = new  # torch finds the parts
    else:
        weight: Any = layer.weight
        weight.copy_(new)


def _old_weight_norm(layer: nn.Module) -> WeightNorm | None:
    """`torch.nn.utils.weight_norm` of the weight, which works by a hook."""
    hooks = (h for h in layer._forward_pre_hooks.values() if isinstance(h, WeightNorm) and h.name == "weight")
    return next(hooks, None)


def _computed(layer: nn.Module) -> str:
    """Why the parts of a parametrized weight cannot compute another one; "" when they can. Tried on a copy."""
    twin: Any = copy.deepcopy(layer).eval()
    parts = ", ".join(type(p).__name__.lstrip("_") for p in twin.parametrizations.weight)
    try:
        with torch.no_grad():
            before = twin.weight.clone()
            channels = int(getattr(twin, "out_channels", 0) or before.shape[0])
            factor = torch.linspace(0.5, 2.0, channels, dtype=torch.float64, device=before.device)
            wanted = (before.double() * _broadcast(twin, factor, before)).to(before.dtype)
            _set_weight(twin, wanted)
            if torch.allclose(twin.weight, wanted, rtol=1e-3, atol=1e-6 * float(wanted.abs().max())):
                return ""
    except Exception as error:  # a parametrization of the user's own may do anything
        return f"its weight is computed ({parts}) and cannot be set: {type(error).__name__}"
    return f"its weight is computed ({parts}), which cannot give a rescaled one"
