"""Arguments: what a user gives as example inputs becomes the arguments of one call, and tensors inside it are found.

Tensors may lie inside dataclasses, named tuples, caches, or classes of the user's own. Such a value is rebuilt around
other tensors by copying it with the tensors exchanged.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Call = tuple[tuple[Any, ...], dict[str, Any]]

_PLAIN = (Tensor, int, float, bool, str, type(None))  # leaves that torch.export takes as they are
_INERT = (str, bytes, int, float, complex, type, torch.dtype, torch.device, nn.Module)


def call_of(example_inputs: Any, kwargs: Mapping[str, Any] | None = None) -> Call:
    """(args, kwargs): a tuple or list holds positional arguments, a mapping keyword ones, all else is one argument."""
    named = dict(kwargs or {})
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs) | named
    sequence = isinstance(example_inputs, (tuple, list)) and not hasattr(example_inputs, "_fields")
    return (tuple(example_inputs) if sequence else (example_inputs,)), named


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor inside a value once, in order; also inside objects that torch does not know."""
    seen: dict[int, Any] = {}
    return list(_walk(value, seen))


def with_tensors(value: Any, changed: dict[int, Any]) -> Any:
    """A copy of `value` with other tensors in it: `changed` maps the id of each old one to the new one."""
    return copy.deepcopy(value, dict(changed))


def flat(call: Call) -> bool:
    """Whether torch.export gets the tensors of a call one by one, since it lacks a class that is among them."""
    return not all(isinstance(leaf, _PLAIN) for leaf in tree_leaves(call))


def leaves(call: Call) -> list[Any]:
    """What the inputs of the exported program stand for, in order."""
    return list(tensors_in(call)) if flat(call) else list(tree_leaves(call))


@contextmanager
def exportable(module: nn.Module, call: Call) -> Iterator[Call]:
    """The call as torch.export takes it. Where it must be flat, the module's forward rebuilds the arguments."""
    if not flat(call):
        yield call
        return
    tensors, forward = tensors_in(call), module.forward

    def rebuilt(*given: Tensor) -> Any:
        exchanged = {id(old): new for old, new in zip(tensors, given, strict=True)}
        args, kwargs = with_tensors(call, exchanged)
        return forward(*args, **kwargs)

    module.forward = rebuilt
    try:
        yield tuple(tensors), {}
    finally:
        del module.forward


def input_names(module: nn.Module, call: Call) -> list[str]:
    """A name for each tensor of a call: the parameter's of forward; with a number where one holds several."""
    args, kwargs = call
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {f"arg{i}": value for i, value in enumerate((*args, *kwargs.values()))}
    names, seen = [], dict[int, Any]()
    for name, value in bound.items():
        inner = list(_walk(value, seen))
        names += (
            [name]
            if inner == [value] or isinstance(value, Tensor)
            else [f"{name}_{i}" for i in range(len(inner))]
        )
    return names


def _walk(value: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    if isinstance(value, _INERT) or value is None or id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (tuple, list, set, frozenset)):
        parts = list(value)
    else:
        slots = [s for kind in type(value).__mro__ for s in getattr(kind, "__slots__", ())]
        parts = [*getattr(value, "__dict__", {}).values(), *(getattr(value, s, None) for s in slots)]
    for part in parts:
        yield from _walk(part, seen)
