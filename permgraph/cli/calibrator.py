"""Verbs of calibration: calibrate, moments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from permgraph.cli.app import app
from permgraph.cli.data_options import DataOptions, takes_data
from permgraph.cli.early import refuse_checkpoint, refuse_foreign
from permgraph.cli.options import (
    Checkpoint,
    Class,
    Force,
    Json,
    ModelA,
    ModelB,
    PerModelRate,
    State,
)
from permgraph.cli.shared import next_step, pair_of, print_json, say
from permgraph.errors import UsageError

if TYPE_CHECKING:
    from permgraph.ir.moments import Moments
    from permgraph.passes import Calibrated

moments = typer.Typer(help="Moments of calibrations: add them up.", no_args_is_help=True)
app.add_typer(moments, name="moments")


@app.command()
@takes_data
def calibrate(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file.")],
    a: ModelA = None,
    b: ModelB = None,
    *,
    data: DataOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the moments.")] = Path(
        "moments.safetensors"
    ),
    shard: Annotated[
        str,
        typer.Option(
            help="I/N: use the I-th of N parts of the data, counted from 0; add them with `moments merge`."
        ),
    ] = "",
    checkpoint: Checkpoint = None,
    per_model_rate: PerModelRate = False,
    wait: Annotated[
        float,
        typer.Option(
            min=1, max=10**6, help="Under torchrun: seconds that ranks wait for one another at most."
        ),
    ] = 1800.0,
    state: State = "",
    model_class: Class = "",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Run both models over data and keep their moments.

    From these `match` needs neither models nor data.

    Under torchrun, every process takes its part of the data, and the first writes the sum.
    """
    from permgraph.cli.progress import progress_bar
    from permgraph.ir.plan import Plan
    from permgraph.matching.ranks import Ranks
    from permgraph.matching.shards import Shard
    from permgraph.passes import calibrate_on, files_of_passes
    from permgraph.pipeline import refuse_unmatchable

    ranks = Ranks.of_environment()
    if ranks is not None and shard:
        raise UsageError(
            f"--shard {shard}: under torchrun the processes share the data by themselves. Leave it out."
        )
    if ranks is not None and data.max_memory:
        raise UsageError(
            "--max-memory: under torchrun all groups take one pass. Leave it out, or calibrate shard after shard with --shard."
        )
    part = ranks.shard if ranks else Shard.parse(shard) if shard else None
    plan = Plan.load(plan_file)
    calibration = data.calibration(part)
    if a is None or b is None:
        raise UsageError("calibrate: give both models with --a and --b.")
    for path in (out, *(files_of_passes(out) if data.max_memory else ())):
        refuse_foreign(path, force, plan_file, a, b, *calibration.named)
    refuse_unmatchable(plan, calibration, "correlation")
    if checkpoint is not None and ranks is not None:
        checkpoint = checkpoint.with_name(f"{checkpoint.name}.{ranks.rank}-of-{ranks.world}")
    refuse_checkpoint(checkpoint, plan, a, b, plan_file, out)
    one, other = pair_of(a, b, per_model_rate, state, model_class, plan)

    alone = ranks is None or ranks.rank == 0  # of several processes the first speaks
    told = (progress_bar, say) if alone else (None,)
    passes = calibrate_on(one, other, plan, calibration, checkpoint, *told)
    if ranks is not None:
        found, notes = ranks.all_of(lambda: _of_one(next(passes)), wait)
        if alone:
            found.save(out, force)
            notes = tuple(f"Process {ranks.rank + 1} of {ranks.world}: {note}" for note in notes)
            _say_written(found, [out], notes, plan_file, json_)
        return
    written: list[Path] = []
    for done in passes:
        written.append(done.named(out))
        done.moments.save(written[-1], force)
        if len(written) == done.count:
            _say_written(done.moments, written, done.notes, plan_file, json_)


def _of_one(done: Calibrated) -> tuple[Moments, tuple[str, ...]]:
    return done.moments, done.notes


def _say_written(
    last: Moments, written: list[Path], notes: tuple[str, ...], plan_file: Path, json_: bool
) -> None:
    """What was written, in one pass or several; of the last, how much it has seen."""
    from permgraph.ir.names import in_order

    samples = in_order({key: probe.n for key, probe in last.probes.items()})
    if json_:
        named = ("data", "batches", "stride", "shard")
        told: dict[str, Any] = {key: last.meta[key] for key in named if key in last.meta}
        told["settings"] = {key: text for key, text in last.meta.items() if key not in told}
        print_json({"written": list(map(str, written)), "samples": samples, "notes": list(notes), **told})
    else:
        print(f"{len(samples)} probes, up to {max(samples.values(), default=0):,} samples each.")
    for note in notes:
        say(note)
    if "shard" in last.meta:
        following = next_step("moments", "merge", written[-1], "…", "-o", "all.safetensors")
    else:
        following = next_step("match", plan_file, *(x for file in written for x in ("--moments", file)))
    say(f"Moments written to {', '.join(map(str, written))}. {following}")


@moments.command("merge")
def merge_moments(
    parts: Annotated[list[Path], typer.Argument(metavar="MOMENTS…", help="What `calibrate` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the sum.")],
    force: Force = False,
    json_: Json = False,
) -> None:
    """Add the shards of a calibration, or calibrations on other data."""
    from permgraph.ir.moments import Moments
    from permgraph.matching.shards import added

    refuse_foreign(out, force, *parts)
    found = added({str(path): Moments.load(path) for path in parts})
    found.save(out, force)
    _say_written(found, [out], (), Path("PLAN"), json_)
