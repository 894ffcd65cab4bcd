"""permgraph: a compiler for the permutation symmetries of neural networks.

The verbs, in the order of the line:

    trace = pg.trace(model, example_inputs)          # or pg.trace("hubert")
    spec  = pg.infer(trace)
    plan  = pg.plan(spec, groups="cnn,heads,ffn2")
    error = pg.verify(model, example_inputs, spec)
    perms = pg.random_permutations(plan, seed=0)     # or, from activations:
    moments = pg.calibrate(plan, model_a, model_b, batches)
    perms = pg.match(plan, moments)
    state = pg.apply(plan, perms, state_b)           # pg.unapply undoes it bit for bit
    merged = pg.merge(state_a, state, weights=(0.9, 0.1))

Heavy libraries (torch, transformers, scipy) are imported by the verb that needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from permgraph.errors import PermgraphError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Probe
from permgraph.ir.trace import Trace

if TYPE_CHECKING:
    from torch import nn

    from permgraph.verification.check import Check

__version__ = "0.1.0"


def trace(
    model: nn.Module | str, example_inputs: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Trace:
    """Capture a network: a module with example inputs, or anything the command line takes as MODEL.

    Raises TraceError, UsageError.
    """
    from permgraph.frontend.capture import capture

    if isinstance(model, str):
        from permgraph.frontend.sources import load_source

        source = load_source(model)
        return capture(source.module, source.args, source.kwargs, source.name)
    return capture(model, tuple(example_inputs), dict(kwargs or {}))


def infer(trace: Trace, free_output: bool = False) -> PermSpec:
    """Every group of channels that may be re-ordered without changing the function."""
    from permgraph.symmetry.infer import infer as run

    return run(trace, free_output)


def plan(spec: PermSpec, groups: str = "all", exclude: str = "", mode: str = "exact") -> Plan:
    """The plan that moves the selected groups. Raises SelectionError, PlanError."""
    from permgraph.planning.compile import compile_plan

    return compile_plan(spec, groups, exclude, mode)


def calibrate(
    plan: Plan, model_a: nn.Module, model_b: nn.Module, batches: Iterable[Any], **options: Any
) -> Moments:
    """Moments of both models' activations over the batches. Options and errors: `match.calibrate.calibrate`."""
    from permgraph.matching.calibration import calibrate as run

    return run(plan, model_a, model_b, batches, **options)


def match(plan: Plan, moments: Moments | None, matcher: str = "correlation", seed: int = 0) -> Permutations:
    """The permutations that bring B's units to their partners in A; `.report` says what they are worth."""
    from permgraph.matching.matchers import match as run

    return run(plan, moments, matcher, seed)


def merge(
    state_a: Mapping[str, Any],
    state_b: Mapping[str, Any],
    weights: tuple[float, float] = (0.9, 0.1),
    **options: Any,
) -> dict[str, Any]:
    """`w_A · A + w_B · B`, in float32, in A's dtypes. Options and errors: `merge.interpolate.merge`."""
    from permgraph.weights.interpolate import merge as run

    return run(state_a, state_b, weights, **options)


def apply(plan: Plan, perms: Permutations, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A new state dict with the plan's tensors permuted. Raises PlanError."""
    from permgraph.weights.apply import apply as run

    return run(plan, perms, state_dict)


def unapply(plan: Plan, perms: Permutations, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `apply`, bit for bit. Raises PlanError."""
    from permgraph.weights.apply import unapply as run

    return run(plan, perms, state_dict)


def verify(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: PermSpec | Plan,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Check:
    """The function check: how much the outputs change when the groups move, in float64. `check.kept`, `check.change`.

    It compares with numbers by its change: `verify(…) < 1e-9`. Errors: `verification.function_check.verify`.
    """
    from permgraph.verification.function_check import verify as run

    return run(model, example_inputs, spec, kwargs, seed)


__all__ = [
    "Group",
    "Moments",
    "PermSpec",
    "PermgraphError",
    "Permutations",
    "Place",
    "Plan",
    "Probe",
    "Trace",
    "apply",
    "calibrate",
    "infer",
    "match",
    "merge",
    "plan",
    "random_permutations",
    "trace",
    "unapply",
    "verify",
]
