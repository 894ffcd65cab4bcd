"""Whether two modules run the same code on their weights: then one export serves both."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

_OWN = ("_parameters", "_buffers", "_modules")
_FILES = (  # hooks of saving and loading, which no forward runs
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)
_WHERE = ("_name_or_path", "_commit_hash", "transformers_version")
_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    type,
    FunctionType,
)


def alike(a: nn.Module, b: nn.Module) -> bool:
    """Same classes under the same names with the same settings; parameters and buffers of the same kind, tied alike;
    equal integers and booleans, which a graph may follow.

    Whatever is not understood (a setting of another kind, a hook) makes them different: an export of their own is
    slower, and never wrong.
    """
    ours, theirs = dict(a.named_modules()), dict(b.named_modules())
    if ours.keys() != theirs.keys() or _tied(a) != _tied(b):
        return False
    return all(_module(ours[name], theirs[name]) for name in ours)


def _tied(module: nn.Module) -> list[str]:
    """The names of parameters, each under the first that it has."""
    firsts: dict[int, str] = {}
    return [firsts.setdefault(id(p), name) for name, p in module.named_parameters(remove_duplicate=False)]


def _module(a: nn.Module, b: nn.Module) -> bool:
    if _class(a) != _class(b):
        return False
    if not all(_tensors(getattr(a, kind), getattr(b, kind)) for kind in _OWN[:2]):
        return False
    return _same(_rest(a), _rest(b))


def _rest(module: nn.Module) -> dict[str, Any]:
    """What is set on a module besides its tensors and parts. Hooks are numbered as they come in this module: their own
    numbers count all hooks that were ever set."""
    rest = {k: v for k, v in vars(module).items() if k not in (*_OWN, *_FILES)}
    hooks = {k: v for k, v in rest.items() if "_hooks" in k and isinstance(v, Mapping)}
    order = {number: i for i, number in enumerate(sorted({n for found in hooks.values() for n in found}))}
    return rest | {k: [(order[n], hook) for n, hook in found.items()] for k, found in hooks.items()}


def _class(module: nn.Module) -> tuple[object, ...]:
    """Its class; a module with parametrizations has one made for itself, which is told by what it was made from."""
    own = type(module)
    if is_parametrized(module):
        return (*own.__bases__, own.__name__, *sorted(vars(own)))
    return (own,)


def _tensors(a: Mapping[str, Tensor | None], b: Mapping[str, Tensor | None]) -> bool:
    return a.keys() == b.keys() and all(_tensor(a[name], b[name]) for name in a)


def _tensor(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    if (a.shape, a.dtype, a.device, type(a)) != (b.shape, b.dtype, b.device, type(b)):
        return False
    return a.is_floating_point() or a.is_complex() or torch.equal(a, b)


def _same(a: Any, b: Any) -> bool:
    """Settings are compared by value where they are plain, by identity otherwise."""
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, (Tensor, nn.Module)):
        return False
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, (set, frozenset, *_PLAIN)):
        return bool(a == b)
    return hasattr(a, "to_dict") and _same(_settings(a), _settings(b))


def _settings(config: Any) -> Any:
    """A configuration of transformers as plain values; where it was loaded from does not count."""
    return {k: v for k, v in vars(config).items() if k not in _WHERE}
