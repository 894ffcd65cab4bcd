"""Apply a plan's permutations to weights: gathers only, no arithmetic, so every dtype is kept bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import FileError, PlanError
from permgraph.ir.check_plan import check_permutations, check_plan
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.values import refuse_other_values
from permgraph.planning.gather import gathers
from permgraph.planning.moves import Move, moves_of
from permgraph.weights.average import refuse_nonfinite
from permgraph.weights.beside_tensors import tensors_of, with_rest_of
from permgraph.weights.dtypes import Array, count_nonfinite, is_inexact
from permgraph.weights.names import first, stored_names
from permgraph.weights.output import refuse_out, write_like
from permgraph.weights.quantised import refuse_quantised_config
from permgraph.weights.record import Applied, Record
from permgraph.weights.refusals import (
    refuse_not_applied,
    refuse_other_stored,
    refuse_other_weights,
    refuse_twice,
)
from permgraph.weights.rows import blocks_of
from permgraph.weights.source import Source, open_planned
from permgraph.weights.tensors import held_by, numbers_of
from permgraph.weights.tied import refuse_torn, refuse_untied

if TYPE_CHECKING:
    import torch

T = TypeVar("T", "torch.Tensor", NDArray[Any])


def apply(
    plan: Plan,
    perms: Permutations,
    state_dict: Mapping[str, T],
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> dict[str, T]:
    """A new state dict, permuted; torch tensors or numpy arrays. The input is not modified, nor shared.

    Keys stay as they are named (see `stored_names` for the spellings that are understood). Tensors that were
    tied, one storage under two keys, are tied in the result. Raises PlanError, and FileError, also for NaN and infinity
    unless `allow_nonfinite`.
    """
    given, state_dict = state_dict, tensors_of(state_dict)
    names, moves = find_moves(plan, perms, state_dict, "state dict", prefix, ignore_unexpected)
    refuse_other_values(plan.spec, {name: state_dict[key] for key, name in names.items()}, "state dict")
    known = {key: name for key, name in names.items() if not getattr(state_dict[key], "is_meta", False)}
    refuse_untied(known, lambda key: held_by(state_dict[key]), "state dict")
    moved = {key: moves.get(key, Move((key,), 0, ())) for key in state_dict}
    identities = _identities(moved, state_dict)
    done: dict[Any, T] = {}
    result: dict[str, T] = {}
    move: Move
    for key, move in moved.items():
        if identities[key] not in done:
            if not allow_nonfinite:
                _refuse_nonfinite_tensor(key, state_dict[key])
            done[identities[key]] = move.of(state_dict.__getitem__)
        result[key] = done[identities[key]]
    return with_rest_of(given, result)


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
    function_check: Callable[[bool], Mapping[str, Any]] | None = None,
    other_weights: bool = False,
    allow_nonfinite: bool = False,
    state: str = "",
    undo: bool = False,
) -> Path:
    """Permute a checkpoint file or folder into `out`, tensor by tensor, as safetensors. Returns `out`.

    `out` appears whole or not at all, and only when all checks have passed. The result records what was applied;
    applying it again to the result is refused, and so is a checkpoint with other weights than those that were matched,
    unless `other_weights`: a later state of that model, fine-tuned say. Raises PlanError, FileError.

    function_check   runs after all other checks; what it returns goes into the record. It is told whether these are proved
                     to be the weights that were matched, if by what is compared at the end
    allow_nonfinite  carry NaN and infinity through, instead of refusing them
    state            which weights of a file that holds several, as for `open_checkpoint`
    undo             take back what was applied last, which has to be these permutations: the weights are as before
    """
    matched = "" if other_weights else perms.origin.weights_b
    checkpoint = open_planned(plan, source, state, matched)
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
    read = Source(checkpoint, names, None if undo else Fingerprint(plan.spec), moves)
    undone = Fingerprint(plan.spec)  # what was matched is what results
    proved = bool(matched) and not undo and Fingerprint(plan.spec).covers(names.values())
    checked = dict(function_check(proved)) if function_check else None

    def blocks(key: str) -> Iterator[Array]:
        side = read.side(key)
        counted = undone.start(names.get(key, ""), side.shape) if undo else None
        for rows in blocks_of(side.shape, side.dtype.itemsize):
            block = side.rows(rows)
            if not allow_nonfinite and count_nonfinite(block, side.dtype):
                stored = (checkpoint.rows(key, rows) for rows in blocks_of(side.shape, side.dtype.itemsize))
                refuse_nonfinite(key, side.dtype, stored, str(source))
            if counted is not None:
                counted.update(numbers_of(block, side.dtype))
            yield block

    def finish(written: Path) -> None:
        if matched and not undo:
            read.read_rest()
        if matched:
            refuse_other_weights("B", source, matched, undone if undo else read.weights)

    applied = before.applied[:-1] if undo else (*before.applied, step)
    record = replace(before, made_by="unapply" if undo else "apply", applied=applied, function_check=checked)
    return write_like(checkpoint, Path(out), checkpoint.infos, blocks, record, force=force, finish=finish)


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
    stored = stored_names(plan.spec, tensors, where, ignore_unexpected, prefix)
    if any(s.tensor.startswith("output:") for s in plan.steps):
        unknown = [key for key in tensors if key not in stored and key not in ignore_unexpected]
        heads = [key for key in unknown if is_inexact(tensors[key].dtype)]
        if heads:
            raise PlanError(
                f"{where}: the plan re-orders the network's output, which {first(heads)} may read but the "
                "plan does not know. Plan the whole model, or leave the output in order."
            )
    by_name = moves_of(plan.spec, found)
    keys = {name: key for key, name in reversed(stored.items())}
    moves = {
        key: _stored_move(by_name[name], name, keys, key, tensors, where)
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
    move: Move, name: str, keys: Mapping[str, str], key: str, tensors: Mapping[str, Any], where: str
) -> Move:
    """A move in the keys of a checkpoint. Raises FileError where it needs what is not there, or of another dtype."""
    if move.sources == (name,) or (len(move.sources) == 1 and move.sources[0] not in keys):
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


def _identities(moved: Mapping[str, Move], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Key → equal for those that stay tied. Raises PlanError where one tensor would become two."""
    storage = {key: _storage(tensor) for key, tensor in state_dict.items()}
    found = {key: (*(storage[source] for source in move.sources), move.key) for key, move in moved.items()}
    refuse_torn("state dict", found, storage.__getitem__)
    return found


def _storage(tensor: Any) -> tuple[Any, ...]:
    """Equal for two tensors that are the same memory seen the same way."""
    if isinstance(tensor, np.ndarray):
        return tensor.__array_interface__["data"][0], tensor.shape, tensor.strides, tensor.dtype.str
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return (id(tensor),)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _refuse_nonfinite_tensor(key: str, tensor: Any) -> None:
    if not getattr(tensor, "is_meta", False):
        held, dtype = held_by(tensor)
        refuse_nonfinite(key, dtype, iter([held]), "the weights")
