"""Audio for calibration: the same moments in time, as each of the two models wants to hear them.

Every batch holds clips of one length (padding would change the features of a GroupNorm front end), in an
order that depends on the files alone. What could not be used is skipped, counted and listed, up to a bound.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from permgraph.errors import FileError
from permgraph.frontend.batches import Pair
from permgraph.inputs import clips as c
from permgraph.inputs.clips import BadAudio, Clip, Samples, Source, shown

if TYPE_CHECKING:
    from torch import Tensor

SILENT = 1e-4  # peak about the mean, full scale 1: less than the last three bits of 16
LOUD = 1.5  # peak of floating-point audio that was scaled wrongly

Progress = Callable[[int, int], None]


class Receiver(Protocol):
    """How a model receives audio: clips brought to its `rate` in Hz one by one, then put together into one batch."""

    @property
    def rate(self) -> int: ...

    def __call__(self, data: Samples, clip: Clip) -> Samples: ...

    def batch(self, clips: Sequence[Samples]) -> Any: ...


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its audio: `rate` in Hz, `normalize` to zero mean and unit variance per clip."""

    rate: int = 16_000
    normalize: bool = False

    @classmethod
    def load(cls, folder: str | Path) -> Preprocess:
        """From a model folder's preprocessor_config.json; the defaults when it has none. Raises FileError."""
        import json

        path = Path(folder) / "preprocessor_config.json"
        if not path.exists():
            return cls()
        try:
            data = json.loads(path.read_bytes())
            rate, size = int(data.get("sampling_rate", cls.rate)), int(data.get("feature_size", 1))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise FileError(f"{shown(path)}: not a preprocessor configuration: {error}.") from error
        if size != 1 or rate <= 0:
            raise FileError(
                f"{shown(path)}: feature_size {size}, sampling_rate {rate}: this model does not hear raw "
                "audio. Calibrate it from Python with batches of its own."
            )
        return cls(rate, bool(data.get("do_normalize", False)))

    def __call__(self, data: Samples, clip: Clip) -> Samples:
        data = c.resample(data, clip, self.rate)
        if self.normalize:
            data = ((data - data.mean(dtype=np.float64)) / np.sqrt(data.var(dtype=np.float64) + 1e-7)).astype(
                np.float32
            )
        return data

    def batch(self, clips: Sequence[Samples]) -> Tensor:
        """(clips, samples), float32."""
        import torch

        return torch.from_numpy(np.stack(clips))


@dataclass
class AudioReport:
    """What became of the audio.

    bad          file → why it was skipped
    short        files shorter than one clip
    silent       clips without sound, left out
    resampled    sampling rate → files
    mixed_down   files with more than one channel
    loud         files whose samples exceed 1.5 of full scale
    duplicates   (file, earlier file or argument with the same content); a copy is used again, the very
                 same file is not
    arguments    argument → clips and seconds used from it: the weight of each domain
    """

    files: int = 0
    clips: int = 0
    seconds: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)
    silent: int = 0
    resampled: dict[int, int] = field(default_factory=dict)
    mixed_down: int = 0
    loud: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    arguments: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def notes(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [f"skipped {name}: {why}" for name, why in sorted(self.bad.items())]
        if self.short:
            lines.append(f"{len(self.short)} files are too short, the first is {self.short[0]}")
        if self.silent:
            lines.append(f"{self.silent} silent clips left out")
        lines += [f"{name} exceeds {LOUD} of full scale: wrongly scaled?" for name in self.loud]
        lines += [f"{one} has the same content as {other}" for one, other in self.duplicates]
        lines += [f"{count} files resampled from {rate} Hz" for rate, count in sorted(self.resampled.items())]
        if self.mixed_down:
            lines.append(f"{self.mixed_down} files mixed down to one channel")
        return lines


class AudioPairs:
    """Batches (audio_a, audio_b): float32 tensors, (clips, samples at A's rate) and (…, at B's rate); or the features that a
    model takes instead.

    Iterating reads the files anew, one window at a time; `report` then says what was used. Row i of both
    tensors is the same stretch of the same file.
    """

    def __init__(
        self,
        audio: Sequence[str | Path],
        a: Receiver | None = None,
        b: Receiver | None = None,
        *,
        seconds: float | None = 5.0,
        batch: int = 8,
        limit: int | None = None,
        per_file: int | None = None,
        where: Mapping[str, str] | None = None,
        max_bad: float = 0.01,
        progress: Progress | None = None,
    ) -> None:
        """Find the files and read their headers.

        audio      folders, files, globs, manifests (csv or tsv with a path column), tars, Lhotse's cuts (jsonl)
        a, b       how each model receives audio; default 16 kHz as it is
        seconds    length of every clip; None takes files whole, batching only equal lengths
        batch      clips per batch
        limit      at most so many clips in all, per_file of each file: evenly spread
        where      manifest rows to keep, {"split": "train"}
        max_bad    share of files that may be unusable
        progress   called with (clips done, clips in all)

        Raises FileError when nothing is usable, or more than `max_bad` of the files are bad.
        """
        self.a: Receiver = a or Preprocess()
        self.b: Receiver = b or Preprocess()
        self.seconds, self.batch, self.max_bad = seconds, batch, max_bad
        self.progress: Progress = progress or (lambda done, total: None)
        self.current: tuple[str, ...] = ()  # files of the batch last given, to name them when it goes wrong
        self.report = AudioReport()
        sources, self.report.duplicates = c.gather(audio, where)
        self.clips = self._scan(sources, per_file)
        if limit is not None:
            self.clips = c.spread(self.clips, limit)
        # equal lengths together; the sort is stable, so by path and time within a length
        self.clips.sort(key=self._lengths)
        self._scanned = copy.deepcopy(self.report)
        if not self.clips:
            self._nothing()

    def __len__(self) -> int:
        """Clips, silent ones included."""
        return len(self.clips)

    def __iter__(self) -> Iterator[Pair]:
        self.report = copy.deepcopy(self._scanned)
        done = 0
        for _, group in groupby(self.clips, key=self._lengths):
            same = list(group)
            for start in range(0, len(same), self.batch):
                part = same[start : start + self.batch]
                heard = [(clip, data) for clip in part if (data := self._read(clip)) is not None]
                if heard:
                    self.current = tuple(clip.source.name for clip, _ in heard)
                    yield Pair(*(p.batch([p(data, clip) for clip, data in heard]) for p in (self.a, self.b)))
                done += len(part)
                self.progress(done, len(self.clips))
        if not self.report.clips:
            self._nothing()

    def _lengths(self, clip: Clip) -> tuple[int, int]:
        return clip.length_at(self.a.rate), clip.length_at(self.b.rate)

    def _scan(self, sources: list[Source], per_file: int | None) -> list[Clip]:
        report, found = self.report, []
        seen: dict[str, str] = {}
        report.files = len(sources)
        for source in sources:
            name = source.name
            try:
                head = c.header(source)
                parts = c.pieces(source, head, self.seconds, per_file)
            except BadAudio as error:
                self._bad(name, error)
                continue
            if head.digest in seen:
                report.duplicates.append((name, seen[head.digest]))
            seen.setdefault(head.digest, name)
            if not parts:
                report.short.append(name)
                continue
            found += parts
            report.mixed_down += head.channels > 1
            if {head.rate} != {self.a.rate, self.b.rate}:
                report.resampled[head.rate] = report.resampled.get(head.rate, 0) + 1
        return found

    def _read(self, clip: Clip) -> Samples | None:
        """The samples of a usable clip; None for a bad or a silent one, which is counted."""
        report, name = self.report, clip.source.name
        if name in report.bad:
            return None
        try:
            data = c.read(clip)
        except BadAudio as error:
            self._bad(name, error)
            return None
        if float(np.abs(data - data.mean()).max()) < SILENT:
            report.silent += 1
            return None
        if float(np.abs(data).max()) > LOUD and name not in report.loud:
            report.loud.append(name)
        seconds = clip.frames / clip.rate
        weight = report.arguments.setdefault(shown(clip.source.argument), {"clips": 0, "seconds": 0.0})
        weight["clips"] += 1
        weight["seconds"] += seconds
        report.clips += 1
        report.seconds += seconds
        return data

    def _bad(self, name: str, error: BadAudio) -> None:
        """Note a bad file. Raises FileError when there are too many."""
        bad, files = self.report.bad, self.report.files
        bad[name] = str(error)
        if len(bad) > self.max_bad * files:
            some = "".join(f"\n  {path}: {why}" for path, why in list(bad.items())[:10])
            raise FileError(
                f"{len(bad)} of {files} audio files cannot be used, more than --max-bad {self.max_bad:g} "
                f"allows. Remove or correct them, or raise --max-bad:{some}"
            )

    def _nothing(self) -> None:
        report = self.report
        length = "one clip" if self.seconds is None else f"{self.seconds:g} s"
        raise FileError(
            f"none of {report.files} audio files can be used: {len(report.bad)} bad, {len(report.short)} "
            f"shorter than {length}, {report.silent} silent clips. Give longer audio or shorter clips."
        )
