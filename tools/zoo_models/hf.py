"""Every model type of transformers, made small by what its config's attributes are called.

No model is named here. When the network does not build or run with small values, less is changed. Inputs follow
the names in the signature of `forward`.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import nn

from zoo_models import Made
from zoo_models.hf_inputs import Inputs, inputs, with_tokens
from zoo_models.hf_shrink import configs
from zoo_models.vision import declare_operators

LARGEST = 150_000_000  # parameters
PATIENCE = 90  # seconds of trying


def model_types() -> list[str]:
    declare_operators()  # some models need torchvision
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def build(name: str) -> Made:
    """The first configuration that builds with few enough parameters and for which some inputs run.

    Raises RuntimeError with the reasons otherwise.
    """
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    listed = MODEL_MAPPING[CONFIG_MAPPING[name]]
    kind = listed[0] if isinstance(listed, (tuple, list)) else listed
    if kind.forward is nn.Module.forward:
        raise TypeError(f"{kind.__name__} has no forward")
    reasons: dict[str, None] = {}
    end = time.monotonic() + PATIENCE
    for config in configs(_config_of(kind, CONFIG_MAPPING[name])):
        try:
            net = _small_enough(kind, config)
        except Exception as error:
            reasons[_short(error)] = None
            continue
        tried = list(inputs(net))
        if not tried:
            reasons["no inputs are known"] = None
        for found in tried:
            if time.monotonic() > end:
                raise RuntimeError("; ".join([*reasons, "no more patience"]))
            try:
                return net, (), _running(net, found)
            except Exception as error:
                reasons[f"{_short(error)} for {sorted(found)}"] = None
    raise RuntimeError("; ".join(reasons))


def _config_of(kind: Any, otherwise: Any) -> Any:
    """The class of config a network's own class names, which may be that of a part of the model type's."""
    from transformers import PretrainedConfig

    own = getattr(kind, "config_class", None)
    return own if isinstance(own, type) and own is not PretrainedConfig else otherwise


def _small_enough(kind: Any, config: Any) -> nn.Module:
    """The network of a config; raises what stands in its way."""
    if isinstance(config, Exception):
        raise config
    with torch.device("meta"):
        size = sum(p.numel() for p in kind(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(0)
    net: nn.Module = kind(config).eval()
    return net


def _running(net: nn.Module, found: Inputs) -> Inputs:
    """The inputs, perhaps completed, when two forwards agree; raises otherwise."""
    try:
        one = _tensors(net, found)
    except Exception as error:
        more = with_tokens(found, net.config, str(error))
        if more is None:
            raise
        found, one = more, _tensors(net, more)
    if not one:
        raise ValueError("no tensor among the outputs")
    if any(torch.isnan(x).any() for x in one if x.is_floating_point()):
        raise ValueError("an output is NaN with random weights")
    two = _tensors(net, found)
    if len(one) != len(two) or not all(torch.equal(a, b) for a, b in zip(one, two, strict=True)):
        raise ValueError("two identical forwards differ")
    return found


def _tensors(net: nn.Module, found: Inputs) -> list[torch.Tensor]:
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        return [x for x in tree_leaves(net(**found)) if isinstance(x, torch.Tensor)]


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else next(iter(lines), "")
    return f"{type(error).__name__}: {told[:140]}"
