"""Stored tensors under the names and in the shapes of the model: what a library does between its files and its module.

Most stored tensors only have another name; some are fused or split (the experts of a mixture, q, k and v). Both ways are
here, in units: tensors that become each other together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from permgraph.errors import FileError
from permgraph.weights.dtypes import dtype_of
from permgraph.weights.safetensors_io import Info

if TYPE_CHECKING:
    import torch

Read = Callable[[str], "torch.Tensor"]


class Movement(Protocol):
    """Re-orders the coordinates of some tensors into other tensors, and back. No value changes."""

    def forward(self, stored: list[torch.Tensor]) -> list[torch.Tensor]: ...

    def backward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]: ...


@dataclass(frozen=True)
class Unit:
    """Stored keys, and the model's names for what they become; without a movement, one key and one name."""

    stored: tuple[str, ...]
    names: tuple[str, ...]
    movement: Movement | None = None


class Conversion:
    """All tensors of a checkpoint, in units."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = tuple(units)
        self._of_key = {key: unit for unit in self.units for key in unit.stored}
        self._of_name = {name: unit for unit in self.units for name in unit.names}

    def names_of(self, key: str) -> tuple[str, ...]:
        """The model's names for what a stored tensor becomes or takes part in."""
        return self._of_key[key].names

    def infos(self, stored: Mapping[str, Info]) -> dict[str, Info]:
        """Model's name → shape and dtype. Raises FileError when a unit cannot be converted."""
        found: dict[str, Info] = {}
        for unit in self.units:
            if unit.movement is None:
                found[unit.names[0]] = stored[unit.stored[0]]
                continue
            made = unit.movement.forward([_empty(stored[key]) for key in unit.stored])
            found |= {n: info_of(t) for n, t in zip(unit.names, made, strict=True)}
        return found

    def reader(self, read: Read) -> Read:
        """Reads by the model's names, given how to read a stored key."""

        def run(unit: Unit, movement: Movement) -> dict[str, torch.Tensor]:
            return dict(zip(unit.names, movement.forward([read(key) for key in unit.stored]), strict=True))

        return _once(self._of_name, run, lambda unit: read(unit.stored[0]))

    def writer(self, read: Read) -> Read:
        """Gives what to store under a key, given the model's tensors; each of those is asked for once."""

        def run(unit: Unit, movement: Movement) -> dict[str, torch.Tensor]:
            return dict(zip(unit.stored, movement.backward([read(name) for name in unit.names]), strict=True))

        return _once(self._of_key, run, lambda unit: read(unit.names[0]))

    def stored_infos(self, stored: Mapping[str, Info], infos: Mapping[str, Info]) -> dict[str, Info]:
        """Stored key → its shape, and the dtype that its tensors have in `infos`. Raises FileError when they differ."""
        found = {}
        for key, unit in self._of_key.items():
            dtypes = {infos[name].dtype for name in unit.names}
            if len(dtypes) != 1:
                raise FileError(f"{key}: its parts {', '.join(unit.names)} would have different dtypes.")
            found[key] = Info(stored[key].shape, dtypes.pop())
        return found


def _once(
    units: Mapping[str, Unit],
    run: Callable[[Unit, Movement], dict[str, torch.Tensor]],
    plain: Callable[[Unit], torch.Tensor],
) -> Read:
    """A reader that converts a unit when its first tensor is wanted, and keeps the others until they are."""
    waiting: dict[str, torch.Tensor] = {}

    def read(key: str) -> torch.Tensor:
        unit = units[key]
        if unit.movement is None:
            return plain(unit)
        if key not in waiting:
            waiting.update(run(unit, unit.movement))
        return waiting.pop(key)

    return read


def info_of(tensor: torch.Tensor) -> Info:
    """Shape and type of a tensor. Raises FileError for a type that no file of weights holds."""
    dtype = dtype_of(tensor.dtype)
    if dtype is None:
        raise FileError(f"a {tensor.dtype} tensor; only plain dense tensors can be written.")
    return Info(tuple(tensor.shape), dtype)


def _empty(info: Info) -> torch.Tensor:
    import torch

    return torch.empty(info.shape, dtype=info.dtype.torch, device="meta")
