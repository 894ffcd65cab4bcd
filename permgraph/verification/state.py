"""State: a module's tensors in float64, with noise, permuted; made one at a time, when the network reads them.

Nothing is held but what fits a budget, so a network of a billion parameters is checked in little more than the
memory that its own weights take.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from permgraph.errors import PlanError
from permgraph.frontend.state import named_tensors
from permgraph.planning.gather import Gather, apply_gathers
from permgraph.planning.moves import Move

if TYPE_CHECKING:
    from torch import nn

BUDGET = 2**30  # bytes of parameters that one run keeps
WIDE = 8  # bytes of a float64
_PERIOD = 65_537  # of the noise; a prime, so that rows of a matrix do not get the same noise
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class _Range:
    """What noise must respect: the least and the largest finite value, and how far they spread."""

    low: float
    high: float
    spread: float


class Weights:
    """The parameters and buffers of a module, by name; read only."""

    def __init__(self, module: nn.Module, seed: int = 0) -> None:
        """Raises PlanError when the module has no weights (meta device)."""
        self.tensors: dict[str, torch.Tensor] = {}
        self.names: dict[str, str] = {}  # every name → the first name of that tensor
        self.by_id: dict[int, str] = {}
        self.buffers: set[str] = set()
        for name, tensor in named_tensors(module):
            first = self.names[name] = self.by_id.setdefault(id(tensor), name)
            self.tensors.setdefault(first, tensor)
        if any(t.is_meta for t in self.tensors.values()):
            raise PlanError(
                "the model is on the meta device and has no weights: verify needs real or random weights."
            )
        self.buffers = {self.names[name] for name, _ in module.named_buffers(remove_duplicate=False)}
        self.saved = {self.names[n] for n in module.state_dict(keep_vars=True) if n in self.names}
        self._ranges: dict[str, _Range] = {}
        self._uniform = torch.rand(
            _PERIOD, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )

    def wide(self, name: str, noise: float = 0.0, nudge: float = 0.0) -> torch.Tensor:
        """A new tensor: the weights in float64 (complex128), with noise; integers as they are.

        noise   0 for none, 1 for as much as leaves a network alive; only on what a checkpoint holds
        nudge   relative change of every value, in last bits of float64
        """
        own = self.tensors[name].detach()
        if not (own.is_floating_point() or own.is_complex()):
            return own.clone()
        wide = own.to(torch.complex128 if own.is_complex() else torch.float64, copy=True)
        real = torch.view_as_real(wide) if wide.is_complex() else wide
        if noise and name in self.saved and real.numel():
            self._add_noise(name, real, noise)
        if nudge:
            real.mul_(1 + nudge * _EPS * (2 * self._draw(name, real) - 1))
        return wide

    def _add_noise(self, name: str, tensor: torch.Tensor, noise: float) -> None:
        """What has one sign keeps it: a square root or a logarithm may be taken of it."""
        if name not in self._ranges:
            self._ranges[name] = _range(tensor)
        known = self._ranges[name]
        size = 0.2 * known.spread if tensor.dim() > 1 and known.spread else 0.4
        draw = self._draw(name, tensor)
        if known.low < 0 < known.high:
            tensor.add_(draw.sub_(0.5).mul_(noise * size))
            return
        tensor.mul_(1 + noise * (draw - 0.5))
        tensor.add_(draw.mul_(noise * size * (1 if known.low >= 0 else -1)))

    def _draw(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Uniform numbers in [0, 1), the same for the same name. New memory."""
        start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") % _PERIOD
        turns = math.ceil((start + like.numel()) / _PERIOD)
        return self._uniform.repeat(turns)[start : start + like.numel()].reshape(like.shape).to(like.device)


class State:
    """The tensors for one run of the network."""

    def __init__(
        self,
        weights: Weights,
        noise: float = 0.0,
        moves: Mapping[str, Move] | None = None,
        nudge: float = 0.0,
    ) -> None:
        """Raises PlanError when a move is of a tensor that the module lacks."""
        self.weights = weights
        self.noise, self.nudge = noise, nudge
        self.moves: dict[str, Move] = {}
        for name, move in (moves or {}).items():
            for source in (name, *move.sources):
                if source not in weights.names:
                    raise PlanError(
                        f"the model has no tensor {source!r}: the plan was made for another architecture."
                    )
            self.moves[weights.names[name]] = move.named(weights.names)
        self._buffers: dict[str, torch.Tensor] = {}
        self._parameters: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._held = 0

    def instead(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What the network reads in place of a tensor of its own; None when it is not one of its weights."""
        name = self.weights.by_id.get(id(tensor))
        return None if name is None else self[name]

    def __getitem__(self, name: str) -> torch.Tensor:
        """The same tensor for as long as the run keeps it: buffers to its end, parameters while they fit BUDGET."""
        kept = self._buffers if name in self.weights.buffers else self._parameters
        if name in kept:
            if kept is self._parameters:
                self._parameters.move_to_end(name)
            return kept[name]
        # The network runs in a mode that would replace the weights once more, perhaps inside `torch.func.grad` or `vmap`.
        with _disable_current_modes(), torch._C._DisableFuncTorch():
            tensor = self._made(name)
        kept[name] = tensor
        if kept is self._parameters:
            self._held += tensor.nbytes
            while self._held > BUDGET and len(self._parameters) > 1:
                self._held -= self._parameters.popitem(last=False)[1].nbytes
        return tensor

    def _made(self, name: str) -> torch.Tensor:
        """The tensor in float64, moved."""
        move = self.moves.get(name)
        if move is None:
            return self.weights.wide(name, self.noise, self.nudge)
        array = move.of(lambda source: self.weights.wide(source, self.noise, self.nudge).cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.weights.tensors[name].device)


def bytes_held(sizes: Sequence[int]) -> int:
    """Bytes that a run takes beside a module's own weights, of so many numbers each: those it keeps, and of the largest one
    the copies on the way (its noise, the permuted one)."""
    largest = max(sizes, default=0)
    return WIDE * (min(sum(sizes), max(BUDGET // WIDE, largest)) + 4 * largest)


def permuted(tensor: torch.Tensor, moves: Sequence[Gather]) -> torch.Tensor:
    """A tensor with its gathers applied, on the device that it is on."""
    if not moves:
        return tensor
    array = apply_gathers(tensor.cpu().numpy(), moves)
    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor.device)


def _range(tensor: torch.Tensor) -> _Range:
    finite = tensor if bool(torch.isfinite(tensor).all()) else tensor[torch.isfinite(tensor)]
    if not finite.numel():
        return _Range(0.0, 0.0, 0.0)
    low, high = torch.aminmax(finite)
    spread = float(finite.std()) if finite.numel() > 1 else 0.0
    return _Range(float(low), float(high), spread)
