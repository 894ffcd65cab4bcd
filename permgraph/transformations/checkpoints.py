"""Checkpoints: B's units multiplied as A's weights suggest, written as B was. Its function stays, and so does their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from permgraph.errors import PlanError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.matching.matchers import refuse_other_moments
from permgraph.planning.gather import gathers
from permgraph.planning.moves import moves_of
from permgraph.transformations.activations import crossed_of
from permgraph.transformations.fit import fit
from permgraph.transformations.places import Values
from permgraph.transformations.transformation import Factor
from permgraph.transformations.values import Multiplied, fold, multiply, read_by, written_by
from permgraph.weights.average import refuse_nonfinite
from permgraph.weights.beside_tensors import tensors_of, with_rest_of
from permgraph.weights.checkpoint import Checkpoint
from permgraph.weights.dtypes import Array, narrow
from permgraph.weights.names import match_names, stored_names
from permgraph.weights.output import refuse_out, write_like
from permgraph.weights.planned import numbers_in, numbers_stored
from permgraph.weights.record import Record
from permgraph.weights.source import open_planned
from permgraph.weights.tensors import held_by
from permgraph.weights.tied import refuse_untied


@dataclass(frozen=True)
class FittedFactors:
    """What was fitted, in the order of A's units.

    before, after   ‖A - B‖ / ‖A‖ of the weights that the factors touch, units in A's order
    """

    done: tuple[Multiplied, ...]
    before: float
    after: float


def fit_factors(
    plan: Plan,
    factors: Sequence[Factor],
    a: Values,
    b: Values,
    perms: Permutations | None = None,
    moments: Moments | None = None,
) -> tuple[FittedFactors, Values]:
    """Fit the factors of the plan's groups to two models; returns B's weights multiplied, in B's own order.

    a, b    the plan's names of tensors → values, of those that the plan moves
    perms   those that bring B's units to A's; left out, they are in one order
    moments  of the activations of A and B: signs and rotations are read off these, where they hold them
    """
    if moments is not None:
        refuse_other_moments(plan, moments, {}, None)
    chosen = [factor for factor in factors if factor.group in plan.selected]
    used = Permutations({}) if perms is None else perms
    aligned = _moved(plan, used, b)
    crossed = {f: found for f in chosen if (found := crossed_of(plan, f, moments, used)) is not None}
    done = tuple(fit(plan.spec, chosen, a, aligned, crossed))
    after = multiply(plan.spec, done, aligned)
    touched = written_by(plan.spec, done)
    fitted = FittedFactors(done, _apart(a, aligned, touched), _apart(a, after, touched))
    return fitted, _moved(plan, used.inverse(plan.spec), after)


def values_in(plan: Plan, state: Mapping[str, Any], where: str) -> Values:
    """The plan's names of tensors → values, of those that the plan moves. Raises FileError."""
    return _wide(numbers_in(plan, state, where)[0])


def _wide(numbers: Mapping[str, Array]) -> Values:
    return {name: torch.from_numpy(np.array(array, dtype=np.float64)) for name, array in numbers.items()}


def multiply_state(spec: PermSpec, done: Sequence[Multiplied], state: Mapping[str, Any]) -> dict[str, Any]:
    """See `permgraph.multiply`."""
    names, changed, wanted = (
        stored_names(spec, state, "state dict"),
        written_by(spec, done),
        read_by(spec, done),
    )
    refuse_untied(names, lambda key: held_by(state[key]), "state dict")
    read = {name: state[key] for key, name in names.items() if name in wanted}
    values = multiply(spec, done, {name: torch.as_tensor(tensor) for name, tensor in read.items()})
    result: dict[str, Any] = {}
    for key, tensor in tensors_of(state).items():
        if names.get(key) not in changed:
            result[key] = tensor.copy() if isinstance(tensor, np.ndarray) else tensor.clone()
        elif isinstance(tensor, np.ndarray):
            result[key] = values[names[key]].numpy().astype(tensor.dtype)
        else:
            result[key] = values[names[key]].to(tensor.dtype).to(tensor.device)
    return with_rest_of(state, result)


def fold_state(spec: PermSpec, factors: Sequence[Factor], state: Mapping[str, Any]) -> tuple[Multiplied, ...]:
    """See `permgraph.fold_factors`."""
    names = stored_names(spec, state, "state dict")
    refuse_untied(names, lambda key: held_by(state[key]), "state dict")
    wanted = {name for factor in factors if (name := factor.folds())}
    read = {name: torch.as_tensor(state[key]) for key, name in names.items() if name in wanted}
    return tuple(fold(spec, factors, read))


def _moved(plan: Plan, perms: Permutations, values: Values) -> Values:
    moves = moves_of(plan.spec, gathers(plan, perms))
    arrays = {name: tensor.numpy() for name, tensor in values.items()}
    return {
        name: torch.from_numpy(moves[name].of(arrays.__getitem__).copy()) if name in moves else tensor
        for name, tensor in values.items()
    }


def _apart(a: Values, b: Values, names: set[str]) -> float:
    square = sum(float((a[name].double() - b[name].double()).square().sum()) for name in names)
    whole = sum(float(a[name].double().square().sum()) for name in names)
    return (square / whole) ** 0.5 if whole else 0.0


def multiply_checkpoint(
    plan: Plan,
    factors: Sequence[Factor],
    a: Checkpoint,
    b: str | Path,
    out: Path,
    perms: Permutations | None = None,
    moments: Moments | None = None,
    *,
    state: str = "",
    force: bool = False,
    function_check: Callable[[Sequence[Multiplied]], Mapping[str, object]] | None = None,
) -> FittedFactors:
    """Write B with its units multiplied, in the types that it is stored in. Raises FileError, PlanError, VerificationError."""
    checkpoint = open_planned(plan, b, state, perms.origin.weights_b if perms else "")
    refuse_out(checkpoint, out, force, (a.path,))
    stored = [numbers_stored(plan, one) for one in (a, checkpoint)]
    if moments is not None:
        wanted = (moments.origin.weights_a, moments.origin.weights_b)
        for (_, weights), calibrated, path in zip(stored, wanted, (a.path, checkpoint.path), strict=True):
            if calibrated not in ("", weights):
                raise PlanError(
                    f"{path}: the moments are of other weights ({calibrated[:12]}…). Calibrate again."
                )
    held = [_wide(numbers) for numbers, _ in stored]
    fitted, values = fit_factors(plan, factors, held[0], held[1], perms, moments)
    checked = dict(function_check(fitted.done)) if function_check else None
    changed = written_by(plan.spec, fitted.done)
    names = match_names(plan.spec, checkpoint.shapes, str(b), None, ["*"])

    def blocks(key: str) -> Iterator[Array]:
        if names.get(key) not in changed:
            return iter([checkpoint.rows(key)])
        numbers = narrow(values[names[key]].numpy(), checkpoint.infos[key].dtype)
        refuse_nonfinite(key, checkpoint.infos[key].dtype, iter([numbers]), str(out))
        return iter([numbers])

    before = checkpoint.record or Record("multiply")  # what was applied to B stays applied
    record = replace(before, made_by="multiply", function_check=checked)
    write_like(checkpoint, out, checkpoint.infos, blocks, record, force=force, inputs=(a.path,))
    return fitted
