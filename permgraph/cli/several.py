"""Merge of more than two models, as the verb `merge` hands it on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.cli.early import planned_before, refuse_weights
from permgraph.cli.shared import next_step, pair_of, print_written, say
from permgraph.errors import UsageError

if TYPE_CHECKING:
    from permgraph.calibration import Calibration
    from permgraph.ir.plan import Plan
    from permgraph.weights.encoder import Encoder

WHY = {
    "--perms": "permutations of two models are given. Give the data or --matcher weights, and all are matched together",
    "--group-weights": "weights of groups are those of A and B. Give one weight for each model",
    "--method": "methods of mergekit are run on A and the aligned B. Leave it out, or merge two",
    "--checkpoint": "a calibration of two models is resumed. Leave it out",
    "--repair": "statistics of two models are corrected to. Merge without it, or merge two",
    "--other-weights": "all are matched now, and none is of another state. Leave it out",
    "--max-memory": "groups take turns for two models alone. Give fewer clips, or --matcher weights",
    "--mode": "every model has to keep its function. Leave it out",
}


@dataclass(frozen=True)
class Several:
    """What was typed of a merge of several models."""

    paths: tuple[Path, ...]
    out: Path
    weights: str
    align: str
    matcher: str
    calibration: Calibration
    plan_file: Path | None
    groups: str
    exclude: str
    seed: int
    min_frames: int


def refuse_for_many(given: Mapping[str, object]) -> None:
    """Options of a merge of two that several do not have, by what was given of them. Raises UsageError."""
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option}: of more than two models it is not to be had: {WHY[option.split()[0]]}."
            )


def merge_several(
    typed: Several, how: Mapping[str, Any], averaging: Mapping[str, Any], verify: bool, as_json: bool
) -> None:
    """Align all to the first and average.

    how        how models are opened, as `pair_of` takes it
    averaging  further arguments of `permgraph.many.merge_many`
    """
    from permgraph.cli.progress import progress_bar
    from permgraph.many import align_many, merge_many
    from permgraph.matching.many import refuse_way
    from permgraph.pipeline import plan_for, refuse_unmatchable
    from permgraph.reporting.many_card import many_text
    from permgraph.weights.ratios import parse_shares

    refuse_way(typed.align)
    shares = parse_shares(typed.weights, len(typed.paths))
    plan = planned_before(typed.plan_file, None, typed.groups, typed.exclude, "exact")
    if plan is not None and plan.mode != "exact":
        raise UsageError(
            f"--plan {typed.plan_file}: of mode {plan.mode}. {WHY['--mode'].capitalize()}; plan without --mode."
        )
    _refuse_twice(typed.paths)
    refuse_weights(
        typed.out, bool(averaging["force"]), *typed.paths, *([typed.plan_file] if typed.plan_file else [])
    )
    none = typed.groups == "none" and not typed.calibration.given
    matcher = "identity" if none else typed.matcher
    refuse_unmatchable(plan, typed.calibration, matcher)
    encoders = _opened(typed.paths, how, plan)
    plan = plan or plan_for(encoders[0], typed.groups, typed.exclude)
    done = align_many(
        encoders,
        plan,
        typed.calibration,
        matcher=matcher,
        way=typed.align,
        seed=typed.seed,
        bar=progress_bar,
        verify=verify,
        keep=typed.out,
        say=say,
        min_frames=typed.min_frames,
    )
    if plan.groups and not as_json:
        print("\n".join(many_text([one.name for one in encoders], done.perms)))
    command = shlex.join(["permgraph", *sys.argv[1:]])
    notes = [*done.notes, *merge_many(encoders, done, typed.out, shares, command=command, **averaging)]
    if as_json:
        report = {str(one.path): perms.report for one, perms in zip(encoders[1:], done.perms, strict=True)}
        print_written([typed.out], report, notes)
    say(*notes, f"Merged model written to {typed.out}.")
    if typed.out.is_dir():
        say(next_step("report", typed.out))


def _opened(paths: tuple[Path, ...], how: Mapping[str, Any], plan: Plan | None) -> list[Encoder]:
    """All models; each has to be of the first's architecture."""
    first, second = pair_of(paths[0], paths[1], plan=plan, **how)
    return [first, second, *(pair_of(paths[0], path, plan=plan, **how)[1] for path in paths[2:])]


def _refuse_twice(paths: tuple[Path, ...]) -> None:
    """A model that is named twice: its weight would be the sum of two. Raises UsageError."""
    seen: dict[Path, Path] = {}
    for path in paths:
        where = path.expanduser().resolve()
        if where in seen:
            raise UsageError(f"{path}: named twice. Name it once, with the sum of its --weights.")
        seen[where] = path
