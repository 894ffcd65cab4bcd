"""Verbs of signs, scales and rotations: factors, multiply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.compiler import PlanFile
from permgraph.cli.early import refuse_weights
from permgraph.cli.options import Class, Force, Json, NoCheck, State, Target
from permgraph.cli.shared import infer_spec, next_step, pair_of, print_json, say, trace_of

if TYPE_CHECKING:
    from permgraph.ir.plan import Plan
    from permgraph.transformations.values import Multiplied
    from permgraph.weights.encoder import Encoder

Kinds = Annotated[
    str, typer.Option("--kinds", "-k", help="signs, scales, rotations, separated by commas; default: all.")
]


@app.command()
def factors(target: Target = None, kinds: Kinds = "", model_class: Class = "", json_: Json = False) -> None:
    """Show by what units may be multiplied, beside changing places."""
    from permgraph.reporting.factors import factors_json, factors_text
    from permgraph.transformations.find import find_factors, kinds_of

    wanted = kinds_of(kinds)
    found = trace_of(target, model_class)
    spec = infer_spec(found, False, False)
    ours = find_factors(found, spec, wanted)
    if json_:
        print_json(factors_json(spec, ours))
    else:
        print(factors_text(spec, ours, wanted))


@app.command()
def multiply(
    plan_file: PlanFile,
    a: Annotated[Path, typer.Option("--a", help="The reference model.")],
    b: Annotated[Path, typer.Option("--b", help="The model whose units are multiplied.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="B with other weights, and the same function.")],
    perms_file: Annotated[
        Path | None,
        typer.Option("--perms", help="What brings B's units to A's; without it they are in one order."),
    ] = None,
    moments_file: Annotated[
        Path | None, typer.Option("--moments", help="Of a calibration: they decide on signs and rotations.")
    ] = None,
    kinds: Kinds = "",
    no_check: NoCheck = False,
    state: State = "",
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Multiply B's units by what brings its weights to A's."""
    from permgraph.errors import PlanError
    from permgraph.ir.moments import Moments
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.plan import Plan
    from permgraph.reporting.factors import fitted_json, fitted_text
    from permgraph.transformations.checkpoints import multiply_checkpoint
    from permgraph.transformations.find import find_factors, kinds_of

    wanted = kinds_of(kinds)
    refuse_weights(out, force, a, b, plan_file, *([perms_file] if perms_file else []))
    plan = Plan.load(plan_file)
    if plan.mode != "exact":
        raise PlanError(f"{plan_file}: mode {plan.mode} does not keep the function. Plan in mode exact.")
    perms = Permutations.load(perms_file) if perms_file else None
    one, other = pair_of(a, b, True, state, model_class, plan)
    if other.trace.fingerprint != plan.fingerprint:
        raise PlanError(
            f"{plan_file}: the plan was made for {plan.spec.model}, another architecture than {b}. Make it again: "
            f"permgraph plan {b}."
        )
    ours = find_factors(other.trace, plan.spec, wanted)
    check = None if no_check else _check(other, plan)
    moments = Moments.load(moments_file) if moments_file else None
    fitted = multiply_checkpoint(
        plan,
        ours,
        one.checkpoint,
        b,
        out,
        perms,
        moments,
        state=other.state,
        force=force,
        function_check=check,
    )
    if json_:
        print_json({"written": [str(out)], **fitted_json(fitted)})
    else:
        print(fitted_text(fitted))
    say(f"Written to {out}. {next_step('merge', a, out, '-o', 'MERGED')}")


def _check(encoder: Encoder, plan: Plan) -> Callable[[Sequence[Multiplied]], Mapping[str, object]]:
    """The function check of what is fitted, on B's own weights."""
    from permgraph.verification.factor_check import check_encoder_factors

    return lambda done: check_encoder_factors(encoder, plan.spec, done).record()
