"""Many: several encoders aligned to the first and merged into one, from models to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.calibration import Bar, Calibration, read_as, silent
from permgraph.errors import FileError, MatchError, PlanError
from permgraph.ir.kept import Savable, kept_on_failure, kept_path
from permgraph.ir.names import letter
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.passes import Calibrated, calibrate_on
from permgraph.pipeline import (
    CARD,
    PERMUTATIONS,
    PLAN,
    check_function,
    matching_of,
    refuse_unmatchable,
)
from permgraph.verification.checkpoints import SKIPPED, Checked, with_check

if TYPE_CHECKING:
    from permgraph.ir.moments import Moments
    from permgraph.weights.encoder import Encoder
    from permgraph.weights.record import Record


@dataclass(frozen=True)
class AlignedMany:
    """The units of B, C and so on brought to A's: permutations and function check of each, and notes for people."""

    plan: Plan
    perms: tuple[Permutations, ...]
    checked: tuple[Checked, ...]
    notes: tuple[str, ...] = ()


def align_many(
    encoders: Sequence[Encoder],
    plan: Plan,
    calibration: Calibration,
    *,
    matcher: str = "correlation",
    way: str = "first",
    seed: int = 0,
    bar: Bar | None = None,
    verify: bool = True,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    min_frames: int = 0,
) -> AlignedMany:
    """Match the units of all to the first's, and check of each other that it computes permuted what it computes.

    way    what is compared, see `permgraph.matching.many.WAYS`
    keep   where a later step fails, plan and permutations are saved under names that begin so
    say    is told the memory that a calibration will need

    Raises MatchError without the data that a matcher needs, VerificationError when a function would change.
    """
    from permgraph.matching.many import match_many, wanted_pairs
    from permgraph.matching.matchers import find_matcher
    from permgraph.weights.planned import numbers_stored

    refuse_unmatchable(plan, calibration, matcher)
    _refuse_pairs_of_inputs(calibration)
    row, names = find_matcher(matcher), [one.name for one in encoders]
    if not plan.groups:
        empty = Permutations({}, {"matcher": matcher, "seed": seed, "groups": {}}, plan.origin)
        done = tuple(Checked(name, why="nothing is permuted") for name in names[1:])
        return AlignedMany(plan, (empty,) * (len(encoders) - 1), done)
    pairs = wanted_pairs(len(encoders), way if row.score is not None else "first")
    calibrated: dict[tuple[int, int], Calibrated] = {}
    for number, (i, j) in enumerate(pairs if calibration.given else ()):
        said = say if not number else _nothing
        title = _titled(bar, f"{letter(i)} and {letter(j)}: ")
        (one,) = calibrate_on(encoders[i], encoders[j], plan, calibration, None, title, said, verify)
        _refuse_few(one.moments, min_frames)
        calibrated[i, j] = one
    moments = {pair: one.moments for pair, one in calibrated.items()}
    weights = [numbers_stored(plan, one.checkpoint) for one in encoders] if row.of_weights else None
    with (bar or silent)("matching") as step:
        step(0, 1)
        found = match_many(plan, len(encoders), moments, weights, matcher, way, seed)[1:]
        step(1, 1)
    used = [calibrated[0, j].used if (0, j) in calibrated else None for j in range(1, len(encoders))]
    perms = [
        replace(one, report=one.report | _told(plan, encoders[0], other, data))
        for one, other, data in zip(found, encoders[1:], used, strict=True)
    ]
    so_far: dict[Path, Savable] = {}
    if keep is not None and (calibrated or row.of_weights):
        so_far[kept_path(keep, "plan")] = plan
        so_far |= {kept_path(keep, f"perms-{letter(i).lower()}"): one for i, one in enumerate(perms, 1)}
    with kept_on_failure(so_far):
        checked = [
            check_function(other, plan, one, bar) if verify else Checked(other.name, why=SKIPPED)
            for one, other in zip(perms, encoders[1:], strict=True)
        ]
    perms = [with_check(plan, one, check) for one, check in zip(perms, checked, strict=True)]
    notes = [*read_as(*encoders), *(note for one in calibrated.values() for note in one.notes)]
    notes = [*dict.fromkeys(notes), *(check.text() for check in checked)]
    return AlignedMany(plan, tuple(perms), tuple(checked), tuple(notes))


def merge_many(
    encoders: Sequence[Encoder],
    aligned: AlignedMany,
    out: Path,
    weights: Sequence[float],
    *,
    integers_of_a: bool = False,
    parametrized: str = "direction",
    command: str = "",
    force: bool = False,
) -> list[str]:
    """Write the average of all, weighted, to `out`, in the layout of A; returns notes. Raises FileError, PlanError."""
    from permgraph.reporting.many_card import many_card
    from permgraph.weights.computed import SAID, layers_in
    from permgraph.weights.merge_files import merge_files

    plan, names = aligned.plan, [one.name for one in encoders]
    card = many_card(names, plan, aligned.perms, weights, command, aligned.notes)
    beside = {CARD: card.encode(), PLAN: plan.to_bytes()}
    beside |= {permutations_name(i): one.to_bytes() for i, one in enumerate(aligned.perms, 1)}
    merge_files(
        [one.path for one in encoders],
        out,
        tuple(weights),
        plan=plan,
        perms=aligned.perms,
        integers_of_a=integers_of_a,
        parametrized=parametrized,
        extra=beside if out.suffix != ".safetensors" else None,
        checked=_checks(aligned.checked),
        state=next((one.state for one in encoders if one.state), ""),
        force=force,
    )
    notes = [mixed for one in encoders if (mixed := one.checkpoint.mixed)]
    computed = layers_in(encoders[0].checkpoint, parametrized)
    if count := len({layer.keys[layer.main] for layer in computed.values()}):
        what = "weights computed from parts (weight norm, spectral norm)"
        notes.append(f"{count} {what}: {SAID[parametrized]}")
    return notes


def permutations_name(number: int) -> str:
    """The file beside a merged model with the permutations of B (1), C (2) and so on."""
    stem, _, suffix = PERMUTATIONS.rpartition(".")
    return PERMUTATIONS if number == 1 else f"{stem}-{letter(number).lower().replace(' ', '-')}.{suffix}"


def matchings_of(path: Path) -> dict[str, Permutations]:
    """What `report` prints → the permutations in a file, or all of those in a folder that `merge` wrote.

    Raises FileError, PlanError, as `matching_of`.
    """
    first = matching_of(path)
    others = _record(path).others if path.is_dir() else ()
    if not others:
        return {str(path): first}
    found = {f"{path}, B": first}
    for number, applied in enumerate(others, 2):
        file = path / permutations_name(number)
        perms = Permutations.load(file)
        if (applied.plan, applied.permutations) != (perms.origin.plan, perms.digest):
            raise PlanError(
                f"{file}: not the permutations that {path} was merged with (digest {applied.permutations[:12]}…, these have "
                f"{perms.digest[:12]}…). Merge again."
            )
        found[f"{path}, {letter(number)}"] = perms
    return found


def matching_alone(path: Path) -> Permutations:
    """The permutations in a file, or in a folder that was merged from two. Raises FileError, PlanError."""
    found = matchings_of(path)
    if len(found) > 1:
        raise PlanError(
            f"{path}: merged from {len(found) + 1} models. Name one of its files of permutations."
        )
    return found[str(path)]


def _record(folder: Path) -> Record:
    from permgraph.weights.checkpoint import open_checkpoint

    record = open_checkpoint(folder).record
    if record is None:
        raise FileError(f"{folder}: has no record, so `permgraph merge` did not write it.")
    return record


def _checks(checked: Iterable[Checked]) -> dict[str, Any]:
    """The function checks of all, as one entry of a record: the largest change, and what became of each."""
    each = [one.record() for one in checked]
    made = [row for row in each if row["checked"]]
    whole: dict[str, Any] = {"checked": len(made) == len(each)}
    if made:
        whole |= {key: max(row[key] for row in made) for key in ("change", "limit", "noise")}
    return whole | {"models": each}


def _told(plan: Plan, a: Encoder, b: Encoder, used: dict[str, Any] | None) -> dict[str, Any]:
    """What a report says of a pair of models beside the matching."""
    found = {"read_as": list(read_as(a, b)), "calibration": used}
    return {"selection": plan.selection, "a": a.name, "b": b.name, **{k: v for k, v in found.items() if v}}


def _titled(bar: Bar | None, before: str) -> Bar | None:
    return None if bar is None else lambda title: bar(before + title)


def _refuse_few(moments: Moments, least: int) -> None:
    from permgraph.matching.matchers import refuse_few

    refuse_few(moments, least)


def _refuse_pairs_of_inputs(calibration: Calibration) -> None:
    """Batches that are a `Pair`: of two models, and here are more. Raises MatchError."""
    from permgraph.frontend.batches import Pair
    from permgraph.inputs.batches import user_batches

    if calibration.data and isinstance(next(iter(user_batches(calibration.data, 1)), None), Pair):
        raise MatchError(
            f"--data {calibration.data}: yields pairs of inputs, one for A and one for B, and there are more models. Yield what "
            "all models take; or calibrate every pair in Python, and pass the moments to pg.match_many."
        )


def _nothing(text: str) -> None:
    pass
