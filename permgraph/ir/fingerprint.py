"""Fingerprint of weights: what a model holds, whatever file, spelling of names or width of numbers it is kept in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xxhash

from permgraph.ir.names import canonical
from permgraph.ir.spec import PermSpec

_UNREAD = "num_batches_tracked"  # a counter, absent from old files


class Fingerprint:
    """Collects the tensors of one network, in any order.

    Numbers are taken in float32: a checkpoint in float16 and the module it was loaded into are equal. Tensors that
    the network never reads do not count.
    """

    def __init__(self, spec: PermSpec) -> None:
        self._names = spec.names
        self._wanted = {n for n in spec.tensors if n not in spec.unused and not n.endswith(_UNREAD)}
        self._found: dict[str, Any] = {}

    def covers(self, names: Iterable[str]) -> bool:
        """Whether tensors of these names are all that count."""
        return self._wanted <= {self._names.get(canonical(name), "") for name in names}

    def start(self, name: str, shape: Sequence[int]) -> Any | None:
        """What a tensor under any of its names is counted with: its `update` takes the numbers in float32, row after row.

        None for one that does not count or is counted already.
        """
        first = self._names.get(canonical(name), "")
        if first not in self._wanted or first in self._found:
            return None
        self._found[first] = digest = xxhash.xxh3_128(str(tuple(shape)).encode())
        return digest

    def add(self, name: str, tensor: Any) -> None:
        """A torch tensor under any of its names; names that the network does not know are passed over."""
        digest = self.start(name, tensor.shape)
        if digest is None:
            return
        plain = tensor.detach().cpu().resolve_conj()
        numbers = plain.numpy().astype("<c8") if plain.is_complex() else plain.float().numpy()
        digest.update(np.ascontiguousarray(numbers).reshape(-1).view("u1").data)

    @property
    def text(self) -> str:
        """32 hex digits; "" when a tensor of the network was not seen: then it is not known."""
        if self._found.keys() != self._wanted:
            return ""
        lines = "".join(f"{name} {self._found[name].hexdigest()}\n" for name in sorted(self._found))
        return hashlib.sha256(lines.encode()).hexdigest()[:32]
