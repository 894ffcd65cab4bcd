"""Weighted averages of two models, `w_A · A + w_B · B` (Wortsman et al., Model soups, 2022).

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import FileError, UsageError, nearest
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.weights.apply import applied_step, find_moves, gather, refuse_twice
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint, refuse_quantised
from permgraph.weights.names import canonical, first, match_names
from permgraph.weights.output import write_like
from permgraph.weights.safetensors_io import Info

Weights = tuple[float, float]


def merge(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    weights: Weights = (0.9, 0.1),
    *,
    dtype: torch.dtype | None = None,
    overrides: Mapping[str, Weights] | None = None,
    allow_nonfinite: bool = False,
) -> dict[str, torch.Tensor]:
    """The weighted sum of two state dicts with the same tensors; keys as A names them, a new dict.

    weights    share of A and of B
    dtype      of the floating-point results; A's, tensor by tensor, when not given
    overrides  glob on A's keys → weights of the tensors it matches; the last match wins
    Raises FileError for differing keys or shapes and for NaN or inf, UsageError for weights.
    """
    shares = _shares(state_a, weights, overrides)
    pairs = _same_names(state_a, state_b)
    _check_shapes(state_a, state_b, pairs)
    done: dict[tuple[int, int, Weights], torch.Tensor] = {}  # a tensor tied in both stays tied
    result = {}
    for key, a in state_a.items():
        b = state_b[pairs[key]]
        identity = (a.data_ptr(), b.data_ptr(), shares[key]) if a.numel() else None
        if identity is None or identity not in done or done[identity].shape != a.shape:
            merged = interpolate(key, a, b, shares[key], dtype, allow_nonfinite)
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
    overrides: Mapping[str, Weights] | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
    force: bool = False,
    extra: Mapping[str, bytes] | None = None,
    checked: Mapping[str, Any] | None = None,
) -> Path:
    """`merge` from disk to disk, permuting B on the way, one tensor at a time. Returns `out`.

    The result has A's layout, keys and small files, and is safetensors. With a plan, tensors that it does
    not know (a head) are merged when both files have them in one shape, and A's otherwise; without one, both
    files must have the same tensors. `extra` adds small files to a folder (a model card), `checked` says in the
    record what became of the function check.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    a, b = open_checkpoint(path_a), open_checkpoint(path_b)
    record: dict[str, Any] = {"made_by": "merge", "weights": list(weights)}
    moves: Mapping[str, Any] = {}
    if plan is not None and perms is not None:
        moves = find_moves(plan, perms, b.infos, str(path_b), ignore_unexpected=ignore_unexpected)
        pairs = _planned_names(plan, a, b, ignore_unexpected)
        step = applied_step(plan, perms)
        refuse_twice(b, step)
        record["b"] = step
        if checked is not None:
            record["function_check"] = dict(checked)
    else:
        refuse_quantised(a.infos, str(path_a))
        refuse_quantised(b.infos, str(path_b))
        pairs = _same_names(a.infos, b.infos)
    _check_shapes(a.infos, b.infos, pairs)
    shares = _shares(a.infos, weights, overrides)
    for checkpoint in (a, b):
        checkpoint.verify()

    def read(key: str) -> torch.Tensor:
        if key not in pairs:
            return a.read(key)
        moved = gather(b.read(pairs[key]), moves.get(pairs[key], ()))
        return interpolate(key, a.read(key), moved, shares[key], dtype, allow_nonfinite)

    infos = {
        key: Info(info.shape, _result_dtype(info.dtype, dtype) if key in pairs else info.dtype)
        for key, info in a.infos.items()
    }
    return write_like(a, Path(out), infos, read, record, force=force, inputs=(b.path,), extra=extra)


def interpolate(
    key: str,
    a: torch.Tensor,
    b: torch.Tensor,
    weights: Weights,
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
) -> torch.Tensor:
    """`w_A · a + w_B · b` of two tensors of one shape; a new tensor. Raises FileError for NaN or inf."""
    a, b = a.detach(), b.detach()
    if not _is_inexact(a.dtype):
        return a.clone()
    if a.element_size() == 1 or b.element_size() == 1:
        raise FileError(f"{key}: {a.dtype} and {b.dtype}: float8 cannot be averaged. Dequantise first.")
    if not _is_inexact(b.dtype):
        raise FileError(f"{key}: {a.dtype} in A and {b.dtype} in B cannot be averaged.")
    if not allow_nonfinite:
        _refuse_nonfinite(key, a, "A")
        _refuse_nonfinite(key, b, "B")
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    merged = (a.to(wide) * weights[0]).add_(b.to(a.device, wide), alpha=weights[1])
    merged = merged.to(_result_dtype(a.dtype, dtype))
    if not allow_nonfinite:
        _refuse_nonfinite(key, merged, f"the result ({merged.dtype} is too narrow)")
    return merged


def _result_dtype(of_a: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return wanted if wanted is not None and of_a.is_floating_point else of_a


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _refuse_nonfinite(key: str, tensor: torch.Tensor, whose: str) -> None:
    count = tensor.numel() - int(torch.isfinite(tensor).sum())
    if count:
        raise FileError(f"{key}: {count:,} of {tensor.numel():,} values are NaN or inf in {whose}.")


def _shares(
    keys: Mapping[str, Any], weights: Weights, overrides: Mapping[str, Weights] | None
) -> dict[str, Weights]:
    """Weights of every key, overrides included. Raises UsageError."""
    overrides = overrides or {}
    for pair in (weights, *overrides.values()):
        if len(pair) != 2 or not all(math.isfinite(w) for w in pair):
            raise UsageError(f"weights {pair!r}: two finite numbers are needed, the share of A and of B.")
    for glob in overrides:
        if not any(fnmatchcase(key, glob) for key in keys):
            raise UsageError(f"weights for {glob!r}: no tensor matches.{nearest(glob, keys)}")
    shares = {}
    for key in keys:
        matching = [pair for glob, pair in overrides.items() if fnmatchcase(key, glob)]
        shares[key] = matching[-1] if matching else weights
    return {key: (float(a), float(b)) for key, (a, b) in shares.items()}


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


def _planned_names(plan: Plan, a: Checkpoint, b: Checkpoint, ignore: Sequence[str]) -> dict[str, str]:
    """A's key → B's key through the plan's names; further keys that both have in one shape go together."""
    names = []
    for checkpoint in (a, b):
        refuse_quantised(checkpoint.infos, str(checkpoint.path))
        tables = [k for k, i in checkpoint.infos.items() if not _is_inexact(i.dtype)]
        names.append(
            match_names(plan.spec, checkpoint.shapes, str(checkpoint.path), None, [*ignore, *tables])
        )
    of_b = {name: key for key, name in names[1].items()}
    pairs = {key: of_b[name] for key, name in names[0].items() if name in of_b}
    rest = {canonical(key): key for key in b.shapes if key not in names[1]}
    for key in a.shapes:
        other = rest.get(canonical(key))
        if key not in names[0] and other is not None and a.shapes[key] == b.shapes[other]:
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
