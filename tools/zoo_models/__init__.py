"""Collections of networks for `tools/zoo.py`: each lists names and builds a network with example inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]  # network, positional inputs, keyword inputs


@dataclass(frozen=True)
class Entry:
    """One network of a collection; `build` may raise, and the reason is recorded."""

    collection: str
    name: str
    build: Callable[[], Made]


def entries(collection: str) -> Iterator[Entry]:
    """Every entry of one collection. Raises KeyError for an unknown one, ImportError when its library is missing."""
    yield from _LISTS[collection]()


def _torchvision() -> Iterator[Entry]:
    from zoo_models import vision

    for name in vision.torchvision_names():
        yield Entry("torchvision", name, partial(vision.torchvision_model, name))


def _timm() -> Iterator[Entry]:
    from zoo_models import vision

    for name in vision.timm_names():
        yield Entry("timm", name, partial(vision.timm_model, name))


def _transformers() -> Iterator[Entry]:
    from zoo_models import hf

    for name in [*hf.model_types(), *hf.headed()]:
        yield Entry("transformers", name, partial(hf.build, name))


def _handmade() -> Iterator[Entry]:
    from zoo_models import handmade

    for name, factory in handmade.NETS.items():
        yield Entry("handmade", name, factory)


def _speech() -> Iterator[Entry]:
    from zoo_models import speech

    for name, factory in speech.NETS.items():
        yield Entry("speech", name, factory)


_LISTS: dict[str, Callable[[], Iterator[Entry]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
    "speech": _speech,
    "handmade": _handmade,
}
COLLECTIONS = tuple(_LISTS)
