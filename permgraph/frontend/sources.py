"""Sources: what a user typed as MODEL becomes a module and example inputs.

    hubert                      an alias: a published architecture, on the meta device, nothing downloaded
    path/to/folder              a Hugging Face folder; its config.json is enough, also on the meta device
    owner/name                  a Hugging Face hub id; only config.json is downloaded
    file.py:factory             the user's own function returning (nn.Module, example_inputs)
    package.module:factory      the same from an importable module

Code found in a model folder is never run: configurations are read as data and built with the classes that
transformers ships. A model folder wins over an alias of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import TraceError, UsageError, nearest
from permgraph.frontend.architectures import Architecture, aliases, is_alias
from permgraph.ir.trace import Trace

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Architecture", "Source", "aliases", "is_alias", "load_source"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FORMS = "MODEL is an alias, a Hugging Face folder, a hub id owner/name, or file.py:factory."


@dataclass(frozen=True)
class Source:
    """A network ready to be traced.

    name          as the user typed it (for a folder: its name)
    module        in eval mode; on the meta device unless a factory made it
    args, kwargs  example inputs, on the module's device
    prefix        what the checkpoint puts before the module's names, such as "encoder." when only the encoder
                  of a model is traced; "" for a whole model
    model_class   the class of transformers, where a head is part of it; "" for a base model and a factory's
    note          what of the model was traced, for its reader; "" when that is all there is
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    model_class: str = ""
    note: str = ""

    def trace(self, name: str | None = None) -> Trace:
        """Captured on its example inputs (seconds), under its own name or another one. Raises TraceError."""
        from permgraph.frontend.capture import capture

        found = capture(self.module, self.args, self.kwargs, name or self.name)
        return replace(found, notes=(self.note, *found.notes)) if self.note else found


def load_source(model: str, device: str = "meta", model_class: str = "") -> Source:
    """Resolve `model` (see the head of this file).

    `device` is where alias and folder models are built: "meta" needs no memory, "cpu" gives random weights.
    `model_class` is a class of transformers to build whole, or "config" for the one that config.json names; without it
    the base model is built, of encoder-decoders the encoder.

    Raises:
        UsageError: it names nothing that exists.
        TraceError: it exists and cannot be built, or a factory failed.
    """
    path = Path(model).expanduser()
    if is_alias(model) and not (path / "config.json").is_file():
        return _from_alias(model, aliases()[model], device, model_class)
    if path.name == "config.json" and path.is_file():
        path = path.parent
    if path.is_dir():
        return _from_folder(path, device, model_class)
    if model_class and (":" in model or path.is_file()):
        raise UsageError(f"--class {model_class}: {model} is no model folder, hub id or alias.")
    if ":" in model:
        from permgraph.frontend.factory import call_factory

        return Source(model, *call_factory(model))
    if path.suffix == ".py":
        raise UsageError(f"{model}: name the function that builds the network: {model}:factory.")
    if path.is_file():
        raise UsageError(f"{model}: a file. Give the folder with its config.json. {_FORMS}")
    if _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _from_hub(model, device, model_class)
    raise UsageError(
        f"{model}: no such model.{nearest(model, aliases())} {_FORMS} Aliases: {', '.join(aliases())}."
    )


def _from_alias(name: str, architecture: Architecture, device: str, model_class: str) -> Source:
    import torch
    import transformers

    from permgraph.frontend.model_classes import described, head_class

    config = getattr(transformers, architecture.config)(**architecture.overrides)
    base = getattr(transformers, architecture.model)
    kind = head_class(model_class, config, base, None)
    if kind is not None:
        return _whole(name, kind, config, device, f"{name}: {kind.__name__}")
    module, prefix = _build(f"{name}: {base.__name__}", base, config, architecture.submodule, device)
    example = torch.zeros(architecture.shape, dtype=getattr(torch, architecture.dtype), device=device)
    note = described(base, None, None, bool(prefix)) if model_class else ""
    return Source(name, module, (example,), prefix=prefix, note=note)


def _from_folder(folder: Path, device: str, model_class: str) -> Source:
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no config.json in it, so it is not a Hugging Face model folder.")
    return _from_config(folder.resolve().name, file, device, model_class)


def _from_hub(hub_id: str, device: str, model_class: str) -> Source:
    """Download config.json, nothing else."""
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(hub_id, "config.json"))
    except Exception as error:  # offline, 401, 404, proxies: httpx, OSError and the hub's own classes
        known = [name for name, a in aliases().items() if a.hub_id == hub_id]
        instead = f" The alias {known[0]} is this architecture." if known else ""
        raise TraceError(
            f"{hub_id}: no such folder, and its config.json cannot be read from the Hugging Face hub"
            f" ({type(error).__name__}).{instead or ' Offline, give a folder with its config.json.'}"
        ) from error
    return _from_config(hub_id, file, device, model_class)


def _from_config(name: str, file: Path, device: str, model_class: str) -> Source:
    import torch

    from permgraph.frontend.hugging_face import base_model, declared_class, example_shape, read_config
    from permgraph.frontend.model_classes import described, head_class

    config, base = read_config(file)
    kind = head_class(model_class, config, base, file)
    if kind is not None:
        return _whole(name, kind, config, device, f"{file}: {kind.__name__}")
    submodule = "encoder" if getattr(config, "is_encoder_decoder", False) else ""

    def build(config: Any) -> nn.Module:
        return base_model(file, config, base)

    module, prefix = _build(f"{file}: {base.__name__}", build, config, submodule, device)
    shape, dtype = example_shape(module, config, str(file))
    note = described(base, None, declared_class(file, config), bool(prefix))
    example = torch.zeros(shape, dtype=dtype, device=device)
    return Source(name, module, (example,), prefix=prefix, note=note)


def _whole(name: str, kind: Any, config: Any, device: str, what: str) -> Source:
    """A class of transformers with all that it has: heads, decoders."""
    import torch

    from permgraph.frontend.hugging_face import decoder_shape, example_shape
    from permgraph.frontend.model_classes import described

    module, _ = _build(what, kind, config, "", device)
    shape, dtype = example_shape(module, config, what)
    args = (torch.zeros(shape, dtype=dtype, device=device),)
    decoder = decoder_shape(module, config)
    kwargs = {"decoder_input_ids": torch.zeros(decoder, dtype=torch.int64, device=device)} if decoder else {}
    note = described(kind, kind, None, False)
    return Source(name, module, args, kwargs, model_class=kind.__name__, note=note)


def _build(
    what: str, build: Callable[[Any], nn.Module], config: Any, submodule: str, device: str
) -> tuple[nn.Module, str]:
    """The module to trace, in eval mode, and its prefix in the checkpoint."""
    import torch

    for flag in ("use_cache", "output_hidden_states", "output_attentions"):
        if hasattr(config, flag):
            setattr(config, flag, False)
    try:
        with torch.device(device):
            module = build(config).to(device)  # `torch.Tensor(n)` inside ignores the device context
    except Exception as error:  # whatever a wrong configuration does inside transformers
        line = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise TraceError(f"{what} cannot be built from it: {line[0]}") from error
    if submodule:
        module = module.get_submodule(submodule)
    module.register_forward_hook(_keep_the_representation)
    return module.eval(), f"{submodule}." if submodule else ""


def _keep_the_representation(module: nn.Module, args: Any, output: Any) -> Any:
    """Leave `extract_features` out of the outputs of wav2vec2 and its kin.

    They are intermediate features that only the pre-training loss reads. HuBERT does not return them; as an
    output they would pin the last convolution.
    """
    if not isinstance(output, Mapping) or not {"extract_features", "last_hidden_state"} <= set(output):
        return output
    from transformers.modeling_outputs import BaseModelOutput

    asked = {
        key: output.get(key) for key in ("hidden_states", "attentions")
    }  # by who runs it; none in a trace
    return BaseModelOutput(last_hidden_state=output["last_hidden_state"], **asked)
