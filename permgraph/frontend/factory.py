"""Factories: the user's own function returning (nn.Module, example_inputs). Running it is what was asked."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from permgraph.errors import TraceError, UsageError, nearest

if TYPE_CHECKING:
    from torch import nn


def call_factory(model: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """(module, args, kwargs) from `file.py:factory` or `package.module:factory`, the module as returned.

    Example inputs may be a tuple or list of arguments, one tensor, or a dict of keyword arguments.
    Raises UsageError when there is no such function, TraceError when it fails or returns something else.
    """
    return _checked(call_function(model), model)


def call_function(text: str) -> Any:
    """What the user's function `file.py:name` returns. Raises UsageError when there is none, TraceError when it fails."""
    with _importable(_folder(text)):
        factory = user_function(text)
        try:
            return factory()
        except (Exception, SystemExit) as error:
            raise TraceError(f"{text}: the factory raised {_describe(error)}") from error


def user_function(text: str) -> Callable[..., Any]:
    """The function that a user typed as `file.py:name` or `package.module:name`. Its file is run.

    Raises UsageError when there is no such function, TraceError when the file cannot be run.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise UsageError(f"{text}: expected file.py:function or package.module:function.")
    with _importable(_folder(text)):
        return _find(_import(place, text), name, place)


def _folder(text: str) -> Path:
    """Where what the user's code imports may lie beside it."""
    place = text.rpartition(":")[0]
    return Path(place).expanduser().parent if place.endswith(".py") else Path.cwd()


def _import(place: str, model: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name and (place == error.name or place.startswith(f"{error.name}.")):
                raise UsageError(f"{model}: no module named {error.name!r} and no such file.") from error
            raise TraceError(f"{model}: importing it raised {_describe(error)}") from error
        except (Exception, SystemExit) as error:
            raise TraceError(f"{model}: importing it raised {_describe(error)}") from error
    path = Path(place).expanduser()
    if not path.is_file():
        raise UsageError(f"{model}: no such file: {place}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickle look a class's module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TraceError(f"{model}: running the file raised {_describe(error)}") from error
    return module


def _find(module: ModuleType, name: str, place: str) -> Callable[..., Any]:
    factory: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(factory):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise UsageError(f"{place}: no function {name!r} in it.{nearest(name, functions)}")
    return factory


def _checked(made: Any, model: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    import torch
    from torch import nn

    from permgraph.frontend.arguments import call_of

    if not isinstance(made, (tuple, list)) or len(made) != 2 or not isinstance(made[0], nn.Module):
        raise TraceError(
            f"{model}: the factory returned {_kind(made)}; it must return (nn.Module, example_inputs)."
        )
    module, inputs = made
    if not isinstance(inputs, (dict, torch.Tensor, tuple, list)):
        raise TraceError(
            f"{model}: the factory's example inputs are {_kind(inputs)}; give a tuple of arguments, one tensor,"
            " or a dict of keyword arguments."
        )
    return module, *call_of(inputs)


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(type(v).__name__ for v in value)})"
    return "None" if value is None else type(value).__name__


def _describe(error: BaseException) -> str:
    """'ValueError: text (net.py:12)', the innermost line of code."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The user's code may import what lies beside it, as when Python runs it."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
