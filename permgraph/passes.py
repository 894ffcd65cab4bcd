"""Passes: both models over the data, once, or in turns of groups where the memory is limited."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.calibration import Bar, Calibration, batches_for, notes_on, settings_of, silent
from permgraph.inputs.batches import Batches
from permgraph.ir.moments import Moments
from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from permgraph.inputs.audio import AudioPairs
    from permgraph.matching.memory import Memory, Pass
    from permgraph.weights.encoder import Encoder


@dataclass(frozen=True)
class Calibrated:
    """One pass of both models over the data.

    notes   what is to be said of the data
    used    what was used of them
    memory  what it was estimated to need
    number, count  which of how many passes
    """

    moments: Moments
    notes: tuple[str, ...]
    used: dict[str, Any]
    memory: Memory
    number: int = 0
    count: int = 1

    def named(self, path: Path) -> Path:
        """Where something of this pass is kept: "moments.0-of-3.safetensors" where there are several."""
        return path_of_pass(path, self.number, self.count)


def path_of_pass(path: Path, number: int, count: int) -> Path:
    return path if count == 1 else path.with_name(f"{path.stem}.{number}-of-{count}{path.suffix}")


def files_of_passes(path: Path) -> list[Path]:
    """What is there under the names of passes, of however many."""
    name = re.compile(rf"{re.escape(path.stem)}\.\d+-of-\d+{re.escape(path.suffix)}")
    folder = path.parent
    return sorted(p for p in folder.iterdir() if name.fullmatch(p.name)) if folder.is_dir() else []


def calibrate_on(
    a: Encoder,
    b: Encoder,
    plan: Plan,
    calibration: Calibration,
    checkpoint: Path | None,
    bar: Bar | None,
    say: Callable[[str], None] = lambda text: None,
    check: bool = False,
    repair: bool = False,
) -> Iterator[Calibrated]:
    """Passes of both models over the data, one unless the memory is limited; each sees groups of its own.

    `say` is told the memory that they will need, before they start, and a function `check` or a `repair` that follows.
    Raises MatchError where that is more than there is.
    """
    from permgraph.matching.devices import devices
    from permgraph.matching.memory import passes
    from permgraph.memory import estimates

    places = devices(calibration.device)
    with (bar or silent)("reading headers") as step:
        pairs = batches_for(a, b, calibration, step)
    known = None if calibration.data else pairs
    estimate = estimates(a, b, plan, known, checkpoint is not None, check, repair)
    turns = passes(plan, calibration.max_memory, estimate)
    for turn in turns:
        turn.memory.refuse()
    max((turn.memory for turn in turns), key=lambda memory: memory.total).tell(say, len(turns))
    for number, turn in enumerate(turns):
        if number:
            pairs = batches_for(a, b, calibration)
        kept = checkpoint and path_of_pass(checkpoint, number, len(turns))
        title = "calibrating" if len(turns) == 1 else f"calibrating, pass {number + 1} of {len(turns)}"
        moments = _one_pass(a, b, plan, calibration, pairs, turn, places, kept, (bar or silent)(title))
        yield replace(_told(a, b, calibration, pairs, moments, turn), number=number, count=len(turns))


def _one_pass(
    a: Encoder,
    b: Encoder,
    plan: Plan,
    calibration: Calibration,
    pairs: AudioPairs | Batches,
    turn: Pass,
    places: Sequence[Any],
    checkpoint: Path | None,
    bar: AbstractContextManager[Callable[[int, int], None]],
) -> Moments:
    from permgraph.matching.calibration import calibrate

    settings = settings_of(pairs, calibration)
    shard, batches = calibration.shard, pairs
    if shard is not None:
        if isinstance(pairs, Batches):
            batches = Batches(
                lambda: shard.each(pairs), pairs.identity, pairs.notes, -(-pairs.total // shard.count)
            )
        else:
            pairs.clips = shard.of(pairs.clips)
    with bar as step:
        batches.progress = step
        step(0, batches.total)
        return calibrate(
            plan,
            a.module().to(places[0]),
            b.module().to(places[1]),
            batches,
            checkpoint=checkpoint,
            settings=settings,
            stride=calibration.stride,
            shard=shard,
            keys=turn.keys,
        )


def _told(
    a: Encoder,
    b: Encoder,
    calibration: Calibration,
    pairs: AudioPairs | Batches,
    moments: Moments,
    turn: Pass,
) -> Calibrated:
    """The moments with what is to be said of the data."""
    if isinstance(pairs, Batches):
        named = list(pairs.notes) or [Path(p).name for p in calibration.named]
        return Calibrated(moments, pairs.notes, {"data": named}, turn.memory)
    used = {"seconds": pairs.seconds, "sources": pairs.report.to_json()["sources"]}
    return Calibrated(moments, (*notes_on(a, b, pairs), *pairs.report.notes()), used, turn.memory)
