"""Weighted averages of two models, `w_A · A + w_B · B` (Wortsman et al., Model soups, 2022).

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's, and have to hold the same values in B. Weights that the network computes from parts (weight norm,
spectral norm) are averaged as computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, UsageError, nearest
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.weights.apply import applied_step, find_moves
from permgraph.weights.average import Average, Side, Weights, result_dtype
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.computed import layers_in
from permgraph.weights.dtypes import dtype_of, is_inexact
from permgraph.weights.names import match_names
from permgraph.weights.output import write_like
from permgraph.weights.pairing import check_shapes, planned_pairs, same_names, tied_as_in_a
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.record import Merging, Record, version
from permgraph.weights.refusals import (
    LATER,
    refuse_other_result,
    refuse_other_stored,
    refuse_other_weights,
    refuse_twice,
)
from permgraph.weights.safetensors_io import Info
from permgraph.weights.source import Source, open_planned
from permgraph.weights.tensors import held_by, tensor_of

if TYPE_CHECKING:
    import torch


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
    target = None if dtype is None else dtype_of(dtype)
    pair = Average(
        of_key,
        layers_in(state_a, parametrized),
        parametrized,
        lambda key: (_side(key, state_a[key]), _side(key, of_b[key])),
        target,
        allow_nonfinite,
        integers_of_a,
    )
    done: dict[Any, torch.Tensor] = {}  # what is one tensor in A is one in the result
    result = {}
    for key, a in state_a.items():
        if tied.get(key, key) not in done:
            (held,) = pair.blocks(key)
            made = dtype_of(a.dtype)
            assert made is not None
            kind = result_dtype(made, target) if is_inexact(made) else made
            fresh = held.copy() if not held.flags.owndata else held
            done[tied.get(key, key)] = tensor_of(fresh, kind).to(a.device)
        result[key] = done[tied.get(key, key)]
    return result


def _side(key: str, tensor: Any) -> Side:
    """A tensor in memory, read whole."""
    held, dtype = held_by(tensor)
    if dtype is None:
        raise FileError(f"{key}: {tensor.dtype} tensors are not averaged.")
    return Side(held.shape, dtype, lambda rows: held if rows is None else held[rows])


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
    like: str | Path | None = None,
) -> Path:
    """`merge` from disk to disk, permuting B on the way, one tensor at a time. Returns `out`.

    The result has A's layout, keys and small files, and is safetensors. With a plan, tensors that it does
    not know (a head) are merged when both files have them in one shape, and A's otherwise; without one, both
    files must have the same tensors. `extra` adds small files to a folder (a model card), `checked` says in the
    record what became of the function check.
    Weights other than those that were matched are refused unless `other_weights`, integers and booleans that differ
    unless `integers_of_a`. `parametrized` is as for `merge`; `state` says which weights of single files, as for
    `open_checkpoint`. `like` is an earlier result, which has to come out again: all else is refused.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    matched = (perms.origin.weights_a, perms.origin.weights_b) if perms and not other_weights else ("", "")
    a, b = (
        open_planned(plan, path, "" if Path(path).is_dir() else state, known)
        if plan
        else open_checkpoint(path, "" if Path(path).is_dir() else state)
        for path, known in zip((path_a, path_b), matched, strict=True)
    )
    for checkpoint in (a, b):
        refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    step = None
    if plan is not None and perms is not None:
        read = _aligned(plan, perms, a, b, ignore_unexpected)
        step = applied_step(plan, perms)
        pairs = planned_pairs(a, b, read[0].names, read[1].names)
    else:
        read = (Source(a, {}), Source(b, {}))
        pairs = same_names(a.infos, b.infos)
    check_shapes(a.infos, b.infos, pairs)
    of_key = _weights_of(a.infos, weights, tensor_weights)
    for source in read:
        source.checkpoint.verify()
        if plan is not None:
            refuse_other_stored(plan, source.checkpoint, source.names)
    target = None if dtype is None else dtype_of(dtype)
    pair = Average(
        of_key,
        layers_in(pairs, parametrized),
        parametrized,
        lambda key: (read[0].side(key), read[1].side(pairs[key]) if key in pairs else None),
        target,
        allow_nonfinite,
        integers_of_a,
        block=None,
    )

    def finish(written: Path) -> None:
        for whose, source, known in zip("AB", read, matched, strict=True):
            if known:
                source.read_rest()
                advice = LATER if like is None else f"Give the {whose} that {like} was merged from."
                refuse_other_weights(whose, source.checkpoint.path, known, source.weights, advice)
        if like is not None:
            refuse_other_result(
                open_checkpoint(like, converted=False), open_checkpoint(written, converted=False)
            )

    infos = {
        key: Info(info.shape, result_dtype(info.dtype, target) if key in pairs else info.dtype)
        for key, info in a.infos.items()
    }
    record = Record(
        "merge",
        weights=tuple(map(float, weights)),
        b=step,
        merging=Merging(
            matched if all(matched) else (),
            {key: pair for key, pair in of_key.items() if pair != tuple(weights)},
            parametrized,
            integers_of_a,
            state,
            _named(dtype=dtype, ignore_unexpected=ignore_unexpected, allow_nonfinite=allow_nonfinite),
            version(),
        ),
        function_check=None if checked is None else dict(checked),
    )
    return write_like(
        a,
        Path(out),
        infos,
        pair.blocks,
        record,
        force=force,
        inputs=(b.path,),
        extra=extra,
        finish=finish,
    )


def _named(**options: object) -> tuple[str, ...]:
    """The options that were given."""
    return tuple(name for name, value in options.items() if value)


def _aligned(
    plan: Plan, perms: Permutations, a: Checkpoint, b: Checkpoint, ignore: Sequence[str]
) -> tuple[Source, Source]:
    """A, and B on its way to A."""
    names_b, moves = find_moves(plan, perms, b.infos, str(b.path), ignore_unexpected=ignore)
    tables = [k for k, i in a.infos.items() if not is_inexact(i.dtype)]
    names_a = match_names(plan.spec, a.shapes, str(a.path), None, [*ignore, *tables])
    for checkpoint in (a, b):
        refuse_twice(checkpoint, applied_step(plan, perms))
    return Source(a, names_a, Fingerprint(plan.spec)), Source(b, names_b, Fingerprint(plan.spec), moves)


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
