"""A pickle read as a description: its dicts, lists and numbers, and where its tensors lie. Nothing in it is run.

Every global that the pickle names becomes an inert object of ours: the functions that rebuild a tensor note its storage,
shape and strides, the classes of training libraries (their configurations) hold what they are given. Names that no weights
need, of Python's own library and of torch, make the file refused. No memory is asked for that the file does not fill.
"""

from __future__ import annotations

import math
import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import torch

from permgraph.errors import PermgraphError

INERT = (
    "argparse",
    "collections",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "pathlib",
    "typing",
    "types",
    "uuid",
)
_PLAIN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.slice": slice,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "torch.Size": lambda *sizes: tuple(*sizes),
}
_HOLDERS = (
    "builtins.bytearray",
    "builtins.object",
    "_codecs.encode",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
)
_OF_TORCH = ("torch._utils", "torch._tensor", "torch.nn", "torch.optim", "torch.distributed")
_MOST = 2**28  # bytes of a tensor beyond those of its file: a number that is expanded


class Refused(PermgraphError):
    """The pickle asks for something that weights do not need."""


@dataclass(frozen=True)
class Storage:
    """Numbers in the file: under which key, of which type, how many."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: a view of a storage; offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Elements from the first to the last that are read."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def contiguous(self) -> bool:
        """Whether its elements follow one another, row after row."""
        wanted = [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        return 0 in self.shape or all(
            n == 1 or a == b for n, a, b in zip(self.shape, self.stride, wanted, strict=True)
        )

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, size: int) -> None:
        """Raises ValueError unless it lies within its storage. size: bytes of the file."""
        sizes = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(n) is int and n >= 0 for n in sizes):
            raise ValueError(f"a tensor of shape {self.shape} with strides {self.stride}")
        held = self.storage.count * self.storage.dtype.itemsize
        if (self.offset + self.extent) * self.dtype.itemsize > held:
            raise ValueError(f"a tensor of shape {self.shape} is larger than its storage of {held:,} bytes")
        if self.nbytes > size + _MOST:
            raise ValueError(f"a tensor of {self.nbytes:,} bytes in a file of {size:,}")


class Inert:
    """Stands for an object of a class or a function that is not loaded; only holds what it is given."""

    name = ""
    args: tuple[Any, ...] = ()
    held: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.held = state

    def append(self, value: Any) -> None:
        self.args = (*self.args, value) if len(self.args) < 100 else self.args

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.append((key, value))


class Unpickler(pickle._Unpickler):  # in C, one opcode can ask for a huge memo
    """Reads one pickle of torch.save; `refused` decides nothing but the words of the message."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f"{module}.{name}"
        found = _PLAIN.get(path) or _TENSORS.get(path) or _dtype(module, name)
        if found is not None:
            return found
        if _is_refused(module, path):
            raise Refused(path)
        return type("Inert", (Inert,), {"name": path})

    def load_build(self) -> None:
        """State is given to inert objects only: what it would do to others is change them."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state, instance = stack.pop(), stack[-1]
        if isinstance(instance, Inert):
            instance.__setstate__(state)
        elif not isinstance(instance, (dict, Stored)):
            raise ValueError(f"state for a {type(instance).__name__}")

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }

    def get_extension(self, code: int) -> None:
        raise Refused(f"copyreg extension {code}")

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError(f"an unknown persistent id {str(pid)[:60]}")
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if not isinstance(kind, torch.dtype) or type(count) is not int or count < 0:
            raise ValueError(f"a storage {str(pid)[:60]}")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("storages that are views of others, as torch wrote them before 0.4")
        return self.storages.setdefault(key, Storage(key, kind, count))


def _is_refused(module: str, path: str) -> bool:
    """Whether a name is of Python's library or of torch, and none that checkpoints hold."""
    root = module.partition(".")[0]
    if path in _HOLDERS or root in INERT or module.startswith(_OF_TORCH):
        return False
    return root in sys.stdlib_module_names or root in ("torch", "builtins")


def _dtype(module: str, name: str) -> torch.dtype | None:
    """`torch.float32`, and `torch.FloatStorage` as the type of a storage."""
    if module not in ("torch", "torch.storage", "torch.cuda"):
        return None
    if name == "UntypedStorage":
        return torch.uint8
    if name.endswith("Storage"):
        return _STORAGES.get(name.removesuffix("Storage"))
    found = getattr(torch, name, None) if module == "torch" else None
    return found if isinstance(found, torch.dtype) else None


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}


def _tensor(storage: Storage, offset: int, shape: Any, stride: Any, *rest: Any) -> Stored:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if any(isinstance(part, dict) and any(part.values()) for part in rest[2:]):
        raise ValueError("a tensor that is conjugated or negated lazily")
    return Stored(storage, storage.dtype, offset, tuple(shape), tuple(stride))


def _tensor_of_dtype(
    storage: Storage, offset: int, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Stored:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor without a storage")
    return Stored(storage, dtype, offset, tuple(shape), tuple(stride))


def _first(tensor: Any, *rest: Any) -> Any:
    return tensor


def _rebuilt(function: Any, kind: Any, args: tuple[Any, ...], state: Any) -> Any:
    return function(*args) if function in _TENSORS.values() else Inert(args, state)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _rebuilt,
}


def holds_tensor(value: Any, depth: int = 4) -> bool:
    """Whether an inert object keeps numbers of the file: a tensor of a kind that is not read."""
    if isinstance(value, (Storage, Stored)):
        return True
    inner: Any = ()
    if isinstance(value, Inert):
        inner = (*value.args, value.held)
    elif isinstance(value, (list, tuple)):
        inner = value
    elif isinstance(value, dict):
        inner = value.values()
    return depth > 0 and any(holds_tensor(part, depth - 1) for part in inner)
