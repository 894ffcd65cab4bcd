"""Weighted averages of models, `w_A · A + w_B · B + …` (Wortsman et al., Model soups, 2022).

The sum is taken in float32 (float64 where a tensor is float64) and written in A's dtype. Buffers of integers
and booleans are A's, and have to hold the same values in all. Weights that the network computes from parts (weight norm,
spectral norm) are averaged as computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, PlanError, UsageError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.names import letter
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.weights.apply import applied_step, find_moves
from permgraph.weights.average import Average, Side, Weights, result_dtype, weights_of
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.computed import layers_in
from permgraph.weights.dtypes import dtype_of, is_inexact
from permgraph.weights.names import match_names
from permgraph.weights.output import write_like
from permgraph.weights.pairing import check_shapes, planned_pairs, same_names, tied_as_in_a
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.record import Applied, Merging, Record, version
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
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Of two state dicts; see `merge_states`."""
    return merge_states((state_a, state_b), weights, **options)


def merge_states(
    states: Sequence[Mapping[str, torch.Tensor]],
    weights: Weights,
    *,
    dtype: torch.dtype | None = None,
    tensor_weights: Mapping[str, Weights] | None = None,
    allow_nonfinite: bool = False,
    integers_of_a: bool = False,
    parametrized: str = "weight",
) -> dict[str, torch.Tensor]:
    """The weighted sum of state dicts with the same tensors; keys as the first, A, names them, a new dict.

    Tensors that are tied in A stay tied: where another's are not, these are averaged first, and a warning says so.

    weights         of A, of B, and so on
    dtype           of the floating-point results; A's, tensor by tensor, when not given
    tensor_weights  glob on A's keys → weights of the tensors it matches; the last match wins
    integers_of_a   take A's integers and booleans where others hold others, instead of refusing
    parametrized    of weights computed from parts: "weight" averages what is computed, "direction" the same with the
                    interpolated norm, "parts" each stored tensor for itself
    Raises FileError for differing keys, shapes or integers and for NaN or inf, UsageError for weights.
    """
    state_a, *others = states
    of_key = weights_of(state_a, weights, tensor_weights, len(states))
    tied = {
        key: (a.data_ptr(), a.shape, a.stride()) for key, a in state_a.items() if a.numel() and not a.is_meta
    }
    same = []
    for number, other in enumerate(others, 1):
        pairs = same_names(state_a, other, letter(number))
        check_shapes(state_a, other, pairs, letter(number))
        named = {key: other[theirs] for key, theirs in pairs.items()}
        same.append(tied_as_in_a(tied, named, of_key, letter(number)))
    target = None if dtype is None else dtype_of(dtype)
    average = Average(
        of_key,
        layers_in(state_a, parametrized),
        parametrized,
        lambda key: [_side(key, state[key]) for state in (state_a, *same)],
        target,
        allow_nonfinite,
        integers_of_a,
    )
    done: dict[Any, torch.Tensor] = {}  # what is one tensor in A is one in the result
    result = {}
    for key, a in state_a.items():
        if tied.get(key, key) not in done:
            (held,) = average.blocks(key)
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
    **options: Any,
) -> Path:
    """Of two models; see `merge_files`."""
    matched = None if perms is None else (perms,)
    return merge_files((path_a, path_b), out, weights, plan=plan, perms=matched, **options)


def merge_files(
    paths: Sequence[str | Path],
    out: str | Path,
    weights: Weights,
    *,
    plan: Plan | None = None,
    perms: Sequence[Permutations] | None = None,
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
    """`merge_states` from disk to disk, permuting all but the first on the way, one tensor at a time. Returns `out`.

    The result has the layout, keys and small files of A, the first, and is safetensors. With a plan, which has permutations
    for each of the others, tensors that it does not know (a head) are merged when all files have them in one shape, and
    A's otherwise; without one, all files must have the same tensors. `extra` adds small files to a folder (a model card),
    `checked` says in the record what became of the function check.
    Weights other than those that were matched are refused unless `other_weights`, integers and booleans that differ
    unless `integers_of_a`. `parametrized` is as for `merge_states`; `state` says which weights of single files, as for
    `open_checkpoint`. `like` is an earlier result, which has to come out again: all else is refused.
    Raises FileError, PlanError, UsageError; then `out` is as it was.
    """
    if (plan is None) != (perms is None):
        raise UsageError("a plan needs its permutations, and permutations their plan: pass both or neither.")
    matched = [""] * len(paths) if perms is None or other_weights else _matched(perms, len(paths))
    opened = [
        open_planned(plan, path, "" if Path(path).is_dir() else state, known)
        if plan
        else open_checkpoint(path, "" if Path(path).is_dir() else state)
        for path, known in zip(paths, matched, strict=True)
    ]
    a, *others = opened
    for checkpoint in opened:
        refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    steps: tuple[Applied, ...] = ()
    if plan is not None and perms is not None:
        read = _aligned(plan, perms, opened, ignore_unexpected)
        steps = tuple(applied_step(plan, one) for one in perms)
        pairs = [planned_pairs(a, one.checkpoint, read[0].names, one.names) for one in read[1:]]
    else:
        read = [Source(one, {}) for one in opened]
        pairs = [same_names(a.infos, one.infos, letter(i)) for i, one in enumerate(others, 1)]
    for number, (other, pair) in enumerate(zip(others, pairs, strict=True), 1):
        check_shapes(a.infos, other.infos, pair, letter(number))
    of_key = weights_of(a.infos, weights, tensor_weights, len(paths))
    for source in read:
        source.checkpoint.verify()
        if plan is not None:
            refuse_other_stored(plan, source.checkpoint, source.names)
    target = None if dtype is None else dtype_of(dtype)
    shared = {key: None for key in pairs[0] if all(key in pair for pair in pairs)}
    average = Average(
        of_key,
        layers_in(shared, parametrized),
        parametrized,
        lambda key: [
            read[0].side(key),
            *(
                one.side(pair[key]) if key in pair else None
                for one, pair in zip(read[1:], pairs, strict=True)
            ),
        ],
        target,
        allow_nonfinite,
        integers_of_a,
        block=None,
    )

    def finish(written: Path) -> None:
        for number, (source, known) in enumerate(zip(read, matched, strict=True)):
            if known:
                source.read_rest()
                advice = LATER if like is None else f"Give the {letter(number)} that {like} was merged from."
                refuse_other_weights(letter(number), source.checkpoint.path, known, source.weights, advice)
        if like is not None:
            refuse_other_result(
                open_checkpoint(like, converted=False), open_checkpoint(written, converted=False)
            )

    infos = {
        key: Info(info.shape, result_dtype(info.dtype, target) if key in shared else info.dtype)
        for key, info in a.infos.items()
    }
    record = Record(
        "merge",
        weights=tuple(map(float, weights)),
        b=steps[0] if steps else None,
        others=steps[1:],
        merging=Merging(
            tuple(matched) if all(matched) else (),
            {key: own for key, own in of_key.items() if own != tuple(weights)},
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
        average.blocks,
        record,
        force=force,
        inputs=tuple(one.path for one in others),
        extra=extra,
        finish=finish,
    )


def _matched(perms: Sequence[Permutations], count: int) -> list[str]:
    """Fingerprints of the weights that were matched, of A and of each other. Raises PlanError where they differ on A."""
    if len(perms) != count - 1:
        raise UsageError(f"{len(perms)} permutations for {count} models: each but the first needs its own.")
    of_a = {one.origin.weights_a for one in perms}
    if len(of_a) > 1:
        raise PlanError("the permutations were matched to different models as A. Match them together again.")
    return [of_a.pop(), *(one.origin.weights_b for one in perms)]


def _named(**options: object) -> tuple[str, ...]:
    """The options that were given."""
    return tuple(name for name, value in options.items() if value)


def _aligned(
    plan: Plan, perms: Sequence[Permutations], opened: Sequence[Checkpoint], ignore: Sequence[str]
) -> list[Source]:
    """A, and the others on their way to A."""
    a, *others = opened
    found = []
    for one, other in zip(perms, others, strict=True):
        names, moves = find_moves(plan, one, other.infos, str(other.path), ignore_unexpected=ignore)
        found.append(Source(other, names, Fingerprint(plan.spec), moves))
    tables = [k for k, i in a.infos.items() if not is_inexact(i.dtype)]
    names_a = match_names(plan.spec, a.shapes, str(a.path), None, [*ignore, *tables])
    for one in perms:
        for checkpoint in opened:
            refuse_twice(checkpoint, applied_step(plan, one))
    return [Source(a, names_a, Fingerprint(plan.spec)), *found]
