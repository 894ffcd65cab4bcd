"""Pipeline: the whole way in one call, two encoders and calibration audio in, one merged encoder out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.atomic_write import scratch
from permgraph.calibration import Bar, Calibration, read_as, silent
from permgraph.errors import FileError, MatchError, PlanError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.kept import Savable, kept_on_failure, kept_path
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.matching.default_groups import default_groups
from permgraph.matching.probes import refuse_unobserved
from permgraph.passes import Calibrated, calibrate_on
from permgraph.planning.compile import compile_plan
from permgraph.verification.checkpoints import SKIPPED, Checked, checked_before, with_check

if TYPE_CHECKING:
    from permgraph.ir.moments import Moments
    from permgraph.matching.memory import Memory
    from permgraph.weights.encoder import Encoder
    from permgraph.weights.methods import Chosen
    from permgraph.weights.record import Applied
    from permgraph.weights.stored import StoredModel

# Beside the weights of a merged model, for `permgraph report` and `permgraph replay`
CARD, PLAN, PERMUTATIONS = "README.md", "plan.json", "permutations.safetensors"


@dataclass(frozen=True)
class Aligned:
    """B's units brought to A's, with notes on the audio, the function check and the memory estimated for calibration."""

    plan: Plan
    perms: Permutations
    notes: tuple[str, ...] = ()
    checked: Checked | None = None
    memory: Memory | None = None


def plan_for(encoder: Encoder, groups: str = "", exclude: str = "", mode: str = "exact") -> Plan:
    """Trace an encoder from its configuration and plan the selected groups; without any, those that fit the model."""
    from permgraph.symmetry.infer import infer

    spec = infer(replace(encoder.trace, model=encoder.name))  # which plans show
    if not groups:
        groups, hidden = default_groups(spec)
        exclude = ",".join(x for x in (exclude, hidden) if x)
    return compile_plan(spec, groups, exclude, mode)


def align(
    a: Encoder,
    b: Encoder,
    plan: Plan,
    calibration: Calibration | None,
    *,
    matcher: str = "correlation",
    seed: int = 0,
    checkpoint: Path | None = None,
    bar: Bar | None = None,
    verify: bool = True,
    keep: Path | None = None,
    keep_plan: bool = False,
    say: Callable[[str], None] = lambda text: None,
    repair: bool = False,
    min_frames: int = 0,
) -> Aligned:
    """Match B's units to A's on calibration data, and check that the permuted B computes what B computes.

    keep   where a later step fails, moments and permutations (with keep_plan the plan) are saved under names that begin so
    say    is told the memory that the calibration will need, the function check, and with repair the repair that follows

    Raises MatchError without the data that a matcher needs, VerificationError when B's function would change.
    """
    from permgraph.matching.matchers import find_matcher, match_passes, refuse_few
    from permgraph.matching.weights import Weights
    from permgraph.weights.planned import numbers_stored

    refuse_unmatchable(plan, calibration, matcher)
    if not plan.groups:
        return Aligned(plan, Permutations({}, {"matcher": matcher, "seed": seed, "groups": {}}, plan.origin))
    passes: Iterator[Calibrated] = iter(())
    if calibration is not None and calibration.given:
        exact = verify and plan.mode == "exact"
        passes = calibrate_on(a, b, plan, calibration, checkpoint, bar, say, exact, repair)
    done = next(passes, None)
    read = (numbers_stored(plan, one.checkpoint) for one in (a, b))
    weights = Weights.of(plan, *read) if find_matcher(matcher).of_weights else None
    so_far: dict[Path, Savable] = {}

    def each() -> Iterator[Moments]:
        """The moments of each pass, kept until the next is there. Raises MatchError for fewer frames than `min_frames`."""
        for one in chain([done] if done else [], passes):
            if keep is not None:
                so_far.clear()
                so_far.update({kept_path(keep, "plan"): plan} if keep_plan else {})
                so_far.update(
                    {one.named(kept_path(keep, "moments")): one.moments} if checkpoint is None else {}
                )
            refuse_few(one.moments, min_frames)
            yield one.moments

    with kept_on_failure(so_far):
        several = done is not None and done.count > 1  # each shows its own progress
        with (silent if several or bar is None else bar)("matching") as step:
            step(0, 1)
            perms = match_passes(plan, each(), matcher, seed, weights=weights)
            step(1, 1)
        found = {"read_as": list(read_as(a, b)), "calibration": done.used if done else None}
        told = {
            "selection": plan.selection,
            "a": a.name,
            "b": b.name,
            **{k: v for k, v in found.items() if v},
        }
        perms = replace(perms, report=perms.report | told)
        if keep is not None and done is not None:
            so_far[kept_path(keep, "perms")] = perms
        checked = check_function(b, plan, perms, bar) if verify else Checked(b.name, why=SKIPPED)
    perms = with_check(plan, perms, checked)
    notes = (*read_as(a, b), *(done.notes if done else ()), checked.text())
    return Aligned(plan, perms, notes, checked, done.memory if done else None)


def refuse_unmatchable(plan: Plan | None, calibration: Calibration | None, matcher: str) -> None:
    """What can be told of a matching before any model is built. Raises UsageError, MatchError, FileError."""
    from permgraph.matching.matchers import find_matcher

    needed = find_matcher(matcher).score is not None
    if calibration is not None and calibration.given:
        calibration.refuse_missing()
    elif needed and (plan is None or plan.groups):
        raise MatchError(
            f"--matcher {matcher} matches activations: give calibration data with --audio, --text, --images or --data."
        )
    if needed and plan is not None:
        refuse_unobserved(plan)


def refuse_other_plan(plan: Plan, perms: Permutations, where: str) -> None:
    """Permutations of another plan, told before any model is built. Raises PlanError."""
    try:
        check_permutations(plan, perms)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from error


def aligned(
    b: Encoder, plan: Plan, perms: Permutations, *, bar: Bar | None = None, check: bool = True
) -> Aligned:
    """Permutations that were matched before, with the function check. Raises VerificationError."""
    checked = check_function(b, plan, perms, bar) if check else Checked(b.name, why=SKIPPED)
    return Aligned(plan, perms, (*read_as(b), checked.text()), checked)


def as_matched(
    plan: Plan, perms: Permutations, a: Path, b: Path, state: str = "", check: bool = True
) -> tuple[StoredModel, StoredModel, Aligned] | None:
    """Both models without building them, where the permutations say what they were matched on and, with `check`, that the
    function check was made then, for this plan. None where the models themselves are needed.

    No model being built, the plan is not held against a fresh inference: `match` did it before it made that check, and
    `merge_all` refuses weights other than those that were matched.
    """
    from permgraph.weights.stored import stored_pair

    found = stored_pair(plan, perms, a, b, state)
    if found is None:
        return None
    checked = checked_before(plan, perms, found[1].name) if check else Checked(found[1].name, why=SKIPPED)
    read = tuple(str(note) for note in perms.report.get("read_as", ()))
    return None if checked is None else (*found, Aligned(plan, perms, (*read, checked.text()), checked))


def check_function(b: Encoder, plan: Plan, perms: Permutations, bar: Bar | None = None) -> Checked:
    """The function check, on B's own weights and these very permutations. Raises VerificationError."""
    from permgraph.verification.checkpoints import check_encoder

    with (bar or silent)("verifying") as step:
        step(0, 1)
        checked = check_encoder(b, plan, perms)
        step(1, 1)
    return checked


def matching_of(path: Path) -> Permutations:
    """The permutations in a file, or in a folder that `merge` wrote. Raises FileError, PlanError.

    In a folder they have to be those that its weights were permuted by.
    """
    if not path.is_dir():
        return Permutations.load(path)
    from permgraph.weights.checkpoint import open_checkpoint

    if not (path / PERMUTATIONS).is_file():
        raise FileError(f"{path}: holds no {PERMUTATIONS}, so `permgraph merge` did not write it.")
    perms = Permutations.load(path / PERMUTATIONS)
    record = open_checkpoint(path).record
    applied = record.b if record else None
    if applied is None or (applied.plan, applied.permutations) != (perms.origin.plan, perms.digest):
        raise PlanError(
            f"{path}: its weights were made with {_applied(applied)}; {PERMUTATIONS} beside them holds "
            f"permutations {perms.digest[:12]}… of the plan {perms.origin.plan[:12] or '(unknown)'}. Merge again."
        )
    return perms


def _applied(step: Applied | None) -> str:
    return f"permutations {step.permutations[:12]}… of the plan {step.plan[:12]}…" if step else "none"


def merge_all(
    a: Encoder | StoredModel,
    b: Encoder | StoredModel,
    aligned: Aligned,
    out: Path,
    weights: Sequence[tuple[float, float]],
    *,
    tensor_weights: Mapping[str, tuple[float, float]] | None = None,
    parametrized: str = "direction",
    method: Chosen | None = None,
    command: str = "",
    force: bool = False,
    repair: Calibration | None = None,
    bar: Bar | None = None,
    **how: Any,
) -> tuple[list[Path], list[str]]:
    """Write one merged model per pair of weights: OUT, or OUT-0.90, OUT-0.801 … for several.

    tensor_weights  the plan's name of a tensor → its weights, where they are others
    parametrized    how weights that are computed from parts are averaged: "direction", "weight" or "parts"
    method          another one than the average
    how             further options of `merge_files`: other_weights, integers_of_a, base

    With `repair`, activation statistics are corrected on that calibration data. Returns the paths and notes.
    """
    from permgraph.repaired import repair_merged
    from permgraph.reporting.card import model_card
    from permgraph.weights.computed import SAID, layers_in
    from permgraph.weights.merge_files import merge_checkpoints
    from permgraph.weights.names import match_names
    from permgraph.weights.stored import StoredModel

    chosen = tensor_weights or {}
    names = match_names(aligned.plan.spec, a.checkpoint.shapes, str(a.path)) if chosen else {}
    of_key = {escape(key): chosen[name] for key, name in names.items() if name in chosen}
    written: list[Path] = []
    notes: list[str] = [f"merged by {method.text()} of mergekit"] if method else []
    for pair in weights:
        target = target_of(out, pair, weights)
        card = model_card(a.name, b.name, aligned.plan, aligned.perms, pair, command, aligned.notes, method)
        beside = {CARD: card.encode(), PLAN: aligned.plan.to_bytes(), PERMUTATIONS: aligned.perms.to_bytes()}
        extra = beside if target.suffix != ".safetensors" else None
        options: dict[str, Any] = {
            "plan": aligned.plan,
            "perms": aligned.perms,
            "tensor_weights": of_key or None,
            "parametrized": parametrized,
            "method": method,
            **how,
            "state": b.state or a.state,
            "checked": aligned.checked.record() if aligned.checked else None,
        }
        if repair is None:
            merge_checkpoints(a.path, b.path, target, pair, force=force, extra=extra, **options)
        else:
            assert not isinstance(a, StoredModel) and not isinstance(b, StoredModel)
            with scratch(target) as folder:
                raw = folder / target.name
                merge_checkpoints(a.path, b.path, raw, pair, extra=extra, **options)
                notes.append(
                    repair_merged(
                        raw, a, b, aligned.plan, aligned.perms, repair, pair, target, force=force, bar=bar
                    )
                )
        written.append(target)
    notes += [mixed for e in (a, b) if (mixed := e.checkpoint.mixed)]
    computed = layers_in(a.checkpoint, parametrized)
    if count := len({layer.keys[layer.main] for layer in computed.values()}):
        what = "weights computed from parts (weight norm, spectral norm)"
        notes.append(f"{count} {what}: {SAID[parametrized]}")
    return written, notes


def target_of(out: Path, pair: tuple[float, float], weights: Sequence[tuple[float, float]]) -> Path:
    """Where the model of one pair of weights is written."""
    return out if len(weights) == 1 else out.with_name(f"{out.name}-{_written(pair[0])}")


def _written(weight: float) -> str:
    """With two decimals, or as many as it has: two weights never share a name."""
    return f"{weight:.2f}" if float(f"{weight:.2f}") == weight else repr(weight)
