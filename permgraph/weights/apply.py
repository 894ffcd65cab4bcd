"""Apply a plan's permutations to weights: gathers only, no arithmetic, so every dtype is kept bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations, check
from permgraph.ir.plan import Plan
from permgraph.planning.gather import Gather, apply_numpy, gathers
from permgraph.weights.checkpoint import Checkpoint, as_json, open_checkpoint, refuse_quantised
from permgraph.weights.names import first, match_names
from permgraph.weights.output import write_like

T = TypeVar("T", torch.Tensor, NDArray[Any])
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
    moves = find_moves(plan, perms, state_dict, "state dict", prefix, ignore_unexpected)
    done: dict[Any, T] = {}
    result: dict[str, T] = {}
    for key in state_dict:
        tensor: T = state_dict[key]
        steps = moves.get(key, [])
        identity = (*_storage(tensor), tuple((s.axis, s.index.tobytes()) for s in steps))
        if identity not in done:
            done[identity] = gather(tensor, steps)
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
    check(plan.spec, perms)
    undone = perms.only(plan.selected).inverse(plan.spec)
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
) -> Path:
    """Permute a checkpoint file or folder into `out`, tensor by tensor, as safetensors. Returns `out`.

    Everything is checked before anything is written, and `out` appears whole or not at all. The result
    records what was applied; applying it again to the result is refused. Raises PlanError, FileError.

    function_check   runs after all other checks; what it returns goes into the record
    """
    checkpoint = open_checkpoint(source)
    moves = find_moves(plan, perms, checkpoint.infos, str(source), prefix, ignore_unexpected)
    step = applied_step(plan, perms)
    refuse_twice(checkpoint, step)
    checkpoint.verify()
    record = {
        **checkpoint.record,
        **({"function_check": dict(function_check())} if function_check else {}),
        "made_by": "apply",
        "applied": [*checkpoint.record.get("applied", ()), step],
    }
    return write_like(
        checkpoint,
        Path(out),
        checkpoint.infos,
        lambda key: gather(checkpoint.read(key), moves.get(key, ())),
        record,
        force=force,
    )


def find_moves(
    plan: Plan,
    perms: Permutations,
    tensors: Mapping[str, Any],
    where: str,
    prefix: str | None = None,
    ignore_unexpected: Sequence[str] = (),
) -> dict[str, list[Gather]]:
    """Stored key → its gathers, after every check that needs no weights: permutations, keys, shapes, dtypes.

    `tensors` maps keys to anything with a shape and a dtype. Raises PlanError, FileError.
    """
    check(plan.spec, perms)
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
    for step in gathers(plan, perms):
        if not np.array_equal(step.index, np.broadcast_to(np.arange(step.index.shape[-1]), step.index.shape)):
            steps.setdefault(step.tensor, []).append(step)
    return {key: steps[name] for key, name in stored.items() if name in steps}


def gather(tensor: T, steps: Sequence[Gather]) -> T:
    """A copy of one tensor, re-ordered. On whatever device it is."""
    if isinstance(tensor, np.ndarray):
        return apply_numpy(tensor.copy(), steps)
    source = tensor.detach()
    if not steps:
        return source.clone()
    # Integers of the same width: index_select lacks some of the float8 dtypes.
    bits = source.view(_BITS.get(source.element_size(), source.dtype))
    for step in steps:
        index = torch.from_numpy(np.ascontiguousarray(step.index)).to(bits.device)
        if step.rows_axis is None:
            bits = bits.index_select(step.axis, index)
            continue
        view = [1] * bits.ndim
        view[step.rows_axis], view[step.axis] = step.index.shape
        index = index if step.rows_axis < step.axis else index.T
        bits = torch.take_along_dim(bits, index.reshape(view), dim=step.axis)
    return bits.view(source.dtype)


def applied_step(plan: Plan, perms: Permutations) -> dict[str, str]:
    """The digests that a result records: of the plan, and of the permutations it uses."""
    return {"plan": plan_digest(plan), "permutations": permutations_digest(perms.only(plan.selected))}


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the plan, 32 hex digits."""
    return hashlib.sha256(as_json(plan.to_json()).encode()).hexdigest()[:32]


def permutations_digest(perms: Permutations) -> str:
    """SHA-256 of the index arrays, 32 hex digits; their report does not count."""
    digest = hashlib.sha256()
    for name in sorted(perms):
        array = np.ascontiguousarray(perms[name], dtype="<i8")
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def refuse_twice(checkpoint: Checkpoint, step: Mapping[str, str]) -> None:
    """Refuse a checkpoint to which these permutations were already applied. Raises PlanError."""
    if dict(step) in checkpoint.record.get("applied", ()):
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations was already applied to it "
            f"(permutations {step['permutations'][:8]}…). Apply it to the original instead."
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
