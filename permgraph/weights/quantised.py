"""Packed weights are refused: no gather re-orders them, no average of them means anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from permgraph.errors import FileError
from permgraph.weights.safetensors_io import Info


def refuse_quantised(infos: Mapping[str, Info], where: str, config: Mapping[str, Any] | None = None) -> None:
    """Refuse packed weights: told by the configuration of a folder, or a matrix of 8-bit integers. Raises FileError."""
    refuse_quantised_config(config or {}, where)
    for key, info in infos.items():
        if info.dtype.name in ("int8", "uint8") and len(info.shape) == 2 and min(info.shape) > 1:
            raise _quantised(where, f"{key!r} is a matrix of {info.dtype}")


def refuse_quantised_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a folder whose config.json says that its weights are packed. Raises FileError."""
    for name in ("quantization_config", "compression_config"):
        if config.get(name):
            raise _quantised(where, f"its config.json has {name}")


def _quantised(where: str, what: str) -> FileError:
    return FileError(
        f"{where}: quantised ({what}); re-ordering channels would tear scales and packed values apart. "
        "Permute the unquantised checkpoint, then quantise."
    )
