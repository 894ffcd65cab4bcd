"""Every model type of transformers, made small by what its config's attributes are called.

No model is named here. When the network does not build or run with small values, less is changed. Inputs follow
the names in the signature of `forward`.
"""

from __future__ import annotations

import copy
import re
import time
from typing import Any

import torch
from torch import nn

from zoo_models import Made
from zoo_models.hf_inputs import Inputs, inputs, with_tokens
from zoo_models.hf_shrink import configs, nested
from zoo_models.hf_sizes import DEPTH, filled, integer
from zoo_models.vision import declare_operators

LARGEST = 150_000_000  # parameters
HEADS = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "ctc": "MODEL_FOR_CTC_MAPPING",
    "audio-classification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
}
PATIENCE = 90  # seconds of trying


def model_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def headed() -> list[str]:
    """Networks with a head: what the head is for, and the model type."""
    from transformers.models.auto import modeling_auto

    return [
        f"{head}/{model_type}"
        for head, mapping in HEADS.items()
        for model_type, kind in getattr(modeling_auto, f"{mapping}_NAMES").items()
        if kind != modeling_auto.MODEL_MAPPING_NAMES.get(model_type)  # listed without one
    ]


def build(name: str) -> Made:
    """The first configuration that builds with few enough parameters and for which some inputs run.

    Raises RuntimeError with the reasons otherwise.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    declare_operators()  # some models need torchvision
    head, _, model_type = name.rpartition("/")
    mapping = getattr(modeling_auto, HEADS[head] if head else "MODEL_MAPPING")
    listed = mapping[CONFIG_MAPPING[model_type]]
    kind = listed[0] if isinstance(listed, (tuple, list)) else listed
    if kind.forward is nn.Module.forward:
        raise TypeError(f"{kind.__name__} has no forward")
    reasons: dict[str, None] = {}
    end = time.monotonic() + PATIENCE
    for config in configs(_config_of(kind, CONFIG_MAPPING[model_type])):
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
    size = _size(kind, config)
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(0)
    net: nn.Module = kind(config).eval()
    if any(_uneven(module) for module in net.modules()):
        raise ValueError("fewer heads for keys than for values")
    return net


def _uneven(module: nn.Module) -> bool:
    """Whether only values have as many heads as queries: such attention runs, to no meaning, and is not captured."""
    parts = [getattr(module, f"{x}_proj", None) for x in "qkv"]
    q, k, v = (p.out_features if isinstance(p, nn.Linear) else 0 for p in parts)
    return 0 < k < q == v


def _size(kind: Any, config: Any, tries: int = 4) -> int:
    """The number of parameters; what a part of the config lacks altogether is added to it."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in kind(copy.deepcopy(config)).parameters())
    except AttributeError as error:
        told = re.search(r"'(\w+)' object has no attribute '(\w+)'", str(error))
        owner, lacks = told.groups() if told else ("", "")
        parts = [c for c in nested(config) if type(c).__name__ == owner]
        lacks_too = lacks.replace("key_value_heads", "attention_heads")  # as many as there are queries
        value = integer(lacks_too, lacks_too, None, 4) or filled(lacks, DEPTH, [])
        if not parts or value is None or not tries:
            raise
        for part in parts:
            setattr(part, lacks, value)
        return _size(kind, config, tries - 1)


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
