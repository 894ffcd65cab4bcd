"""Calibration on data that the user names: audio, text or batches of a function, read as both models receive it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import FileError, MatchError, UsageError
from permgraph.inputs.batches import Batches, text_batches, user_batches
from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from permgraph.inputs.audio import AudioPairs
    from permgraph.ir.moments import Moments
    from permgraph.weights.encoder import Encoder

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Calibration:
    """What to calibrate on.

    audio     folders, globs, files, manifests
    seconds   length of every clip; clips: at most so many, evenly spread; batch: clips at a time
    where     manifest rows to keep, {"split": "train"}
    data      instead of audio: a function file.py:batches that yields what the models take; clips: at most so many
    allow_empty  let a source of audio give no clip
    text      instead of audio: text files, one sample a line, read with A's tokenizer; clips: at most so many lines
    """

    audio: tuple[str, ...] = ()
    seconds: float = 5.0
    clips: int | None = 200
    batch: int = 4
    max_bad: float = 0.01
    where: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    text: tuple[str, ...] = ()
    allow_empty: bool = False

    @property
    def given(self) -> bool:
        """Whether there is anything to calibrate on. Raises UsageError when there is more than one kind."""
        kinds = [name for name in ("audio", "data", "text") if getattr(self, name)]
        if len(kinds) > 1:
            raise UsageError(f"--{kinds[0]} and --{kinds[1]}: calibrate on one kind of data.")
        return bool(kinds)

    def refuse_missing(self) -> None:
        """Data that is not there, told before any model is built. Raises FileError, UsageError."""
        from permgraph.inputs.clips import gather

        if self.audio:
            gather(self.audio, self.where)
        for file in self.text:
            if not Path(file).is_file():
                raise FileError(f"{file}: no such text file.")
        place, _, name = self.data.rpartition(":")
        if self.data and not (place and name):
            raise UsageError(f"--data {self.data}: write file.py:function.")
        if place.endswith(".py") and not Path(place).expanduser().is_file():
            raise UsageError(f"--data {self.data}: no such file: {place}.")
        if self.where and not self.audio:
            raise UsageError("--where keeps rows of a manifest of audio: give one with --audio.")


def calibrate_on(
    a: Encoder, b: Encoder, plan: Plan, calibration: Calibration, checkpoint: Path | None, bar: Bar | None
) -> tuple[Moments, tuple[str, ...], dict[str, Any]]:
    """One pass of both models over the data; the moments, what is to be said of the data, and what was used of it."""
    from permgraph.matching.calibration import calibrate

    with (bar or silent)("reading headers") as step:
        pairs = batches_for(a, b, calibration, step)
    if isinstance(pairs, Batches):
        told: Any = pairs.identity
    else:
        told = [[str(c.source.path), c.start, c.frames] for c in pairs.clips]
    data = hashlib.sha256(json.dumps([told, str(a.path), str(b.path)]).encode()).hexdigest()[:16]
    with (bar or silent)("calibrating") as step:
        pairs.progress = step
        step(0, pairs.total)
        moments = calibrate(plan, a.module(), b.module(), pairs, checkpoint=checkpoint, data=data)
    if isinstance(pairs, Batches):
        return moments, pairs.notes, {"data": list(pairs.notes) or [calibration.data]}
    assumed = [f"{e.name}: {e.audio.assumed}" for e in (a, b) if e.audio.assumed]
    used = {"seconds": calibration.seconds, "sources": pairs.report.to_json()["sources"]}
    return moments, (*dict.fromkeys(assumed), *pairs.report.notes()), used


def batches_for(
    a: Encoder, b: Encoder, calibration: Calibration, step: Callable[[int, int], None] | None = None
) -> AudioPairs | Batches:
    """What both models receive, of whatever kind was given. `step` is told how many files are looked at."""
    if calibration.data:
        return user_batches(calibration.data, calibration.clips)
    if calibration.text:
        return text_batches(a.path, list(calibration.text), calibration.batch, calibration.clips)
    return _audio_pairs(a, b, calibration, step)


def _audio_pairs(
    a: Encoder, b: Encoder, calibration: Calibration, step: Callable[[int, int], None] | None
) -> AudioPairs:
    """The clips at the sampling rate and with the normalisation of each model."""
    from permgraph.inputs.audio import AudioPairs, Preprocess

    preprocess = [Preprocess(_rate(e), e.do_normalize) for e in (a, b)]
    return AudioPairs(
        list(calibration.audio),
        *preprocess,
        seconds=calibration.seconds,
        batch=calibration.batch,
        limit=calibration.clips,
        where=dict(calibration.where) or None,
        max_bad=calibration.max_bad,
        allow_empty=calibration.allow_empty,
        scanning=step,
    )


def _rate(encoder: Encoder) -> int:
    if encoder.sampling_rate is None:
        raise MatchError(
            f"{encoder.name}: this model does not take raw audio. Give what it takes with --text, or with --data file.py:batches, a "
            "function that yields batches (permgraph.calibrate in Python)."
        )
    return encoder.sampling_rate


def silent(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda done, total: None)
