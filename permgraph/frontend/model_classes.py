"""Model classes: which class of transformers a configuration is built as.

A folder holds the weights of one class, which its config.json names: often a base model with a head on it, such as
HubertForCTC. Without further notice the base model is traced, and the head left out; `--class` names another class.
Only classes that transformers itself has are built, never code of a folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import PermgraphError, UsageError, nearest
from permgraph.frontend.hugging_face import declared_class, read_config
from permgraph.ir.names import canonical

if TYPE_CHECKING:
    from torch import nn

    from permgraph.ir.spec import PermSpec

CONFIG = "config"  # as --class: the class that config.json names


def classes_for(config: Any, base: type[nn.Module]) -> dict[str, type[nn.Module]]:
    """Name → class, of the public classes that transformers has for this configuration: the base model and its heads."""
    import transformers

    home = sys.modules[base.__module__]
    kinds = {name: getattr(home, name, None) for name in getattr(home, "__all__", ())}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type)
        and issubclass(kind, transformers.PreTrainedModel)
        and not name.endswith("PreTrainedModel")
        and _takes(kind, config)
    }


def head_class(wanted: str, config: Any, base: type[nn.Module], file: Path | None) -> type[nn.Module] | None:
    """The class to build whole; None for the base model alone.

    wanted  "" for the base model, "config" for what config.json names, or the name of a class
    file    config.json; None for an alias

    Raises UsageError for a class that transformers does not have for this configuration.
    """
    if not wanted:
        return None
    if wanted == CONFIG:
        kind = declared_class(file, config) if file else None
        if kind is None:
            raise UsageError(
                f"--class {CONFIG}: {file or 'an alias'} names no class that transformers has for {_kind(config)}. "
                f"Name one: {', '.join(classes_for(config, base))}."
            )
    else:
        known = classes_for(config, base)
        kind = known.get(wanted)
        if kind is None:
            raise UsageError(
                f"--class {wanted}: transformers has no such class for {_kind(config)}.{nearest(wanted, known)} "
                f"It has {', '.join(known)}."
            )
    whole_base = kind is base and not getattr(config, "is_encoder_decoder", False)
    return None if whole_base else kind


def refuse_class(model_class: str, file: str | Path) -> None:
    """--class beside a trace, whose class was chosen when it was traced. Raises UsageError."""
    if model_class:
        raise UsageError(f"--class {model_class}: {file} is traced already. Give MODEL in its place.")


def class_of_plan(model: str | Path, spec: PermSpec) -> str:
    """The class under which a folder has the tensors of a plan: the one that its config.json names, or "" for the base
    model, also where none has them."""
    file = Path(model).expanduser()
    file = file if file.name == "config.json" else file / "config.json"
    if not file.is_file():
        return ""
    try:
        config, base = read_config(file)
        kind = declared_class(file, config)
        if kind is None or kind is base:
            return ""
        return kind.__name__ if _names(_on_meta(kind, config), spec) == _spelt(spec) else ""
    except PermgraphError:
        return ""  # whoever builds it says so


def _on_meta(kind: Any, config: Any) -> nn.Module:
    import torch

    try:
        with torch.device("meta"):
            module: nn.Module = kind(config)
    except Exception as error:  # whatever a wrong configuration does inside transformers
        raise UsageError(str(error)) from error
    return module


def _names(module: nn.Module, spec: PermSpec) -> set[str]:
    unread = {canonical(name) for name in spec.unused}
    return {canonical(name) for name in module.state_dict()} - unread


def _spelt(spec: PermSpec) -> set[str]:
    return set(spec.names) - {canonical(name) for name in spec.unused}


def described(base: type[nn.Module], kind: type[nn.Module] | None, declared: Any, encoder: bool) -> str:
    """What was traced, for a reader who does not know what the folder holds; no full stop."""
    if kind is not None:
        return f"traced as {kind.__name__}"
    text = f"traced as {'the encoder of ' if encoder else ''}{base.__name__}"
    if declared is None or issubclass(declared, base):
        return text
    rest = "what else" if encoder else "the head that"
    return f"{text}: {rest} {declared.__name__} has is left out (--class {CONFIG} traces it whole)"


def _takes(kind: Any, config: Any) -> bool:
    wanted = getattr(kind, "config_class", None)
    return isinstance(wanted, type) and isinstance(config, wanted)


def _kind(config: Any) -> str:
    return f"model_type {getattr(config, 'model_type', type(config).__name__)!r}"
