"""Float64: one run of a network with other weights, every step in double precision and without chance.

The network runs as it is written. Its weights are looked up in a `State` when they are read; casts to a narrower
float stay float64 (RMSNorm, softmax and rotary tables compute in float32); random ops give constants.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from permgraph.errors import CheckError
from permgraph.frontend.outputs import result_tensors
from permgraph.frontend.random_ops import is_random
from permgraph.torch_modes import eval_mode, flex_attention_uncompiled, seeded
from permgraph.verification.random_values import Constants
from permgraph.verification.state import State

_WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
T = TypeVar("T")
_SELECT = frozenset(["argmax", "argmin", "argsort", "kthvalue", "median", "mode", "msort", "sort", "topk"])
_OF_MODULES = frozenset(vars(nn.Module()))  # what every module holds: its parameters, children, hooks
_DEPTH = 3  # of lists in lists of tensors that a module holds


@dataclass(frozen=True)
class Run:
    """outputs: every tensor that the network returned. random: the random ops that ran, by name. selects: whether an op ran
    that takes the first of equal values."""

    outputs: list[torch.Tensor]
    random: tuple[str, ...] = ()
    selects: bool = False


def run(module: nn.Module, state: State, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> Run:
    """Run the module in eval mode with the weights of `state`. The module is left as it was.

    Raises CheckError when a tensor that the network holds out of sight cannot be brought to float64.
    """
    shell, constants = _shell(module), Constants()
    mode = _Float64(state, constants)
    try:
        with (
            _installed(shell, state),
            eval_mode(shell),
            _default_float64(),
            seeded(0),
            torch.no_grad(),
            flex_attention_uncompiled(),
            mode,
        ):
            result = shell(*inputs[0], **inputs[1])
    except RuntimeError as error:
        if _two_float_types(str(error)):
            raise CheckError(_out_of_sight(error, module)) from error
        raise
    outputs = [wide(tensor) for tensor in result_tensors(result)]
    return Run(outputs, tuple(sorted(constants.calls)), mode.selects)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64 or complex128; integers as they are."""
    return tensor.to(_WIDE[tensor.dtype]) if tensor.dtype in _WIDE else tensor


class _Float64(TorchDispatchMode):
    """Weights that were reached past their module are replaced too, and narrow operands widened."""

    supports_higher_order_operators = True

    def __init__(self, state: State, constants: Constants) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.state, self.constants = state, constants
        self.selects = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _WIDE:
            kwargs["dtype"] = _WIDE[kwargs["dtype"]]
        args = tuple(_WIDE.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        if isinstance(func, torch._ops.HigherOrderOperator):
            return func(*args, **kwargs)  # a branch or a loop
        self.selects |= func.__name__.partition(".")[0] in _SELECT
        written = _written(func) if func._schema.is_mutable else frozenset()
        args = tuple(self.operand(a, i in written) for i, a in enumerate(args))
        kwargs = {name: self.operand(a, name in written) for name, a in kwargs.items()}
        if func is torch.ops.aten._grouped_mm.default:
            return _grouped(*args[:3])
        if is_random(func):
            return self.constants.run(func, args, kwargs)
        return func(*args, **kwargs)

    def operand(self, value: Any, written: bool) -> Any:
        """An argument, tensors in lists included. One that is written to is the caller's, and stays."""
        return tree_map_only(torch.Tensor, self.own if written else self.widened, value)

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        other = self.state.instead(tensor)
        return tensor if other is None else other

    def widened(self, tensor: torch.Tensor) -> torch.Tensor:
        return wide(self.own(tensor))


@cache
def _written(op: Any) -> frozenset[int | str]:
    """Positions and names of the arguments that an op writes to."""
    written: set[int | str] = set()
    for i, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written |= {i, argument.name}
    return frozenset(written)


def _grouped(rows: torch.Tensor, matrices: torch.Tensor, stops: torch.Tensor) -> torch.Tensor:
    """A run of rows per expert times its matrix; torch's own kernel has no float64. Rows past the last stop are 0."""
    product = rows.new_zeros(rows.shape[0], matrices.shape[2])
    start = 0
    for matrix, stop in zip(matrices, stops.tolist(), strict=True):
        product[start:stop] = rows[start:stop] @ matrix
        start = stop
    return product


def _shell(module: nn.Module) -> nn.Module:
    """A copy that shares the tensors: some modules keep what they computed from the weights of the last call.

    A module that cannot be copied is used as it is.
    """
    if any(
        isinstance(m, torch.jit.ScriptModule) for m in module.modules()
    ):  # a copy would have tensors of its own
        return module
    held = [t for m in _modules(module) for value in vars(m).values() for t in _held(value, torch.Tensor)]
    tensors = (*module.parameters(), *module.buffers(), *held)
    try:
        return copy.deepcopy(module, {id(t): t for t in tensors})
    except Exception:  # locks, open files, generators: whatever a module holds
        return module


def _held(value: Any, kind: type[T], depth: int = _DEPTH) -> Iterator[T]:
    """What of a kind a module holds in an attribute, alone or in lists."""
    if isinstance(value, kind):
        yield value
    elif depth and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _held(item, kind, depth - 1)


def _modules(module: nn.Module) -> Iterator[nn.Module]:
    """Every module that may run: those that are registered, and those that one of them holds in a plain list."""
    found: set[int] = set()
    waiting = [module]
    while waiting:
        for child in waiting.pop().modules():
            if id(child) in found:
                continue
            found.add(id(child))
            yield child
            for key, value in vars(child).items():
                waiting += _held(value, nn.Module) if key not in _OF_MODULES else ()


@contextmanager
def _installed(module: nn.Module, state: State) -> Iterator[None]:
    """Every module looks its weights up in the state, and holds its plain tensors in float64."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for child in list(_modules(module)):
            own = child.__dict__
            for key in ("_parameters", "_buffers"):
                if own.get(key):
                    before.append((own, key, own[key]))
                    own[key] = _Lookup(own[key], state)
            for key, value in list(own.items()):
                if key not in _OF_MODULES and any(True for _ in _held(value, torch.Tensor)):
                    before.append((own, key, value))
                    own[key] = _plain(value, state)
        yield
    finally:
        for own, key, value in before:
            own[key] = value


class _Lookup(dict[str, Any]):
    """A module's tensors by name. Reading one gives what the state has in its place."""

    def __init__(self, own: Any, state: State) -> None:
        super().__init__(own)
        self._state = state

    def _instead(self, value: Any) -> Any:
        if value is None:
            return None
        other = self._state.instead(value)
        return wide(value) if other is None else other  # of a module that is not registered

    def __getitem__(self, key: str) -> Any:
        return self._instead(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        return self._instead(super().get(key, default))

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def values(self) -> Any:
        return [self[key] for key in self]


def _plain(value: Any, state: State, depth: int = _DEPTH) -> Any:
    """Tensors that a module holds beside its parameters and buffers, alone or in lists (`nn.LSTM` holds a list)."""
    if isinstance(value, torch.Tensor):
        other = state.instead(value)
        return wide(value.detach()) if other is None else other
    if not depth or not isinstance(value, (list, tuple, dict)):
        return value
    if isinstance(value, dict):
        copied = copy.copy(value)
        copied.update({k: _plain(v, state, depth - 1) for k, v in value.items()})
        return copied
    items = [_plain(v, state, depth - 1) for v in value]
    if isinstance(value, list):
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


@contextmanager
def _default_float64() -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _two_float_types(text: str) -> bool:
    words = text.lower()
    return "double" in words and any(narrow in words for narrow in ("float", "half", "bfloat16"))


def _out_of_sight(error: RuntimeError, module: nn.Module) -> str:
    return (
        f"{type(module).__name__}: the function check runs in float64, and the network holds a tensor of another type "
        "where the check cannot see it (neither a parameter, nor a buffer, nor an attribute of a module): "
        f"{str(error).splitlines()[0]} Register it with `register_buffer`."
    )
