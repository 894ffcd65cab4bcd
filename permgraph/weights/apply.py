"""Apply a plan's permutations to weights: gathers only, no arithmetic, so every dtype is kept bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from permgraph.errors import FileError, PlanError
from permgraph.ir.check_plan import check_permutations, check_plan
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.values import refuse_other_values
from permgraph.planning.gather import gathers
from permgraph.planning.moves import Move, moves_of
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.names import first, match_names
from permgraph.weights.output import refuse_out, write_like
from permgraph.weights.quantised import refuse_quantised_config
from permgraph.weights.record import Applied, Record

T = TypeVar("T", torch.Tensor, NDArray[Any])


def apply(
    plan: Plan,
    perms: Permutations,
    state_dict: Mapping[str, T],
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> dict[str, T]:
    """A new state dict, permuted; torch tensors or numpy arrays. The input is not modified, nor shared.

    Keys stay as they are named (see `match_names` for the spellings that are understood). Tensors that were
    tied, one storage under two keys, are tied in the result. Raises PlanError, and FileError, also for NaN and infinity
    unless `allow_nonfinite`.
    """
    names, moves = find_moves(plan, perms, state_dict, "state dict", prefix, ignore_unexpected)
    refuse_other_values(plan.spec, {name: state_dict[key] for key, name in names.items()}, "state dict")
    done: dict[Any, T] = {}
    move: Move
    result: dict[str, T] = {}
    for key in state_dict:
        tensor: T = state_dict[key]
        move = moves.get(key, Move((key,), 0, ()))
        identity = (*(_storage(state_dict[source]) for source in move.sources), move.key)
        if identity not in done:
            if not allow_nonfinite:
                refuse_nonfinite(key, tensor, "the weights")
            done[identity] = move.of(state_dict.__getitem__)
        result[key] = done[identity]
    return result


def unapply(
    plan: Plan,
    perms: Permutations,
    state_dict: Mapping[str, T],
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> dict[str, T]:
    """Undo `apply` with the same arguments, bit for bit. Raises PlanError, FileError."""
    check_permutations(plan, perms)
    undone = perms.inverse(plan.spec)
    return apply(plan, undone, state_dict, prefix, ignore_unexpected, allow_nonfinite)


def apply_checkpoint(
    plan: Plan,
    perms: Permutations,
    source: str | Path,
    out: str | Path,
    force: bool = False,
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
    function_check: Callable[[], Mapping[str, Any]] | None = None,
    other_weights: bool = False,
    allow_nonfinite: bool = False,
    state: str = "",
    undo: bool = False,
) -> Path:
    """Permute a checkpoint file or folder into `out`, tensor by tensor, as safetensors. Returns `out`.

    `out` appears whole or not at all, and only when all checks have passed. The result records what was applied;
    applying it again to the result is refused, and so is a checkpoint with other weights than those that were matched,
    unless `other_weights`: a later state of that model, fine-tuned say. Raises PlanError, FileError.

    function_check   runs after all other checks; what it returns goes into the record
    allow_nonfinite  carry NaN and infinity through, instead of refusing them
    state            which weights of a file that holds several, as for `open_checkpoint`
    undo             take back what was applied last, which has to be these permutations: the weights are as before
    """
    checkpoint = open_checkpoint(source, state)
    refuse_quantised_config(checkpoint.config, str(source))
    refuse_out(checkpoint, Path(out), force)
    check_permutations(plan, perms)
    used = perms.inverse(plan.spec) if undo else perms
    names, moves = find_moves(plan, used, checkpoint.infos, str(source), prefix, ignore_unexpected)
    step = applied_step(plan, perms)
    (refuse_not_applied if undo else refuse_twice)(checkpoint, step)
    checkpoint.verify()
    refuse_other_stored(plan, checkpoint, names)
    before = checkpoint.record or Record("apply")
    checked = dict(function_check()) if function_check else None
    weights = Fingerprint(plan.spec)

    def read(key: str) -> torch.Tensor:
        tensor = checkpoint.read(key)
        if not allow_nonfinite:
            refuse_nonfinite(key, tensor, str(source))
        result = moved(moves, key, tensor, checkpoint.read)
        weights.add(names.get(key, ""), result if undo else tensor)
        return result

    def finish() -> None:
        if not other_weights:
            refuse_other_weights("B", source, perms.origin.weights_b, weights)

    applied = before.applied[:-1] if undo else (*before.applied, step)
    record = replace(before, made_by="unapply" if undo else "apply", applied=applied, function_check=checked)
    return write_like(checkpoint, Path(out), checkpoint.infos, read, record, force=force, finish=finish)


def moved(
    moves: Mapping[str, Move], key: str, tensor: torch.Tensor, read: Callable[[str], torch.Tensor]
) -> torch.Tensor:
    """The tensor stored under `key` after its move; `read` is asked for what else that needs."""
    move = moves.get(key)
    return tensor if move is None else move.of(lambda name: tensor if name == key else read(name))


def find_moves(
    plan: Plan,
    perms: Permutations,
    tensors: Mapping[str, Any],
    where: str,
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
) -> tuple[dict[str, str], dict[str, Move]]:
    """Stored key → the plan's name, and → its move, in stored keys, after every check that needs no weights.

    `tensors` maps keys to anything with a shape and a dtype. Raises PlanError, FileError.
    """
    check_plan(plan)
    check_permutations(plan, perms)
    found = gathers(plan, perms)
    shapes = {key: tuple(t.shape) for key, t in tensors.items()}
    tables = [key for key, t in tensors.items() if _is_integer(t.dtype)]  # position ids, counters
    stored = match_names(plan.spec, shapes, where, prefix, [*ignore_unexpected, *tables])
    if any(s.tensor.startswith("output:") for s in plan.steps):
        heads = [k for k in tensors if k not in stored and k not in tables and k not in ignore_unexpected]
        if heads:
            raise PlanError(
                f"{where}: the plan re-orders the network's output, which {first(heads)} may read but the "
                "plan does not know. Plan the whole model, or leave the output in order."
            )
    by_name = moves_of(plan.spec, found)
    keys = {name: key for key, name in reversed(stored.items())}
    moves = {
        key: _stored_move(by_name[name], keys, key, tensors, where)
        for key, name in stored.items()
        if name in by_name
    }
    packed = [key for key in moves if str(tensors[key].dtype).endswith("int8")]
    if packed:
        raise FileError(
            f"{where}: quantised ({packed[0]!r} is {tensors[packed[0]].dtype}); re-ordering channels would tear scales "
            "and packed values apart. Permute the unquantised checkpoint, then quantise."
        )
    return stored, moves


def _stored_move(
    move: Move, keys: Mapping[str, str], key: str, tensors: Mapping[str, Any], where: str
) -> Move:
    """A move in the keys of a checkpoint. Raises FileError where it needs what is not there, or of another dtype."""
    if len(move.sources) == 1 and keys.get(move.sources[0]) in (key, None):
        return replace(move, sources=(key,))
    missing = [name for name in move.sources if name not in keys]
    if missing:
        raise FileError(f"{where}: {key!r} takes the place of {missing[0]!r}, which is not there.")
    move = move.named(keys)
    other = [s for s in move.sources if tensors[s].dtype != tensors[key].dtype]
    if other:
        raise FileError(
            f"{where}: {key!r} and {other[0]!r} may change places, and are of different dtypes "
            f"({tensors[key].dtype}, {tensors[other[0]].dtype}). Store them in one dtype."
        )
    return move


def applied_step(plan: Plan, perms: Permutations) -> Applied:
    """The digests that a result records: of the plan, and of the permutations it uses."""
    return Applied(plan.digest, perms.digest)


def refuse_other_stored(plan: Plan, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
    """Refuse a checkpoint whose integer state is not the one that the plan follows. Raises PlanError.

    names   stored key → the plan's name
    """
    tables = {name: checkpoint.read(key) for key, name in names.items() if name in plan.spec.values}
    refuse_other_values(plan.spec, tables, str(checkpoint.path))


def refuse_other_weights(whose: str, where: object, matched: str, weights: Fingerprint) -> None:
    """Refuse weights other than those that were matched, where both are known. Raises PlanError."""
    if matched and weights.text and matched != weights.text:
        raise PlanError(
            f"{where}: the permutations were matched on other weights as {whose} (fingerprint {matched[:12]}…, these have "
            f"{weights.text[:12]}…). Match again; or pass --other-weights when these are a later state of that model."
        )


def refuse_twice(checkpoint: Checkpoint, step: Applied) -> None:
    """Refuse a checkpoint to which these permutations were already applied, or into which they merged B. Raises PlanError."""
    record = checkpoint.record
    if record is not None and step == record.b:
        raise PlanError(
            f"{checkpoint.path}: was merged with this plan and these permutations already (permutations "
            f"{step.permutations[:8]}…). Merge the originals instead."
        )
    if record is not None and step in record.applied:
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations was already applied to it "
            f"(permutations {step.permutations[:8]}…). Apply it to the original instead."
        )


def refuse_not_applied(checkpoint: Checkpoint, step: Applied) -> None:
    """Refuse a checkpoint to which these permutations were not the last to be applied. Raises PlanError."""
    if checkpoint.record is None or checkpoint.record.applied[-1:] != (step,):
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations is not what was applied to it last, so it cannot be "
            "undone. Give what permgraph apply wrote, with the same plan and permutations."
        )


def refuse_nonfinite(key: str, tensor: Any, whose: str) -> None:
    """Refuse NaN and infinity in a torch tensor or an array. Raises FileError."""
    if isinstance(tensor, torch.Tensor):
        if (
            tensor.is_meta
            or not (tensor.is_floating_point() or tensor.is_complex())
            or _sum_is_finite(tensor)
        ):
            return
        wide = tensor.float() if tensor.element_size() == 1 else tensor  # float8 has no test of its own
        count = tensor.numel() - int(torch.isfinite(wide).sum())
    else:
        count = 0 if _is_integer(tensor.dtype) else int((~np.isfinite(tensor)).sum())
    if count:
        raise FileError(f"{key}: {count:,} of {math.prod(tensor.shape):,} values are NaN or inf in {whose}.")


def _sum_is_finite(tensor: torch.Tensor) -> bool:
    """Then all of its values are: NaN and infinity stay in every sum. Ten times as fast as a test of each."""
    if tensor.element_size() == 1:  # float8 has no sum
        return False
    wide = torch.float32 if tensor.element_size() == 2 else tensor.dtype
    return bool(torch.isfinite(tensor.sum(dtype=wide)))


def _storage(tensor: Any) -> tuple[Any, ...]:
    """Equal for two tensors that are the same memory seen the same way."""
    if isinstance(tensor, np.ndarray):
        return tensor.__array_interface__["data"][0], tensor.shape, tensor.strides, tensor.dtype.str
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return (id(tensor),)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _is_integer(dtype: Any) -> bool:
    if isinstance(dtype, torch.dtype):
        return not (dtype.is_floating_point or dtype.is_complex)
    return bool(np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.bool_))
