"""Ref: how a node names another one, whose result it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from permgraph.ir.codec import literal


@literal
@dataclass(frozen=True)
class Ref:
    """An argument that is the result of another node."""

    node: str


def refs_in(values: Iterable[Any]) -> Iterator[str]:
    """Names of the nodes that arguments refer to, nested ones included, in order."""
    for value in values:
        if isinstance(value, Ref):
            yield value.node
        elif isinstance(value, (tuple, list)):
            yield from refs_in(value)
