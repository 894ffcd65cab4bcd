"""The verb that aligns and averages: merge."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.data_options import DataOptions, takes_data
from permgraph.cli.early import method_of, planned_before, refuse_checkpoint, refuse_weights
from permgraph.cli.options import (
    Absolute,
    Align,
    Base,
    Checkpoint,
    Class,
    Exclude,
    Force,
    IntegersOfA,
    Json,
    Matcher,
    Method,
    MinFrames,
    Mode,
    More,
    NoCheck,
    OtherWeights,
    Parameter,
    Parametrized,
    PerModelRate,
    Seed,
    State,
)
from permgraph.cli.several import Several, merge_several, refuse_for_many
from permgraph.cli.shared import (
    matcher_of,
    next_step,
    pair_of,
    print_written,
    say,
)
from permgraph.errors import UsageError

if TYPE_CHECKING:
    from permgraph.weights.encoder import Encoder
    from permgraph.weights.stored import StoredModel


@app.command()
@takes_data
def merge(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model to align and merge in.")],
    more: More = [],  # noqa: B006
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The merged model.")],
    groups: Annotated[
        str,
        typer.Option(
            "--groups",
            "-g",
            help="As in plan. Without it: every role that this model has (cnn,heads,ffn2 for a HuBERT).",
            show_default=False,
        ),
    ] = "",
    exclude: Exclude = "",
    mode: Mode = "exact",
    data: DataOptions,
    weights: Annotated[
        str,
        typer.Option(
            help="A,B as in 0.9,0.1; or weights of A for a sweep: 0.9,0.8,0.5. Of more models one number each.",
            show_default="0.9,0.1; equal for more than two",
        ),
    ] = "",
    group_weights: Annotated[
        list[str], typer.Option(help="Weight of A for the tensors of some groups: ffn=0.5.")
    ] = [],  # noqa: B006
    method: Method = "average",
    base: Base = None,
    parameter: Parameter = [],  # noqa: B006
    plan_file: Annotated[Path | None, typer.Option("--plan", help="A plan made before.")] = None,
    perms_file: Annotated[Path | None, typer.Option("--perms", help="Permutations matched before.")] = None,
    matcher: Matcher = "correlation",
    absolute: Absolute = False,
    min_frames: MinFrames = 0,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    no_check: NoCheck = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct activation statistics after the merge (REPAIR).")
    ] = False,
    force: Force = False,
    per_model_rate: PerModelRate = False,
    state: State = "",
    other_weights: OtherWeights = False,
    integers_of_a: IntegersOfA = False,
    parametrized: Parametrized = "direction",
    model_class: Class = "",
    align: Align = "first",
    json_: Json = False,
) -> None:
    """Align B, or any more models, to A and average: all in one."""
    from permgraph import pipeline
    from permgraph.calibration import batches_for
    from permgraph.cli.progress import progress_bar
    from permgraph.ir.kept import Savable, kept_on_failure, kept_path
    from permgraph.ir.permutations import Permutations
    from permgraph.memory import memory_for
    from permgraph.reporting.card import matching_text
    from permgraph.weights.ratios import group_weights as ratios_of
    from permgraph.weights.ratios import parse_group_weights, parse_weights

    matcher = matcher_of(matcher, absolute)
    pairs = parse_weights(weights or "0.9,0.1") if not more else []
    parse_group_weights(group_weights)
    chosen = method_of(method, base, parameter, group_weights, seed)
    calibration = data.calibration()
    if repair and not calibration.given:
        raise UsageError(
            "--repair corrects statistics measured on data: give some with --audio, --text, --images or --data."
        )
    if more:
        refuse_for_many(
            {
                "--perms": perms_file,
                "--group-weights": group_weights,
                f"--method {method}": chosen is not None,
                "--checkpoint": checkpoint,
                "--repair": repair,
                "--other-weights": other_weights,
                "--max-memory": data.max_memory,
                f"--mode {mode}": mode != "exact",
            }
        )
        several = Several(
            (a, b, *more),
            out,
            weights,
            align,
            matcher,
            calibration,
            plan_file,
            groups,
            exclude,
            seed,
            min_frames,
        )
        how = {"per_model_rate": per_model_rate, "state": state, "model_class": model_class}
        averaging = {"integers_of_a": integers_of_a, "parametrized": parametrized, "force": force}
        return merge_several(several, how, averaging, not no_check, json_)
    if align != "first":
        raise UsageError(f"--align {align}: two models are one pair. Name more than two, or leave it out.")
    plan = planned_before(plan_file, perms_file, groups, exclude, mode)
    perms = Permutations.load(perms_file) if perms_file and plan else None
    files = [path for path in (plan_file, perms_file, base) if path]
    for pair in pairs:
        refuse_weights(pipeline.target_of(out, pair, pairs), force, a, b, *files)
    if perms is None:
        none = groups == "none" and not calibration.given
        pipeline.refuse_unmatchable(plan, calibration, "identity" if none else matcher)
        refuse_checkpoint(checkpoint, plan, a, b, *files, out)
    elif plan is not None:
        pipeline.refuse_other_plan(plan, perms, str(perms_file))
        if calibration.given:
            calibration.refuse_missing()
    models: tuple[Encoder | StoredModel, Encoder | StoredModel]
    known = None
    if plan is not None and perms is not None and not (repair or other_weights or model_class):
        known = pipeline.as_matched(plan, perms, a, b, state, not no_check)
    if known is not None:
        *_, done = known
        models, tensor_weights = known[:2], ratios_of(done.plan, group_weights)
    else:
        models = one, other = pair_of(a, b, per_model_rate, state, model_class, plan)
        plan = plan or pipeline.plan_for(one, groups, exclude, mode)
        tensor_weights = ratios_of(plan, group_weights)
        if perms is not None:
            check = not no_check and plan.mode == "exact"
            if repair or check:
                batches = batches_for(one, other, calibration) if repair and not calibration.data else None
                memory_for(one, other, None, batches, check=check, repair=repair).tell(say)
            done = pipeline.aligned(other, plan, perms, bar=progress_bar, check=not no_check)
        else:
            done = pipeline.align(
                one,
                other,
                plan,
                calibration,
                matcher=matcher,
                seed=seed,
                checkpoint=checkpoint,
                bar=progress_bar,
                verify=not no_check,
                keep=out,
                keep_plan=plan_file is None,
                say=say,
                repair=repair,
                min_frames=min_frames,
            )
    if done.perms.report.get("groups") and not json_:
        print(matching_text(done.perms.report))
    so_far: dict[Path, Savable] = {}
    if perms is None and calibration.given:
        so_far[kept_path(out, "perms")] = done.perms
        if plan_file is None:
            so_far[kept_path(out, "plan")] = done.plan
    with kept_on_failure(so_far):
        written, notes = pipeline.merge_all(
            models[0],
            models[1],
            done,
            out,
            pairs,
            tensor_weights=tensor_weights,
            other_weights=other_weights,
            integers_of_a=integers_of_a,
            parametrized=parametrized,
            method=chosen,
            base=base,
            command=shlex.join(["permgraph", *sys.argv[1:]]),
            force=force,
            repair=calibration if repair else None,
            bar=progress_bar,
        )
    notes = [*done.notes, *notes]
    if json_:
        print_written(written, done.perms.report, notes, done.memory)
    for note in notes:
        say(note)
    for path in written:
        say(f"Merged model written to {path}.")
    if written[0].is_dir():
        say(next_step("report", *written))
