"""Pickled checkpoints (.bin, .pt, .pth) read with `torch.load(weights_only=True)`: nothing in them is run.

Training checkpoints (fairseq's) also hold their settings, as objects of classes that are not installed here
and must not be imported. Those names, listed by their package, are read as inert stubs; any other name makes
the file refused. There is no way to switch this off.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import FileError
from permgraph.weights.safetensors_io import CODES, Info

MAX_PICKLE = 512 * 2**20
NESTED = ("model", "state_dict", "model_state_dict", "module")  # where training checkpoints keep the weights
INERT = ("argparse", "collections", "enum", "fairseq", "hydra", "numpy", "omegaconf", "pathlib", "typing")


class _Inert:
    """Stands for an object of a class we do not load; takes any arguments, and only holds its state."""

    held: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.held = state


class PickleFile:
    """One pickled file, with the same reading interface as SafetensorsFile. Raises FileError.

    A zip checkpoint (torch ≥ 1.6) is mapped, so its tensors are read when used; an older one is held whole.
    `settings` are the training settings that fairseq keeps beside the weights: name → bool, number or text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        loaded = _load(path)
        self._tensors = _state(path, loaded)
        self.settings = _settings(loaded)
        self.infos = {key: _info(path, key, tensor) for key, tensor in self._tensors.items()}

    def read(self, key: str) -> torch.Tensor:
        """The tensor; shared with this object, do not write into it."""
        return self._tensors[key]

    def verify(self) -> None:
        """Nothing to compare with."""


def _load(path: Path) -> Any:
    try:
        with open(path, "rb") as stream:
            zipped = stream.read(2) == b"PK"
        if zipped and not zipfile.is_zipfile(path):
            raise FileError(f"{path}: incomplete: the end of the file is missing. Download it again.")
        names = _globals(path, zipped)
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}.") from error
    except (ValueError, EOFError, IndexError, UnicodeDecodeError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"{path}: not a PyTorch checkpoint, or damaged: {error}.") from error
    unknown = sorted(names - _known())
    refused = [n for n in unknown if not n.startswith(tuple(f"{package}." for package in INERT))]
    if refused:
        raise FileError(
            f"{path}: refused, nothing was run: the file asks for {', '.join(refused[:20])}"
            f"{f' and {len(refused) - 20} more' if len(refused) > 20 else ''}, which weights do not need. "
            "Ask its author for a .safetensors file."
        )
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        OSError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileError(f"{path}: refused or damaged, nothing was run: {reason}") from error


def _known() -> set[str]:
    """Names that torch itself allows with weights_only=True."""
    from torch import _weights_only_unpickler as unpickler

    return set(unpickler._get_allowed_globals())


def _globals(path: Path, zipped: bool) -> set[str]:
    """Every global that the pickles of a file name, read off the opcodes without running them."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            found = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
            if not found:
                raise ValueError("no data.pkl in it (a TorchScript or other archive)")
            if archive.getinfo(found[0]).file_size > MAX_PICKLE:
                raise ValueError("its data.pkl is too large")
            with archive.open(found[0]) as stream:
                return _scan(stream, 1)
    with open(path, "rb") as stream:
        # The old format is five pickles: magic, version, system, object, storage keys. A plain pickle is one.
        return _scan(stream, 5)


def _scan(stream: Any, count: int) -> set[str]:
    names: set[str] = set()
    for turn in range(count):
        strings: list[str] = []
        try:
            for opcode, value, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(_python3(*str(value).split(" ", 1)))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif isinstance(value, str):
                    strings.append(value)
        except (ValueError, EOFError):
            if turn == 0:
                raise
            break  # fewer pickles than the old format has: torch.load will judge
    return names


def _python3(module: str, name: str) -> str:
    """A global by the name Python 3 gives it: protocol 2 writes `__builtin__.set` for `builtins.set`."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _state(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    """The state dict in what was loaded; values that are no tensors are left out."""
    if not isinstance(loaded, dict):
        raise FileError(f"{path}: holds a {type(loaded).__name__}, expected a dict of tensors.")
    for name in NESTED:
        inner = loaded.get(name)
        if isinstance(inner, dict) and any(isinstance(v, torch.Tensor) for v in inner.values()):
            loaded = inner
            break
    found = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not found:
        raise FileError(
            f"{path}: holds no tensors (looked in the dict itself and under {', '.join(NESTED)}); "
            f"its keys are {', '.join(map(repr, list(loaded)[:10]))}."
        )
    return found


def _settings(loaded: Any) -> dict[str, Any]:
    """Of the model and the task: from fairseq's `args` (a Namespace), or its `cfg` (an OmegaConf, a dict)."""
    found: dict[str, Any] = {}
    if isinstance(loaded, dict):
        cfg = _fields(loaded.get("cfg"))
        for section in (loaded.get("args"), cfg.get("task"), cfg.get("model")):
            found |= {k: _value(v) for k, v in _fields(section).items()}
    return {k: v for k, v in found.items() if isinstance(v, (bool, int, float, str))}


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dict, or of an object that was read as a stub."""
    if isinstance(value, _Inert):
        value = value.held
    content = value.get("_content", value) if isinstance(value, dict) else {}  # OmegaConf's DictConfig
    return {str(k): v for k, v in content.items()} if isinstance(content, dict) else {}


def _value(value: Any) -> Any:
    """OmegaConf wraps each value in a node."""
    return value.held.get("_val") if isinstance(value, _Inert) and isinstance(value.held, dict) else value


def _info(path: Path, key: str, tensor: torch.Tensor) -> Info:
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.dtype not in CODES:
        kind = "quantised" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype}"
        raise FileError(f"{path}: {key!r} is a {kind} tensor; only plain dense tensors can be permuted.")
    return Info(tuple(tensor.shape), tensor.dtype)
