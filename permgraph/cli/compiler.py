"""Verbs of the compiler: trace, plan, why, apply, verify, lint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from permgraph.cli.app import app
from permgraph.cli.early import refuse_foreign, refuse_weights
from permgraph.cli.options import (
    DEFAULT_TRACE,
    Class,
    Exclude,
    Force,
    Free,
    Groups,
    Json,
    Mode,
    Model,
    NoCheck,
    OtherWeights,
    State,
    Strict,
    Target,
    Unfold,
)
from permgraph.cli.shared import (
    capture_model,
    infer_spec,
    is_trace_file,
    measured,
    next_step,
    print_json,
    print_text,
    say,
    trace_of,
    visible,
)

if TYPE_CHECKING:
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.spec import PermSpec


@app.command()
def trace(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the trace.")] = DEFAULT_TRACE,
    free_output: Free = False,
    json_: Json = False,
    strict: Strict = False,
    unfold: Unfold = False,
    model_class: Class = "",
    force: Force = False,
) -> None:
    """Capture a network and print its permutation groups."""
    refuse_foreign(out, force, model)
    found = capture_model(model, model_class)
    found.save(out, force)
    spec = infer_spec(found, free_output, strict)
    if json_:
        print_json({**spec.document(), "log10_order": round(spec.log10_order, 6)})
        return
    from permgraph.reporting.tables import spec_text

    print(spec_text(spec, unfold))
    say(f"Trace written to {out}. {_plan_next(spec, out, free_output)}")


def _plan_next(spec: PermSpec, trace_file: Path, free_output: bool) -> str:
    """The command that plans groups which this model has."""
    from permgraph.matching.default_groups import default_groups

    groups, hidden = default_groups(spec)
    file = [] if trace_file == DEFAULT_TRACE else [trace_file]
    options = [*(["-x", hidden] if hidden else []), *(["--free-output"] if free_output else [])]
    return next_step("plan", *file, "--groups", groups, *options) if spec.groups else "No group to plan."


@app.command()
def plan(
    target: Target = None,
    groups: Groups = "all",
    exclude: Exclude = "",
    mode: Mode = "exact",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the plan.")] = Path("plan.json"),
    free_output: Free = False,
    measure: Annotated[
        bool, typer.Option(help="Measure how a mode other than exact changes the function.")
    ] = True,
    json_: Json = False,
    strict: Strict = False,
    unfold: Unfold = False,
    model_class: Class = "",
    force: Force = False,
) -> None:
    """Pick groups; print and write what to permute and un-permute."""
    from permgraph.planning.compile import compile_plan
    from permgraph.planning.modes import refuse_unknown_mode
    from permgraph.planning.selection import refuse_unknown_terms, select
    from permgraph.reporting.steps import steps_text

    refuse_unknown_mode(mode)
    refuse_foreign(out, force)
    if target is not None and not is_trace_file(target):  # before it is built
        refuse_unknown_terms(groups, exclude)
    found = trace_of(target, model_class)
    refuse_foreign(out, force, target or DEFAULT_TRACE)  # a file of another kind is told as that above
    spec = infer_spec(found, free_output, strict)
    made = compile_plan(spec, groups, exclude, mode)
    if mode != "exact" and measure:
        made = measured(made, found, target, model_class)
    made.save(out, force)
    if json_:
        from permgraph.ir.codec import encode

        print_json({**made.document(), "steps": encode(made)["spec"]["places"]})
        return
    print(steps_text(made, unfold))
    for note in select(spec, groups, exclude).notes:
        say(f"Note: {note}.")
    if target is not None and not is_trace_file(target):
        for note in found.notes:  # `trace` has told those of a trace file
            say(f"{target}: {note}.")
    picture = [out] if target is None else [target, "--plan", out]
    say(f"Plan written to {out}. {next_step('draw', *picture)}")
    if made.groups:
        say(f"With two trained models: permgraph match {shlex.quote(str(out))} --a A --b B --audio AUDIO")


@app.command()
def why(
    model: Annotated[str, typer.Argument(metavar="TRACE|MODEL", help="A trace file or a MODEL.")],
    axis: Annotated[str, typer.Argument(help="An axis, written tensor[number].")],
    other: Annotated[str | None, typer.Argument(help="Another axis.")] = None,
    free_output: Free = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Explain why an axis may move, is pinned, or is tied to another."""
    from permgraph.reporting.explain import explain_json, explain_text

    found = trace_of(model, model_class)
    if json_:
        print_json(explain_json(found, axis, other, free_output))
    else:
        print(visible(explain_text(found, axis, other, free_output)))


PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file.")]
PermsFile = Annotated[Path, typer.Argument(metavar="PERMS", help="Permutations (safetensors).")]
Weights = Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint file or folder.")]
Ignored = Annotated[list[str], typer.Option(help="Glob of extra tensors to carry through.")]


@app.command()
def apply(
    plan_file: PlanFile,
    perms_file: PermsFile,
    source: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The permuted checkpoint.")],
    force: Force = False,
    ignore_unexpected: Ignored = [],  # noqa: B006
    no_check: NoCheck = False,
    other_weights: OtherWeights = False,
    state: State = "",
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Permute a checkpoint, once its function is checked to be kept."""
    options = {"force": force, "ignore_unexpected": ignore_unexpected, "other_weights": other_weights}
    permute(plan_file, perms_file, source, out, no_check, state, model_class, json_, options)


@app.command()
def unapply(
    plan_file: PlanFile,
    perms_file: PermsFile,
    source: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint as it was before.")],
    force: Force = False,
    ignore_unexpected: Ignored = [],  # noqa: B006
    no_check: NoCheck = False,
    other_weights: OtherWeights = False,
    state: State = "",
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Undo `apply`, bit for bit, with the same plan and permutations."""
    options = {"force": force, "ignore_unexpected": ignore_unexpected, "other_weights": other_weights}
    permute(plan_file, perms_file, source, out, no_check, state, model_class, json_, options, True)


def permute(
    plan_file: Path,
    perms_file: Path,
    source: Path,
    out: Path,
    no_check: bool,
    state: str,
    model_class: str,
    json_: bool,
    options: dict[str, Any],
    undo: bool = False,
    drawn: Permutations | None = None,
) -> dict[str, Any]:
    """Apply permutations (`drawn`: those that PERMS will hold), or `undo` them. Returns the record of the function check."""
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.plan import Plan
    from permgraph.verification.checkpoints import SKIPPED, Checked, check_checkpoint, checked_before
    from permgraph.weights.apply import apply_checkpoint
    from permgraph.weights.checkpoint import open_checkpoint

    refuse_weights(out, options["force"], source, plan_file, perms_file)
    plan = Plan.load(plan_file)
    perms = Permutations.load(perms_file) if drawn is None else drawn
    made: list[Checked] = []

    def function_check(as_matched: bool) -> dict[str, Any]:
        before = checked_before(plan, perms, source.name) if as_matched and not model_class else None
        if no_check:
            made.append(Checked(source.name, why=SKIPPED))
        else:
            moving = perms.inverse(plan.spec) if undo else perms
            made.append(before or check_checkpoint(source, plan, moving, state, model_class))
        return made[-1].record()

    written = apply_checkpoint(
        plan, perms, source, out, function_check=function_check, state=state, undo=undo, **options
    )
    stored = open_checkpoint(source, state, converted=False)
    for text in (stored.mixed, *(checked.text() for checked in made)):
        if text:
            say(text)
    if json_:
        print_json({"written": [str(written)], "checked": made[-1].record()})
    say(f"{'Weights as before' if undo else 'Permuted weights'} written to {written}.")
    return made[-1].record()


@app.command()
def verify(
    model: Model,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Verify this plan instead of all groups.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=10**6, help="How often to check, each time with other noise and permutations."
        ),
    ] = 1,
    free_output: Free = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Measure that permuted weights compute the same (float64)."""
    from permgraph.ir.plan import Plan
    from permgraph.verification.verdict import check_model

    chosen = Plan.load(plan_file) if plan_file else None
    result = check_model(model, chosen, seeds, free_output, model_class)
    if json_:
        print_json(result.to_json())
    else:
        print_text(*result.lines)
    if not result.kept:
        raise typer.Exit(4)


@app.command()
def lint(
    foreign: Annotated[
        Path, typer.Argument(metavar="SPEC", help="Git Re-Basin or mergekit style, or our TOML.")
    ],
    model: Annotated[str, typer.Argument(metavar="TRACE|MODEL", help="A trace file or a MODEL.")],
    measure: Annotated[
        bool, typer.Option(help="Let unsound groups move at random and measure the change.")
    ] = True,
    free_output: Free = False,
    model_class: Class = "",
    json_: Json = False,
) -> None:
    """Check a hand-written specification against a network."""
    from permgraph.linter.report import lint_files

    found = lint_files(foreign, model, free_output=free_output, measure=measure, model_class=model_class)
    if json_:
        from permgraph.ir.codec import encode

        print_json(encode(found.summary))
    else:
        print_text(*found.text().split("\n"))
    if not found.lint.sound:
        raise typer.Exit(4)
