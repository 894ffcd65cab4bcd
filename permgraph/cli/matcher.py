"""The verb of matching: match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from permgraph.cli.app import app
from permgraph.cli.data_options import DataOptions, takes_data
from permgraph.cli.early import refuse_checkpoint, refuse_foreign
from permgraph.cli.options import (
    Absolute,
    Checkpoint,
    Class,
    Force,
    Json,
    Matcher,
    MinFrames,
    ModelA,
    ModelB,
    PerModelRate,
    Seed,
    State,
)
from permgraph.cli.shared import (
    matcher_of,
    next_step,
    pair_of,
    print_written,
    say,
)
from permgraph.errors import UsageError

if TYPE_CHECKING:
    from permgraph.calibration import Calibration
    from permgraph.ir.moments import Moments
    from permgraph.ir.permutations import Permutations
    from permgraph.ir.plan import Plan
    from permgraph.matching.memory import Memory


@app.command()
@takes_data
def match(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file.")],
    a: ModelA = None,
    b: ModelB = None,
    moments_files: Annotated[
        list[Path],
        typer.Option(
            "--moments",
            help="Instead of data: what `calibrate` or `moments merge` wrote; once for each of several passes.",
        ),
    ] = [],  # noqa: B006
    *,
    data: DataOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the permutations.")] = Path(
        "perms.safetensors"
    ),
    matcher: Matcher = "correlation",
    absolute: Absolute = False,
    min_frames: MinFrames = 0,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    per_model_rate: PerModelRate = False,
    state: State = "",
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Match B's units to A's, on data or on moments."""
    from permgraph.cli.progress import progress_bar
    from permgraph.ir.plan import Plan

    matcher = matcher_of(matcher, absolute)
    plan = Plan.load(plan_file)
    calibration = data.calibration()
    if moments_files:
        _match_before(
            plan, plan_file, moments_files, out, calibration, matcher, seed, json_, force, min_frames
        )
        return
    from permgraph.pipeline import align, refuse_unmatchable

    if a is None or b is None:
        raise UsageError(
            "match: give both models with --a and --b, or --moments that were calibrated before."
        )
    refuse_foreign(out, force, plan_file, a, b, *calibration.named)
    refuse_unmatchable(plan, calibration, matcher)
    refuse_checkpoint(checkpoint, plan, a, b, plan_file, out)
    one, other = pair_of(a, b, per_model_rate, state, model_class, plan)
    done = align(
        one,
        other,
        plan,
        calibration,
        matcher=matcher,
        seed=seed,
        checkpoint=checkpoint,
        bar=progress_bar,
        keep=out,
        say=say,
        min_frames=min_frames,
    )
    typed = {"--state": state, "--class": model_class}
    options = ["--per-model-rate"] * per_model_rate + [x for pair in typed.items() if pair[1] for x in pair]
    following = next_step("merge", a, b, "--plan", plan_file, "--perms", out, *options, "-o", "MERGED")
    _write_matched(done.perms, out, following, json_, force, done.notes, done.memory)


def _write_matched(
    perms: Permutations,
    out: Path,
    following: str,
    json_: bool,
    force: bool,
    notes: Sequence[str] = (),
    memory: Memory | None = None,
) -> None:
    from permgraph.reporting.card import matching_text

    perms.save(out, force)
    if json_:
        print_written([out], perms.report, notes, memory)
    else:
        print(matching_text(perms.report))
    for note in notes:
        say(note)
    say(f"Permutations written to {out}. {following}")


def _match_before(
    plan: Plan,
    plan_file: Path,
    moments_files: list[Path],
    out: Path,
    calibration: Calibration,
    matcher: str,
    seed: int,
    json_: bool,
    force: bool,
    min_frames: int,
) -> None:
    """`match` without models or data."""
    from dataclasses import replace

    from permgraph.matching.matchers import match_passes

    if calibration.given:
        raise UsageError("--moments were calibrated before: give them or data, not both.")
    refuse_foreign(out, force, plan_file, *moments_files)
    perms = match_passes(plan, (_whole_moments(file, min_frames) for file in moments_files), matcher, seed)
    perms = replace(perms, report={**perms.report, "selection": plan.selection})
    _write_matched(perms, out, next_step("apply", plan_file, out, "B", "-o", "ALIGNED"), json_, force)


def _whole_moments(file: Path, min_frames: int) -> Moments:
    """Moments of all of the data. Raises UsageError for a shard, MatchError for fewer frames than that."""
    from permgraph.ir.moments import Moments
    from permgraph.matching.matchers import refuse_few

    found = Moments.load(file)
    if "shard" in found.meta:
        raise UsageError(
            f"{file}: shard {found.meta['shard']} of the data alone. "
            f"{next_step('moments', 'merge', file, '…', '-o', 'all.safetensors')}"
        )
    refuse_few(found, min_frames)
    return found
