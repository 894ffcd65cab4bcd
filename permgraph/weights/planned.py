"""The numbers of a model under the names of a plan, and the fingerprint of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from permgraph.errors import FileError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.plan import Plan
from permgraph.ir.values import refuse_other_values
from permgraph.weights.average import refuse_nonfinite
from permgraph.weights.beside_tensors import tensors_of
from permgraph.weights.checkpoint import Checkpoint
from permgraph.weights.dtypes import Array, Dtype, is_inexact, widen
from permgraph.weights.names import stored_names
from permgraph.weights.quantised import refuse_quantised
from permgraph.weights.tensors import float32_of, held_by, numbers_of
from permgraph.weights.tied import refuse_untied


def numbers_in(plan: Plan, state: Mapping[str, Any], where: str) -> tuple[dict[str, Array], str]:
    """Those of a state dict, of torch tensors or numpy arrays; see `planned_numbers`."""
    state = tensors_of(state)
    empty = [key for key, tensor in state.items() if getattr(tensor, "is_meta", False)]
    if empty:
        raise FileError(
            f"{where}: {empty[0]!r} is on the meta device and holds no numbers. Load the weights first."
        )
    return planned_numbers(plan, state, lambda key: held_by(state[key]), where)


def numbers_stored(plan: Plan, checkpoint: Checkpoint) -> tuple[dict[str, Array], str]:
    """Those of a checkpoint; see `planned_numbers`. Raises FileError for a damaged or quantised one, too."""
    refuse_quantised(checkpoint.infos, str(checkpoint.path), checkpoint.config)
    checkpoint.verify()
    infos = checkpoint.infos
    return planned_numbers(
        plan, infos, lambda key: (checkpoint.rows(key), infos[key].dtype), str(checkpoint.path)
    )


def planned_numbers(
    plan: Plan, infos: Mapping[str, Any], read: Callable[[str], tuple[Array, Dtype | None]], where: str
) -> tuple[dict[str, Array], str]:
    """The plan's name of a tensor → its numbers in float32 or wider, of floating-point tensors that the plan moves; and the
    fingerprint of all weights.

    infos   stored key → anything with a shape and a dtype
    read    gives the numbers of a key, and their type

    Raises FileError where the weights are not of this network or not finite, PlanError for other integers than the plan follows.
    """
    names = stored_names(plan.spec, infos, where)
    wanted = {name for step in plan.steps for name in plan.spec.members(step.tensor)}
    refuse_untied(names, read, where)
    weights, found, integers = Fingerprint(plan.spec), dict[str, Array](), dict[str, Array]()
    for key, name in names.items():
        held, dtype = read(key)
        if dtype is None:
            continue
        counted = weights.start(name, tuple(infos[key].shape))
        if counted is not None:
            counted.update(numbers_of(held, dtype))
        if name in plan.spec.values:
            integers[name] = held
        if name in wanted and name not in found and is_inexact(dtype):
            refuse_nonfinite(key, dtype, iter([held]), where)
            found[name] = float32_of(held, dtype) if dtype.itemsize == 1 else widen(held, dtype)
    refuse_other_values(plan.spec, integers, where)
    return found, weights.text
