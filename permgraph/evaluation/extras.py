"""Libraries of the extra `evaluate`, imported by what needs them."""

from __future__ import annotations

import importlib
from typing import Any

from permgraph.errors import UsageError


def extra(module: str) -> Any:
    """Import a module of the extra. Raises UsageError, which says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module.partition('.')[0]} is not installed: pip install 'permgraph[evaluate]'."
        ) from error
