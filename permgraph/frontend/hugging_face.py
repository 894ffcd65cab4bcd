"""Hugging Face configurations as data: which classes, which example input. Runs nothing from the folder."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, TraceError, nearest
from permgraph.ir.files import read_bounded, strict_json

if TYPE_CHECKING:
    import torch
    from torch import nn

FRAMES = 13  # of the example input: short, and unlike the number of heads or layers of common models

# Fields that say where code or weights come from, not what the network is. `attn_implementation` may name a
# kernel on the hub, which transformers would fetch and run.
_NOT_ARCHITECTURE = {
    "auto_map",
    "attn_implementation",
    "experts_implementation",
    "custom_pipelines",
    "quantization_config",
    "use_pretrained_backbone",
}
_MERT_DIFFERENCES = {
    "feature_extractor_cqt": "it reads constant-Q features beside the waveform, which HuBERT does not",
    "deepnorm": "it scales its residual branches, which HuBERT does not",
}


def read_config(file: Path) -> tuple[Any, type[nn.Module]]:
    """(transformers config, model class) for a config.json.

    MERT is read as the HuBERT it is. Raises TraceError when the file is damaged or names an architecture that
    transformers itself does not have.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    data = _read(file)
    if _is_mert(data):
        _refuse_other_mert(data, file)
        data["model_type"] = "hubert"
    kind = data.pop("model_type", None)
    if kind not in CONFIG_MAPPING_NAMES:
        raise TraceError(f"{file}: {_unknown(kind, data, CONFIG_MAPPING_NAMES)}")
    try:
        config = CONFIG_MAPPING[kind].from_dict(_architecture_fields(data))
        model_class = MODEL_MAPPING[type(config)]
    except KeyError as error:
        raise TraceError(f"{file}: transformers has no base model for model_type {kind!r}.") from error
    except Exception as error:  # strict dataclasses of transformers raise their own classes
        raise TraceError(f"{file}: not a valid {kind} configuration: {_last_line(error)}") from error
    return config, model_class[0] if isinstance(model_class, (tuple, list)) else model_class


def saved_model(file: Path) -> Any:
    """The model that a folder's weights were saved from, on the meta device: the class that its config.json names when
    transformers has it, else the base model. Raises TraceError like `read_config`, or when it cannot be built."""
    import torch

    config, base = read_config(file)
    kind = declared_class(file, config) or base
    try:
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # whatever a wrong configuration does inside transformers
        raise TraceError(f"{file}: {kind.__name__} cannot be built from it: {_last_line(error)}") from error


def base_model(file: Path, config: Any, base: type[nn.Module]) -> nn.Module:
    """The base model as it is inside the class that config.json names, which may leave a pooler out; else a `base` alone."""
    declared = declared_class(file, config)
    if declared is not None and not issubclass(declared, base):
        inner = declared(config).base_model
        if isinstance(inner, base):
            return inner
    return base(config)


def declared_class(file: Path, config: Any) -> Any:
    """The first of the `architectures` in config.json that transformers itself has, for this configuration; else None."""
    import transformers

    names = _read(file).get("architectures")
    for name in names if isinstance(names, list) else ():
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            wanted = getattr(kind, "config_class", None)
            if isinstance(wanted, type) and isinstance(config, wanted):
                return kind
    return None


def example_shape(module: nn.Module, config: Any, name: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of a short input, batch 1, for the first argument of the module's forward.

    Waveforms in samples, log-mel features in (frames, bins) or (bins, frames), token ids, or pixels.
    """
    import torch

    argument = next(iter(inspect.signature(module.forward).parameters))
    if argument == "input_ids":
        return (1, FRAMES), torch.int64
    shape: tuple[int, ...] | None = None
    if argument == "pixel_values":
        shape = (1, getattr(config, "num_channels", 3), *_pair(getattr(config, "image_size", 224)))
    elif argument == "input_values":
        shape = _waveform(config) or _spectrogram(config)
    elif argument == "input_features":
        shape = _features(config)
    if shape is None:
        raise TraceError(
            f"{name}: no example input is known for {type(module).__name__}({argument}, …)."
            " Write a function that returns (module, example_inputs) and give it as file.py:factory."
        )
    return shape, torch.float32


def decoder_shape(module: nn.Module, config: Any) -> tuple[int, ...]:
    """Shape of the token ids that the decoder of a whole encoder-decoder takes; () when it has none."""
    takes = "decoder_input_ids" in inspect.signature(module.forward).parameters
    return (1, FRAMES - 2) if takes and getattr(config, "is_encoder_decoder", False) else ()


def plain_config(data: dict[str, Any]) -> bytes:
    """The config.json of a result without remote code: MERT's as that of the HuBERT it is; empty when it needs no change."""
    if not _is_mert(data) or any(data.get(key) for key in _MERT_DIFFERENCES):
        return b""
    plain = {k: v for k, v in data.items() if k != "auto_map"}
    return json.dumps({**plain, "model_type": "hubert", "architectures": ["HubertModel"]}, indent=2).encode()


def _read(file: Path) -> dict[str, Any]:
    try:
        data = strict_json(read_bounded(file))
    except FileError as error:
        raise TraceError(str(error)) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TraceError(f"{file}: cannot read this configuration: {reason}.") from error
    if not isinstance(data, dict):
        raise TraceError(f"{file}: expected a JSON object, found a {type(data).__name__}.")
    return {key: _numbers(value) for key, value in data.items()}


def _numbers(value: Any) -> Any:
    """Infinity and NaN as numbers: transformers writes `{"__float__": "Infinity"}`."""
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    if not isinstance(value, dict):
        return value
    special = value.get("__float__") if len(value) == 1 else None
    if special in ("Infinity", "-Infinity", "NaN"):
        return float(special)
    return {key: _numbers(part) for key, part in value.items()}


def _is_mert(data: dict[str, Any]) -> bool:
    return data.get("model_type") == "mert_model" or "MERT" in json.dumps(data.get("auto_map", ""))


def _refuse_other_mert(data: dict[str, Any], file: Path) -> None:
    for key, reason in _MERT_DIFFERENCES.items():
        if data.get(key):
            raise TraceError(
                f"{file}: this MERT has {key} = true: {reason}."
                " MERT is read as HuBERT, without running its code, so this variant cannot be."
            )


def _unknown(kind: Any, data: dict[str, Any], known: Any) -> str:
    if "auto_map" in data:
        return (
            f"model_type {kind!r} needs Python code from its folder (auto_map), which permgraph never runs."
            " If you trust it, build it yourself and give it as file.py:factory."
        )
    if kind is None:
        return "no model_type in this configuration, so the architecture is unknown."
    return f"model_type {kind!r} is not one that transformers has.{nearest(str(kind), known)}"


def _architecture_fields(data: dict[str, Any]) -> dict[str, Any]:
    """`data` without private fields and without `_NOT_ARCHITECTURE`, at every level."""
    return {
        key: _architecture_fields(value) if isinstance(value, dict) else value
        for key, value in data.items()
        if key not in _NOT_ARCHITECTURE and not str(key).startswith("_")
    }


def _waveform(config: Any) -> tuple[int, ...] | None:
    """Samples that a stack of unpadded convolutions turns into FRAMES frames."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not isinstance(kernels, (list, tuple)) or not isinstance(strides, (list, tuple)):
        return None
    samples = FRAMES
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return (1, samples)


def _spectrogram(config: Any) -> tuple[int, ...] | None:
    """(1, frames, bins) of the Audio Spectrogram Transformer, whose length is fixed."""
    if hasattr(config, "max_length") and hasattr(config, "num_mel_bins"):
        return (1, config.max_length, config.num_mel_bins)
    return None


def _features(config: Any) -> tuple[int, ...] | None:
    """(1, bins, frames) of Whisper, whose length is fixed; (1, frames, bins) of w2v-BERT."""
    if hasattr(config, "feature_projection_input_dim"):
        return (1, FRAMES, config.feature_projection_input_dim)
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        return (1, config.num_mel_bins, 2 * config.max_source_positions)
    return None


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
