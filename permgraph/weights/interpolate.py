"""Weighted averages of two models, `w_A · A + w_B · B` (Wortsman et al., Model soups, 2022).

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's, and have to hold the same values in B. Weights that the network computes from parts (weight norm,
spectral norm) are averaged as computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import UsageError, nearest
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.planning.moves import Move
from permgraph.weights.apply import (
    applied_step,
    find_moves,
    moved,
    refuse_other_stored,
    refuse_other_weights,
    refuse_twice,
)
from permgraph.weights.average import Weights, check_pair, interpolate, is_inexact, result_dtype, written
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.computed import Layer, average, layers_in
from permgraph.weights.names import match_names
from permgraph.weights.output import write_like
from permgraph.weights.pairing import check_shapes, planned_pairs, same_names, tied_as_in_a
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.record import Applied, Record
from permgraph.weights.safetensors_io import Info

Both = Callable[[str], tuple[torch.Tensor, torch.Tensor | None]]


def merge(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    weights: Weights = (0.9, 0.1),
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
    parametrized: str = "weight",
) -> dict[str, torch.Tensor]:
    """The weighted sum of two state dicts with the same tensors; keys as A names them, a new dict.

    Tensors that are tied in A stay tied: where B's are not, these are averaged first, and a warning says so.

    weights         of A and of B
    dtype           of the floating-point results; A's, tensor by tensor, when not given
    tensor_weights  glob on A's keys → weights of the tensors it matches; the last match wins
    integers_of_a   take A's integers and booleans where B holds others, instead of refusing
    parametrized    of weights computed from parts: "weight" averages what is computed, "direction" the same with the
                    interpolated norm, "parts" each stored tensor for itself
    Raises FileError for differing keys, shapes or integers and for NaN or inf, UsageError for weights.
    """
    of_key = _weights_of(state_a, weights, tensor_weights)
    pairs = same_names(state_a, state_b)
    check_shapes(state_a, state_b, pairs)
    tied = {
        key: (a.data_ptr(), a.shape, a.stride()) for key, a in state_a.items() if a.numel() and not a.is_meta
    }
    of_b = tied_as_in_a(tied, {key: state_b[other] for key, other in pairs.items()}, of_key)
    pair = _Average(
        of_key, layers_in(state_a, parametrized), parametrized, dtype, allow_nonfinite, integers_of_a
    )
    done: dict[Any, torch.Tensor] = {}  # what is one tensor in A is one in the result
    result = {}
    for key in state_a:
        merged = pair.of(key, lambda k: (state_a[k], of_b[k]))
        result[key] = done.setdefault(tied.get(key, key), merged)
    return result


def merge_checkpoints(
    path_a: str | Path,
    path_b: str | Path,
    out: str | Path,
    weights: Weights = (0.9, 0.1),
    *,
    plan: Plan | None = None,
    perms: Permutations | None = None,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
    force: bool = False,
    other_weights: bool = False,
    integers_of_a: bool = False,
    parametrized: str = "direction",
    extra: Mapping[str, bytes] | None = None,
    checked: Mapping[str, Any] | None = None,
    state: str = "",
) -> Path:
    """`merge` from disk to disk, permuting B on the way, one tensor at a time. Returns `out`.

    The result has A's layout, keys and small files, and is safetensors. With a plan, tensors that it does
    not know (a head) are merged when both files have them in one shape, and A's otherwise; without one, both
    files must have the same tensors. `extra` adds small files to a folder (a model card), `checked` says in the
    record what became of the function check.
    Weights other than those that were matched are refused unless `other_weights`, integers and booleans that differ
    unless `integers_of_a`. `parametrized` is as for `merge`; `state` says which weights of single files, as for
    `open_checkpoint`.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    a, b = (open_checkpoint(p, "" if Path(p).is_dir() else state) for p in (path_a, path_b))
    for checkpoint in (a, b):
        refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    aligned = None
    if plan is not None and perms is not None:
        aligned = _Aligned.of(plan, perms, a, b, ignore_unexpected)
    pairs = aligned.pairs if aligned else same_names(a.infos, b.infos)
    check_shapes(a.infos, b.infos, pairs)
    of_key = _weights_of(a.infos, weights, tensor_weights)
    for checkpoint in (a, b):
        checkpoint.verify()
    if plan is not None and aligned is not None:
        for checkpoint, names in zip((a, b), aligned.names, strict=True):
            refuse_other_stored(plan, checkpoint, names)

    pair = _Average(
        of_key, layers_in(pairs, parametrized), parametrized, dtype, allow_nonfinite, integers_of_a
    )

    def both(key: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        of_a = a.read(key)
        of_b = b.read(pairs[key]) if key in pairs else None
        return of_a, aligned.moved(key, of_a, of_b) if aligned is not None else of_b

    def finish() -> None:
        if aligned is not None and not other_weights:
            aligned.refuse_other_weights()

    infos = {
        key: Info(info.shape, result_dtype(info.dtype, dtype) if key in pairs else info.dtype)
        for key, info in a.infos.items()
    }
    record = Record(
        "merge",
        weights=tuple(map(float, weights)),
        b=aligned.step if aligned else None,
        function_check=None if checked is None else dict(checked),
    )
    return write_like(
        a,
        Path(out),
        infos,
        lambda key: pair.of(key, both),
        record,
        force=force,
        inputs=(b.path,),
        extra=extra,
        finish=finish,
    )


@dataclass
class _Average:
    """The average of a pair of tensors, of a computed weight together with its other parts."""

    weights: Mapping[str, Weights]
    layers: Mapping[str, Layer]
    way: str
    dtype: torch.dtype | None
    allow_nonfinite: bool
    integers_of_a: bool
    waiting: dict[str, torch.Tensor] = field(default_factory=dict)

    def of(self, key: str, both: Both) -> torch.Tensor:
        """The result under `key`; `both` gives A's and B's tensor of a key, and is asked once for each."""
        layer = self.layers.get(key)
        if layer is None:
            a, b = both(key)
            if b is None:
                return a
            return interpolate(
                key, a, b, self.weights[key], self.dtype, self.allow_nonfinite, self.integers_of_a
            )
        if key not in self.waiting:
            self.waiting |= self._layer(layer, both)
        return self.waiting.pop(key)

    def _layer(self, layer: Layer, both: Both) -> dict[str, torch.Tensor]:
        weights = self.weights[layer.keys[layer.main]]
        pairs = {part: both(key) for part, key in layer.keys.items()}
        a = {part: x for part, (x, _) in pairs.items()}
        b = {part: y for part, (_, y) in pairs.items() if y is not None}
        for part, key in layer.keys.items():
            check_pair(key, a[part], b[part], self.allow_nonfinite)
        made = average(layer, a, b, weights, self.way)
        return {
            key: written(key, made[part], a[part].dtype, self.dtype, self.allow_nonfinite)
            for part, key in layer.keys.items()
        }


@dataclass(frozen=True)
class _Aligned:
    """B on its way to A: which tensors go together, what moves, and the weights seen so far."""

    perms: Permutations
    step: Applied
    checkpoints: tuple[Checkpoint, Checkpoint]
    names: tuple[Mapping[str, str], Mapping[str, str]]
    moves: Mapping[str, Move]
    pairs: Mapping[str, str]
    seen: tuple[Fingerprint, Fingerprint]

    @classmethod
    def of(
        cls, plan: Plan, perms: Permutations, a: Checkpoint, b: Checkpoint, ignore: Sequence[str]
    ) -> _Aligned:
        names_b, moves = find_moves(plan, perms, b.infos, str(b.path), ignore_unexpected=ignore)
        tables = [k for k, i in a.infos.items() if not is_inexact(i.dtype)]
        names_a = match_names(plan.spec, a.shapes, str(a.path), None, [*ignore, *tables])
        step = applied_step(plan, perms)
        for checkpoint in (a, b):
            refuse_twice(checkpoint, step)
        pairs = planned_pairs(a, b, names_a, names_b)
        seen = (Fingerprint(plan.spec), Fingerprint(plan.spec))
        return cls(perms, step, (a, b), (names_a, names_b), moves, pairs, seen)

    def moved(self, key: str, a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor | None:
        """B's tensor in A's order; both are counted in."""
        self.seen[0].add(self.names[0].get(key, ""), a)
        if b is None:
            return None
        of_b = self.pairs[key]
        self.seen[1].add(self.names[1].get(of_b, ""), b)
        return moved(self.moves, of_b, b, self.checkpoints[1].read)

    def refuse_other_weights(self) -> None:
        matched = (self.perms.origin.weights_a, self.perms.origin.weights_b)
        for whose, checkpoint, before, now in zip("AB", self.checkpoints, matched, self.seen, strict=True):
            refuse_other_weights(whose, checkpoint.path, before, now)


def _weights_of(
    keys: Mapping[str, Any], weights: Weights, tensor_weights: Mapping[str, Weights] | None
) -> dict[str, Weights]:
    """Weights of every key, those of single tensors included. Raises UsageError."""
    tensor_weights = tensor_weights or {}
    for pair in (weights, *tensor_weights.values()):
        if len(pair) != 2 or not all(math.isfinite(w) for w in pair):
            raise UsageError(f"weights {pair!r}: two finite numbers are needed, of A and of B.")
    for glob in tensor_weights:
        if not any(fnmatchcase(key, glob) for key in keys):
            raise UsageError(f"weights for {glob!r}: no tensor matches.{nearest(glob, keys)}")
    of_key = {}
    for key in keys:
        matching = [pair for glob, pair in tensor_weights.items() if fnmatchcase(key, glob)]
        of_key[key] = matching[-1] if matching else weights
    return {key: (float(a), float(b)) for key, (a, b) in of_key.items()}
