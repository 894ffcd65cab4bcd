"""Apply a plan's permutations to weights: gathers only, no arithmetic, so every dtype is kept bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from permgraph.errors import PlanError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.planning.gather import Gather, apply_gathers, gathers
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint, refuse_quantised
from permgraph.weights.names import first, match_names
from permgraph.weights.output import write_like
from permgraph.weights.record import Applied, Record

T = TypeVar("T", torch.Tensor, NDArray[Any])


def apply(
    plan: Plan,
    perms: Permutations,
    state_dict: Mapping[str, T],
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
) -> dict[str, T]:
    """A new state dict, permuted; torch tensors or numpy arrays. The input is not modified, nor shared.

    Keys stay as they are named (see `match_names` for the spellings that are understood). Tensors that were
    tied, one storage under two keys, are tied in the result. Raises PlanError, FileError.
    """
    _, moves = find_moves(plan, perms, state_dict, "state dict", prefix, ignore_unexpected)
    done: dict[Any, T] = {}
    result: dict[str, T] = {}
    for key in state_dict:
        tensor: T = state_dict[key]
        steps = moves.get(key, [])
        identity = (*_storage(tensor), tuple((s.axis, s.index.tobytes()) for s in steps))
        if identity not in done:
            done[identity] = apply_gathers(tensor, steps)
        result[key] = done[identity]
    return result


def unapply(
    plan: Plan,
    perms: Permutations,
    state_dict: Mapping[str, T],
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
) -> dict[str, T]:
    """Undo `apply` with the same arguments, bit for bit. Raises PlanError, FileError."""
    check_permutations(plan, perms)
    undone = perms.inverse(plan.spec)
    return apply(plan, undone, state_dict, prefix, ignore_unexpected)


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
) -> Path:
    """Permute a checkpoint file or folder into `out`, tensor by tensor, as safetensors. Returns `out`.

    `out` appears whole or not at all, and only when all checks have passed. The result records what was applied;
    applying it again to the result is refused, and so is a checkpoint with other weights than those that were matched,
    unless `other_weights`: a later state of that model, fine-tuned say. Raises PlanError, FileError.

    function_check   runs after all other checks; what it returns goes into the record
    """
    checkpoint = open_checkpoint(source)
    names, moves = find_moves(plan, perms, checkpoint.infos, str(source), prefix, ignore_unexpected)
    step = applied_step(plan, perms)
    refuse_twice(checkpoint, step)
    checkpoint.verify()
    before = checkpoint.record or Record("apply")
    checked = dict(function_check()) if function_check else None
    weights = Fingerprint(plan.spec)

    def read(key: str) -> torch.Tensor:
        tensor = checkpoint.read(key)
        weights.add(names.get(key, ""), tensor)
        return apply_gathers(tensor, moves.get(key, ()))

    def finish() -> None:
        if not other_weights:
            refuse_other_weights("B", source, perms.origin.weights_b, weights)

    record = replace(before, made_by="apply", applied=(*before.applied, step), function_check=checked)
    return write_like(checkpoint, Path(out), checkpoint.infos, read, record, force=force, finish=finish)


def find_moves(
    plan: Plan,
    perms: Permutations,
    tensors: Mapping[str, Any],
    where: str,
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
) -> tuple[dict[str, str], dict[str, list[Gather]]]:
    """Stored key → the plan's name, and → its gathers, after every check that needs no weights.

    `tensors` maps keys to anything with a shape and a dtype. Raises PlanError, FileError.
    """
    found = gathers(plan, perms)
    refuse_quantised(tensors, where)
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
    steps: dict[str, list[Gather]] = {}
    for step in found:
        if step.moves:
            steps.setdefault(step.tensor, []).append(step)
    return stored, {key: steps[name] for key, name in stored.items() if name in steps}


def applied_step(plan: Plan, perms: Permutations) -> Applied:
    """The digests that a result records: of the plan, and of the permutations it uses."""
    return Applied(plan.digest, perms.digest)


def refuse_other_weights(whose: str, where: object, matched: str, weights: Fingerprint) -> None:
    """Refuse weights other than those that were matched, where both are known. Raises PlanError."""
    if matched and weights.text and matched != weights.text:
        raise PlanError(
            f"{where}: the permutations were matched on other weights as {whose} (fingerprint {matched[:12]}…, these have "
            f"{weights.text[:12]}…). Match again; or pass --other-weights when these are a later state of that model."
        )


def refuse_twice(checkpoint: Checkpoint, step: Applied) -> None:
    """Refuse a checkpoint to which these permutations were already applied. Raises PlanError."""
    if checkpoint.record is not None and step in checkpoint.record.applied:
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations was already applied to it "
            f"(permutations {step.permutations[:8]}…). Apply it to the original instead."
        )


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
