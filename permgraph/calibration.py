"""Calibration on data that the user names: audio, text, images or batches of a function, read as both models receive it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from permgraph.errors import FileError, MatchError, UsageError
from permgraph.inputs.batches import Batches, text_batches, text_lines, user_batches

if TYPE_CHECKING:
    from permgraph.inputs.audio import AudioPairs, Receiver
    from permgraph.matching.shards import Shard
    from permgraph.weights.encoder import Encoder

USUAL = 5.0  # seconds of a clip
Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Calibration:
    """What to calibrate on.

    audio     folders, globs, files, manifests
    seconds   length of every clip, None for 5 s or what a feature extractor of fixed length reads; clips: at most so many, evenly spread; batch: clips at a time
    where     manifest rows to keep, {"split": "train"}
    data      instead of audio: a function file.py:batches that yields what the models take; clips: at most so many
    allow_empty  let a source of audio give no clip
    text      instead of audio: text files, one sample a line, read with A's tokenizer; clips: at most so many lines
    images    instead of audio: folders, globs, files, prepared by the image processor of each model; clips: at most so many
    stride    of the frames of front-end convolutions, every how many-th counts
    device    where models run and sums are taken: cpu, auto, cuda:0, or one for A and one for B
    shard     the part of the data that is used; None for all
    max_memory  bytes that a pass may need: groups take turns, in as many passes as that takes; None for one pass
    """

    audio: tuple[str, ...] = ()
    seconds: float | None = None
    clips: int | None = 200
    batch: int = 4
    max_bad: float = 0.01
    where: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    text: tuple[str, ...] = ()
    allow_empty: bool = False
    images: tuple[str, ...] = ()
    stride: int = 1
    device: str = "cpu"
    shard: Shard | None = None
    max_memory: int | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """What was named, of whatever kind."""
        return (*self.audio, *self.text, *self.images, *([self.data] if self.data else []))

    @property
    def given(self) -> bool:
        """Whether there is anything to calibrate on. Raises UsageError when there is more than one kind."""
        kinds = [name for name in ("audio", "data", "text", "images") if getattr(self, name)]
        if len(kinds) > 1:
            raise UsageError(f"--{kinds[0]} and --{kinds[1]}: calibrate on one kind of data.")
        return bool(kinds)

    def refuse_missing(self) -> None:
        """Data that is not there, told before any model is built. Raises FileError, UsageError."""
        from permgraph.frontend.factory import user_function
        from permgraph.inputs import images, sources

        if self.where and not self.audio:
            raise UsageError("--where keeps rows of a manifest of audio: give one with --audio.")
        if self.audio:
            sources.gather(self.audio, self.where)
        if self.images:
            images.refuse_missing(self.images)
        for file in self.text:
            if not Path(file).is_file():
                raise FileError(f"{file}: no such text file.")
        text_lines(self.text)
        place, _, name = self.data.rpartition(":")
        if self.data and not (place and name):
            raise UsageError(f"--data {self.data}: write file.py:function.")
        if place.endswith(".py") and not Path(place).expanduser().is_file():
            raise UsageError(f"--data {self.data}: no such file: {place}.")
        if self.data:
            user_function(self.data)  # its file is run; the function, which may take long, is not called


def settings_of(pairs: AudioPairs | Batches, calibration: Calibration) -> dict[str, str]:
    """What changes the numbers beside plan and weights, by name. Of the data all is meant, whatever the shard."""
    found = {
        "batch": str(calibration.batch),
        "clips": "all" if calibration.clips is None else str(calibration.clips),
    }
    if isinstance(pairs, Batches):
        return found | {"data": _short(pairs.identity)}
    received = {"a": pairs.a, "b": pairs.b}
    heard = {f"received by {side}": _short(repr(one)) for side, one in received.items()}
    return {"batch": found["batch"], "seconds": str(pairs.seconds), "data": pairs.content, **heard}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_as(*encoders: Encoder) -> tuple[str, ...]:
    """What of each folder takes part, in words."""
    return tuple(dict.fromkeys(f"{e.name}: {e.source.note}" for e in encoders if e.source.note))


def batches_for(
    a: Encoder, b: Encoder, calibration: Calibration, step: Callable[[int, int], None] | None = None
) -> AudioPairs | Batches:
    """What both models receive, of whatever kind was given. `step` is told how many files are looked at."""
    if calibration.data:
        return user_batches(calibration.data, calibration.clips)
    if calibration.text:
        return text_batches(a.path, list(calibration.text), calibration.batch, calibration.clips)
    if calibration.images:
        return _images(a, b, calibration)
    return _audio_pairs(a, b, calibration, step)


def _images(a: Encoder, b: Encoder, calibration: Calibration) -> Batches:
    from permgraph.inputs.images import ImageBatches, image_processor

    of_a, of_b = (image_processor(e.folder, e.config, e.source.module, e.name) for e in (a, b))
    options = (calibration.batch, calibration.clips, calibration.max_bad)
    return ImageBatches(calibration.images, of_a, of_b, *options)


def _audio_pairs(
    a: Encoder, b: Encoder, calibration: Calibration, step: Callable[[int, int], None] | None
) -> AudioPairs:
    """The clips at the sampling rate and with the normalisation of each model, or as features of its own extractor."""
    from permgraph.inputs.audio import AudioPairs
    from permgraph.inputs.features import FeatureExtractor

    receivers = [_receiver(e) for e in (a, b)]
    rates = [r.rate for r in receivers]
    if rates[0] != rates[1] and any(isinstance(r, FeatureExtractor) for r in receivers):
        raise MatchError(
            f"the feature extractors of {a.name} and {b.name} work at {rates[0]:,} and {rates[1]:,} Hz: their frames are not "
            "of one length. Give --data file.py:batches, which yields permgraph.Pair(for_a, for_b)."
        )
    return AudioPairs(
        list(calibration.audio),
        *receivers,
        seconds=_seconds(receivers, calibration),
        batch=calibration.batch,
        limit=calibration.clips,
        where=dict(calibration.where) or None,
        max_bad=calibration.max_bad,
        allow_empty=calibration.allow_empty,
        scanning=step,
    )


def _receiver(encoder: Encoder) -> Receiver:
    """How a model receives audio. Raises MatchError when it takes none."""
    from permgraph.inputs.audio import Preprocess
    from permgraph.inputs.features import feature_extractor

    if encoder.sampling_rate is not None:
        return Preprocess(encoder.sampling_rate, encoder.do_normalize)
    return feature_extractor(encoder.folder, encoder.config, encoder.source.module, encoder.name)


def _seconds(receivers: Sequence[Receiver], calibration: Calibration) -> float:
    """The length that was asked for, or that a feature extractor reads, or 5 s."""
    own = [s for r in receivers if (s := getattr(r, "seconds", None))]
    return calibration.seconds or max(own, default=USUAL)


def notes_on(a: Encoder, b: Encoder, pairs: AudioPairs) -> list[str]:
    """What the models receive that nobody said, and padding."""
    from permgraph.inputs.features import FeatureExtractor

    notes = []
    for encoder, receiver in ((a, pairs.a), (b, pairs.b)):
        if isinstance(receiver, FeatureExtractor):
            said = [receiver.assumed, receiver.note(pairs.seconds or USUAL)]
        else:
            said = [encoder.audio.assumed]
        notes += [f"{encoder.name}: {text}" for text in said if text]
    return list(dict.fromkeys(notes))


def silent(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda done, total: None)
