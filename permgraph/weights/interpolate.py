"""Weighted averages of two models, `w_A · A + w_B · B` (Wortsman et al., Model soups, 2022).

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's, and have to hold the same values in B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import FileError, UsageError, nearest
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.names import canonical
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.planning.gather import Gather, apply_gathers
from permgraph.weights.apply import (
    applied_step,
    find_moves,
    refuse_nonfinite,
    refuse_other_stored,
    refuse_other_weights,
    refuse_twice,
)
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint, refuse_quantised
from permgraph.weights.names import first, match_names
from permgraph.weights.output import write_like
from permgraph.weights.record import Applied, Record
from permgraph.weights.safetensors_io import Info

Weights = tuple[float, float]


def merge(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    weights: Weights = (0.9, 0.1),
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
) -> dict[str, torch.Tensor]:
    """The weighted sum of two state dicts with the same tensors; keys as A names them, a new dict.

    weights         of A and of B
    dtype           of the floating-point results; A's, tensor by tensor, when not given
    tensor_weights  glob on A's keys → weights of the tensors it matches; the last match wins
    integers_of_a   take A's integers and booleans where B holds others, instead of refusing
    Raises FileError for differing keys, shapes or integers and for NaN or inf, UsageError for weights.
    """
    of_key = _weights_of(state_a, weights, tensor_weights)
    pairs = _same_names(state_a, state_b)
    _check_shapes(state_a, state_b, pairs)
    done: dict[tuple[int, int, Weights], torch.Tensor] = {}  # a tensor tied in both stays tied
    result = {}
    for key, a in state_a.items():
        b = state_b[pairs[key]]
        identity = (a.data_ptr(), b.data_ptr(), of_key[key]) if a.numel() else None
        if identity is None or identity not in done or done[identity].shape != a.shape:
            merged = interpolate(key, a, b, of_key[key], dtype, allow_nonfinite, integers_of_a)
            if identity is not None:
                done[identity] = merged
            result[key] = merged
        else:
            result[key] = done[identity]
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
    extra: Mapping[str, bytes] | None = None,
    checked: Mapping[str, Any] | None = None,
) -> Path:
    """`merge` from disk to disk, permuting B on the way, one tensor at a time. Returns `out`.

    The result has A's layout, keys and small files, and is safetensors. With a plan, tensors that it does
    not know (a head) are merged when both files have them in one shape, and A's otherwise; without one, both
    files must have the same tensors. `extra` adds small files to a folder (a model card), `checked` says in the
    record what became of the function check.
    Weights other than those that were matched are refused unless `other_weights`, integers and booleans that differ
    unless `integers_of_a`.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    a, b = open_checkpoint(path_a), open_checkpoint(path_b)
    for checkpoint in (a, b):
        refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    aligned = None
    if plan is not None and perms is not None:
        aligned = _Aligned.of(plan, perms, a, b, ignore_unexpected)
    pairs = aligned.pairs if aligned else _same_names(a.infos, b.infos)
    _check_shapes(a.infos, b.infos, pairs)
    of_key = _weights_of(a.infos, weights, tensor_weights)
    for checkpoint in (a, b):
        checkpoint.verify()
    if plan is not None and aligned is not None:
        for checkpoint, names in zip((a, b), aligned.names, strict=True):
            refuse_other_stored(plan, checkpoint, names)

    def read(key: str) -> torch.Tensor:
        of_a = a.read(key)
        of_b = b.read(pairs[key]) if key in pairs else None
        if aligned is not None:
            of_b = aligned.moved(key, of_a, of_b)
        if of_b is None:
            return of_a
        return interpolate(key, of_a, of_b, of_key[key], dtype, allow_nonfinite, integers_of_a)

    def finish() -> None:
        if aligned is not None and not other_weights:
            aligned.refuse_other_weights()

    infos = {
        key: Info(info.shape, _result_dtype(info.dtype, dtype) if key in pairs else info.dtype)
        for key, info in a.infos.items()
    }
    record = Record(
        "merge",
        weights=tuple(map(float, weights)),
        b=aligned.step if aligned else None,
        function_check=None if checked is None else dict(checked),
    )
    return write_like(
        a, Path(out), infos, read, record, force=force, inputs=(b.path,), extra=extra, finish=finish
    )


@dataclass(frozen=True)
class _Aligned:
    """B on its way to A: which tensors go together, what moves, and the weights seen so far."""

    perms: Permutations
    step: Applied
    checkpoints: tuple[Checkpoint, Checkpoint]
    names: tuple[Mapping[str, str], Mapping[str, str]]
    moves: Mapping[str, list[Gather]]
    pairs: Mapping[str, str]
    seen: tuple[Fingerprint, Fingerprint]

    @classmethod
    def of(
        cls, plan: Plan, perms: Permutations, a: Checkpoint, b: Checkpoint, ignore: Sequence[str]
    ) -> _Aligned:
        names_b, moves = find_moves(plan, perms, b.infos, str(b.path), ignore_unexpected=ignore)
        tables = [k for k, i in a.infos.items() if not _is_inexact(i.dtype)]
        names_a = match_names(plan.spec, a.shapes, str(a.path), None, [*ignore, *tables])
        step = applied_step(plan, perms)
        refuse_twice(b, step)
        pairs = _planned_pairs(a, b, names_a, names_b)
        seen = (Fingerprint(plan.spec), Fingerprint(plan.spec))
        return cls(perms, step, (a, b), (names_a, names_b), moves, pairs, seen)

    def moved(self, key: str, a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor | None:
        """B's tensor in A's order; both are counted in."""
        self.seen[0].add(self.names[0].get(key, ""), a)
        if b is None:
            return None
        of_b = self.pairs[key]
        self.seen[1].add(self.names[1].get(of_b, ""), b)
        return apply_gathers(b, self.moves.get(of_b, ()))

    def refuse_other_weights(self) -> None:
        matched = (self.perms.origin.weights_a, self.perms.origin.weights_b)
        for whose, checkpoint, before, now in zip("AB", self.checkpoints, matched, self.seen, strict=True):
            refuse_other_weights(whose, checkpoint.path, before, now)


def interpolate(
    key: str,
    a: torch.Tensor,
    b: torch.Tensor,
    weights: Weights,
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
) -> torch.Tensor:
    """`w_A · a + w_B · b` of two tensors of one shape; a new tensor. Raises FileError for NaN, inf, or integers that
    differ."""
    a, b = a.detach(), b.detach()
    if not _is_inexact(a.dtype):
        if not integers_of_a:
            _refuse_other_integers(key, a, b)
        return a.clone()
    if a.element_size() == 1 or b.element_size() == 1:
        raise FileError(f"{key}: {a.dtype} and {b.dtype}: float8 cannot be averaged. Dequantise first.")
    if not _is_inexact(b.dtype):
        raise FileError(f"{key}: {a.dtype} in A and {b.dtype} in B cannot be averaged.")
    if not allow_nonfinite:
        refuse_nonfinite(key, a, "A")
        refuse_nonfinite(key, b, "B")
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    merged = (a.to(wide) * weights[0]).add_(b.to(a.device, wide), alpha=weights[1])
    merged = merged.to(_result_dtype(a.dtype, dtype))
    if not allow_nonfinite:
        refuse_nonfinite(key, merged, f"the result ({merged.dtype} is too narrow)")
    return merged


def _result_dtype(of_a: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and of_a.is_floating_point else of_a


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _refuse_other_integers(key: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """A single number is a counter; several are an order, a mask or a table, which the other weights rely on."""
    if a.numel() > 1 and not torch.equal(a, b.to(a.device, a.dtype)):
        count = int((a != b.to(a.device, a.dtype)).sum())
        raise FileError(
            f"{key}: {count:,} of {a.numel():,} {a.dtype} values differ in A and B. Orders, masks and tables say what the "
            "other weights mean, so these cannot be averaged. If A's are right for both, pass integers_of_a=True "
            "(--integers-of-a)."
        )


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


def _same_names(tensors_a: Mapping[str, Any], tensors_b: Mapping[str, Any]) -> dict[str, str]:
    """A's key → B's key, the spelling of weight norm aside. Raises FileError when a tensor has no partner."""
    of_b = {canonical(key): key for key in tensors_b}
    only_a = [key for key in tensors_a if canonical(key) not in of_b]
    of_a = {canonical(key) for key in tensors_a}
    only_b = [key for plain, key in of_b.items() if plain not in of_a]
    if only_a or only_b:
        parts = [f"only in {w}: {first(keys)}" for w, keys in (("A", only_a), ("B", only_b)) if keys]
        raise FileError(
            f"the models do not have the same tensors; {len(only_a) + len(only_b)} without a partner; "
            f"{'; '.join(parts)}. Two models of one architecture are needed."
        )
    return {key: of_b[canonical(key)] for key in tensors_a}


def _planned_pairs(
    a: Checkpoint, b: Checkpoint, names_a: Mapping[str, str], names_b: Mapping[str, str]
) -> dict[str, str]:
    """A's key → B's key through the plan's names; further keys that both have in one shape go together."""
    of_b = {name: key for key, name in names_b.items()}
    pairs = {key: of_b[name] for key, name in names_a.items() if name in of_b}
    rest = {canonical(key): key for key in b.shapes if key not in names_b}
    for key in a.shapes:
        other = rest.get(canonical(key))
        if key not in names_a and other is not None and a.shapes[key] == b.shapes[other]:
            pairs[key] = other
    return pairs


def _check_shapes(
    tensors_a: Mapping[str, Any], tensors_b: Mapping[str, Any], pairs: Mapping[str, str]
) -> None:
    wrong = [
        f"{key}: {tuple(tensors_a[key].shape)} in A, {tuple(tensors_b[other].shape)} in B"
        for key, other in pairs.items()
        if tuple(tensors_a[key].shape) != tuple(tensors_b[other].shape)
    ]
    if wrong:
        raise FileError(f"{len(wrong)} tensors differ in shape: {first(wrong)}.")
