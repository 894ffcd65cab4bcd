"""Verbs of the merger: match, merge, report, demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.options import (
    AudioArg,
    Batch,
    Checkpoint,
    Clips,
    Data,
    Exclude,
    Groups,
    Images,
    IntegersOfA,
    Json,
    Matcher,
    MaxBad,
    Mode,
    NoCheck,
    OtherWeights,
    Parametrized,
    Seconds,
    State,
    Text,
    Where,
)
from permgraph.cli.shared import (
    calibration_of,
    pair_of,
    print_json,
    say,
)
from permgraph.errors import UsageError


@app.command()
def match(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file.")],
    a: Annotated[Path, typer.Option("--a", help="Model A, the reference.")],
    b: Annotated[Path, typer.Option("--b", help="Model B, to be aligned to A.")],
    audio: AudioArg = [],  # noqa: B006
    data: Data = "",
    text: Text = [],  # noqa: B006
    images: Images = [],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the permutations.")] = Path(
        "perms.safetensors"
    ),
    matcher: Matcher = "correlation",
    seconds: Seconds = None,
    clips: Clips = 200,
    batch: Batch = 4,
    max_bad: MaxBad = 0.01,
    where: Where = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of the random matcher and the shuffled baseline.")] = 0,
    checkpoint: Checkpoint = None,
    per_model_rate: Annotated[
        bool, typer.Option("--per-model-rate", help="Let A and B have different sampling rates.")
    ] = False,
    state: State = "",
) -> None:
    """Match B's units to A's on calibration audio; write the permutations."""
    from permgraph.cli.progress import progress_bar
    from permgraph.ir.plan import Plan
    from permgraph.pipeline import align
    from permgraph.reporting.card import matching_text

    one, other = pair_of(a, b, per_model_rate, state)
    calibration = calibration_of(audio, seconds, clips, batch, max_bad, where, data, text, images)
    done = align(
        one,
        other,
        Plan.load(plan_file),
        calibration,
        matcher=matcher,
        seed=seed,
        checkpoint=checkpoint,
        bar=progress_bar,
    )
    done.perms.save(out)
    print(matching_text(done.perms.report))
    for note in done.notes:
        say(note)
    say(
        f"Permutations written to {out}. Next: permgraph merge {a} {b} --plan {plan_file} --perms {out} -o MERGED"
    )


@app.command()
def merge(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference model.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model to align and merge in.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The merged model.")],
    groups: Groups = "cnn,heads,ffn2",
    exclude: Exclude = "",
    mode: Mode = "exact",
    audio: AudioArg = [],  # noqa: B006
    data: Data = "",
    text: Text = [],  # noqa: B006
    images: Images = [],  # noqa: B006
    weights: Annotated[
        str, typer.Option(help="A,B as in 0.9,0.1; or weights of A for a sweep: 0.9,0.8,0.5.")
    ] = "0.9,0.1",
    group_weights: Annotated[
        list[str], typer.Option(help="Weight of A for the tensors of some groups: ffn=0.5.")
    ] = [],  # noqa: B006
    plan_file: Annotated[Path | None, typer.Option("--plan", help="A plan made before.")] = None,
    perms_file: Annotated[Path | None, typer.Option("--perms", help="Permutations matched before.")] = None,
    matcher: Matcher = "correlation",
    seconds: Seconds = None,
    clips: Clips = 200,
    batch: Batch = 4,
    max_bad: MaxBad = 0.01,
    where: Where = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of the random matcher and the shuffled baseline.")] = 0,
    checkpoint: Checkpoint = None,
    no_check: NoCheck = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct activation statistics after the merge (REPAIR).")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    per_model_rate: Annotated[
        bool, typer.Option("--per-model-rate", help="Let A and B have different sampling rates.")
    ] = False,
    state: State = "",
    other_weights: OtherWeights = False,
    integers_of_a: IntegersOfA = False,
    parametrized: Parametrized = "direction",
) -> None:
    """Align B to A and average: the whole line in one command."""
    from permgraph import pipeline as line
    from permgraph.cli.progress import progress_bar
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.plan import Plan
    from permgraph.reporting.card import matching_text
    from permgraph.weights.ratios import group_weights as ratios_of
    from permgraph.weights.ratios import parse_weights

    pairs = parse_weights(weights)
    if perms_file is not None and plan_file is None:
        raise UsageError("--perms needs the --plan it was matched for.")
    one, other = pair_of(a, b, per_model_rate, state)
    plan = Plan.load(plan_file) if plan_file else line.plan_for(one, groups, exclude, mode)
    calibration = calibration_of(audio, seconds, clips, batch, max_bad, where, data, text, images)
    if perms_file is not None:
        done = line.aligned(other, plan, Permutations.load(perms_file), bar=progress_bar, check=not no_check)
    else:
        done = line.align(
            one,
            other,
            plan,
            calibration,
            matcher=matcher,
            seed=seed,
            checkpoint=checkpoint,
            bar=progress_bar,
            verify=not no_check,
        )
    if done.perms.report.get("groups"):
        print(matching_text(done.perms.report))
    command = "permgraph " + " ".join(sys.argv[1:])
    if repair and not calibration.given:
        raise UsageError(
            "--repair corrects statistics measured on data: give some with --audio, --text, --images or --data."
        )
    written, notes = line.merge_all(
        one,
        other,
        done,
        out,
        pairs,
        tensor_weights=ratios_of(plan, group_weights),
        other_weights=other_weights,
        integers_of_a=integers_of_a,
        parametrized=parametrized,
        command=command,
        force=force,
        repair=calibration if repair else None,
        bar=progress_bar,
    )
    for note in (*done.notes, *notes):
        say(note)
    for path in written:
        say(f"Merged model written to {path}.")


@app.command()
def report(
    perms_files: Annotated[
        list[Path], typer.Argument(metavar="PERMS…", help="Permutation files, or folders made by merge.")
    ],
    groups: Annotated[
        bool, typer.Option("--groups", help="One row per group instead of one per section of the network.")
    ] = False,
    json_: Json = False,
) -> None:
    """Print what moved, what a random order would leave in place, dead units and correlations (the paper's Table II)."""
    from permgraph.pipeline import matching_of
    from permgraph.reporting.sections import sections_text

    loaded = {str(path): matching_of(path).report for path in perms_files}
    if json_:
        print_json(loaded)
        return
    for path, row in loaded.items():
        print(
            f"{path}: {row.get('selection', '')} ({row.get('matcher', '')})\n{sections_text(row, not groups)}\n"
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "permgraph-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the synthesised audio.")] = 0,
) -> None:
    """Align and merge two small encoders that ship with permgraph, on audio made on the spot."""
    from permgraph.cli.progress import progress_bar
    from permgraph.demo import run_demo

    run_demo(out, print, progress_bar, seed)
