"""Fingerprint of weights: what a model holds, whatever file, spelling of names or width of numbers it is kept in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

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
        self._found: dict[str, str] = {}

    def add(self, name: str, tensor: Any) -> None:
        """A torch tensor under any of its names; names that the network does not know are passed over."""
        first = self._names.get(canonical(name), "")
        if first not in self._wanted or first in self._found:
            return
        parts = (tensor.real, tensor.imag) if tensor.is_complex() else (tensor,)
        digest = hashlib.blake2b(str(tuple(tensor.shape)).encode(), digest_size=16)
        for part in parts:
            digest.update(np.ascontiguousarray(part.detach().float().cpu().numpy()).data)
        self._found[first] = digest.hexdigest()

    @property
    def text(self) -> str:
        """32 hex digits; "" when a tensor of the network was not seen: then it is not known."""
        if self._found.keys() != self._wanted:
            return ""
        lines = "".join(f"{name} {self._found[name]}\n" for name in sorted(self._found))
        return hashlib.sha256(lines.encode()).hexdigest()[:32]
