"""Small configurations of any model type of transformers, by what the config's attributes are called.

An attribute whose name says width, depth, heads, vocabulary, … gets a small value, and values that go together
are made to agree. Several ways are tried one after the other, from all small to almost nothing changed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from zoo_models.hf_sizes import DEPTH, agree, attribute, filled, integer, listed, number

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "depth", "encoder_layers")


@dataclasses.dataclass(frozen=True)
class Way:
    """How a config is made small.

    effort: 4 every known name; 3 depths, vocabulary and widths, the widths all by one factor; 2 depths and
        vocabulary; 1 the same, and no list.
    style: "declared" gives the class what it declares, so that it derives the rest; "plain" gives only what it
        does not derive when left out; "all" gives derived values too; "set" overwrites the defaults afterwards.
    filled: also give something where the default is None.
    layers: how many layers are left.
    """

    effort: int
    style: str
    filled: bool = False
    layers: int = DEPTH


WAYS = tuple(
    Way(effort, style, filled, layers)
    for effort, layers in ((4, DEPTH), (3, DEPTH), (4, 3 * DEPTH), (2, DEPTH), (1, DEPTH))
    for style, filled in (
        ("declared", False),
        ("plain", False),
        ("all", False),
        ("set", False),
        ("declared", True),
        ("plain", True),
    )
)


def configs(kind: Any) -> Iterator[Any]:
    """Configurations of one class, the smallest first, no two alike; what a way fails with is yielded too."""
    seen: set[str] = set()
    for way in WAYS:
        try:
            config = made(kind, way)
            text = repr(sorted(config.to_dict().items(), key=lambda item: item[0]))
        except Exception as error:
            yield error
            continue
        if text not in seen:
            seen.add(text)
            yield config


def made(kind: Any, way: Way) -> Any:
    """One configuration."""
    config = kind()
    if way.style != "set":
        return kind(**changes(config, way))
    for inner in nested(config):
        for name, value in changes(inner, way, deep=False).items():
            _set(inner, name, value)
    return config


def nested(config: Any, depth: int = 0) -> Iterator[Any]:
    """A config and the configs among its attributes."""
    from transformers import PretrainedConfig

    yield config
    for value in vars(config).values() if depth < 4 else ():
        if isinstance(value, PretrainedConfig):
            yield from nested(value, depth + 1)


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except Exception:  # a property, or a validator that wants another value
        return


def changes(config: Any, way: Way, deep: bool = True) -> dict[str, Any]:
    """Small values by attribute."""
    from transformers import PretrainedConfig

    aliases = {v: k for k, v in (getattr(config, "attribute_map", None) or {}).items()}
    fields = {field.name: field for field in dataclasses.fields(config)}
    before = next((d for inner in nested(config) if (d := depth(inner))), 0)
    after = min(before, way.layers)
    small: dict[str, Any] = {}
    for name, value in vars(config).items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, PretrainedConfig):
            if deep:
                small[name] = {"model_type": value.model_type} | _own(value, way) | changes(value, way)
        elif way.style in ("declared", "plain") and not _given(fields.get(name), way, value):
            continue
        elif number(value):
            size = integer(name, aliases.get(name, name), value, way.effort, way.layers)
            small |= {} if size is None else {name: size}
        elif not value and value is not False and way.filled:
            more = (
                integer(name, name, None, way.effort, way.layers) if _wants_number(fields.get(name)) else None
            )
            more = filled(name, after, getattr(config, "layer_types", None) or []) if more is None else more
            small |= {} if more is None else {name: more}
        elif isinstance(value, dict) and name == "per_layer_config":
            small[name] = {k: v for k, v in value.items() if int(k) < after}
        elif isinstance(value, (list, tuple)) and value and way.effort > 1:
            shortened = listed(name, value, before, after, way.effort)
            small |= {name: shortened} if shortened != value else {}
    agree(config, small, way.effort)
    return small | {flag: v for flag, v in _FLAGS if hasattr(config, flag)}


# Nothing random, and no cache among the outputs.
_FLAGS = (
    ("use_cache", False),
    ("layerdrop", 0.0),
    ("noise_scale", 0.0),
    ("noise_scale_duration", 0.0),
    ("vae_std", 0.0),
)


def depth(config: Any) -> int:
    """The number of layers a config says it has; 0 when none of the usual names is there."""
    return next((v for n in LAYERS if number(v := attribute(config, n))), 0)


def _own(config: Any, way: Way) -> dict[str, Any]:
    """What a part's config says other than its class does by default."""
    usual = type(config)().to_dict()
    own = {k: v for k, v in config.to_dict().items() if v != usual.get(k) and not isinstance(v, dict)}
    if depth(config) > way.layers and own.get("out_indices"):  # stages are layers, counted from the stem
        count = len(own["out_indices"])
        own["out_indices"] = list(range(max(1, way.layers + 1 - count), way.layers + 1))
        own.pop("out_features", None)
    else:
        own.pop("out_indices", None)
    return {k: v for k, v in own.items() if not k.startswith("_") and k != "transformers_version"}


def _given(field: dataclasses.Field[Any] | None, way: Way, value: Any) -> bool:
    """Whether the class takes this attribute, and does not derive it when it is left out."""
    if field is None:
        return False
    return way.style == "declared" or field.default is not None or (way.filled and value is None)


def _wants_number(field: dataclasses.Field[Any] | None) -> bool:
    return field is not None and bool(re.search(r"\bint\b", re.sub(r"\[.*\]", "", str(field.type))))
