"""Audio for calibration: the same moments in time, as each of the two models receives them.

Every batch holds clips of one length (padding would change the features of a GroupNorm front end), in an
order that depends on the files alone. What could not be used is skipped, counted and listed, up to a bound.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from permgraph.errors import FileError
from permgraph.frontend.batches import Pair
from permgraph.inputs import clips as c
from permgraph.inputs.audio_report import LOUD, AudioReport, SourceReport, used_text
from permgraph.inputs.clips import BadAudio, Clip, Samples
from permgraph.inputs.sources import Source, gather, shown

if TYPE_CHECKING:
    from torch import Tensor

SILENT = 1e-4  # peak about the mean, full scale 1: less than the last three bits of 16

Progress = Callable[[int, int], None]


class Receiver(Protocol):
    """How a model receives audio: clips brought to its `rate` in Hz one by one, then put together into one batch."""

    @property
    def rate(self) -> int: ...

    def __call__(self, data: Samples, clip: Clip) -> Samples: ...

    def batch(self, clips: Sequence[Samples]) -> Any: ...


@dataclass(frozen=True)
class Preprocess:
    """How a model receives raw audio: `rate` in Hz, `normalize` to zero mean and unit variance per clip."""

    rate: int = 16_000
    normalize: bool = False

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
        allow_empty: bool = False,
        progress: Progress | None = None,
        scanning: Progress | None = None,
    ) -> None:
        """Find the files and read their headers.

        audio      folders, files, globs, manifests (csv or tsv with a path column), tars, Lhotse's cuts (jsonl)
        a, b       how each model receives audio; default 16 kHz as it is
        seconds    length of every clip; None takes files whole, batching only equal lengths
        batch      clips per batch
        limit      at most so many clips in all, per_file of each file: evenly spread
        where      manifest rows to keep, {"split": "train"}
        max_bad    share of files that may be unusable or too short
        allow_empty  let a source give no clip at all
        progress   called with (clips done, clips in all)
        scanning   called with (headers read, files in all), then with (clips read, clips in all)

        Raises FileError when nothing is usable, a source gives nothing, or more than `max_bad` of the files are bad.
        """
        self.a: Receiver = a or Preprocess()
        self.b: Receiver = b or Preprocess()
        self.seconds, self.batch, self.max_bad = seconds, batch, max_bad
        self.progress: Progress = progress or (lambda done, total: None)
        self.current: tuple[str, ...] = ()  # files of the batch last given, to name them when it goes wrong
        self.report = AudioReport()
        sources, self.report.duplicates = gather(audio, where)
        found = self._scan(sources, per_file, scanning or (lambda done, total: None))
        self.clips = found if limit is None else c.spread(found, limit)
        for clip in set(found) - set(self.clips):
            self._of(clip.source).drop(f"clips beyond the {limit} of --clips")
        # equal lengths together; the sort is stable, so by path and time within a length
        self.clips.sort(key=self._lengths)
        self.content, usable = self._examine(scanning or (lambda done, total: None))
        self._scanned = copy.deepcopy(self.report)
        if not self.clips:
            self._nothing()
        if not allow_empty:
            self._refuse_empty(usable)

    @property
    def total(self) -> int:
        """Clips in all, for a progress bar."""
        return len(self.clips)

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
                kept = [(clip, data) for clip in part if (data := self._read(clip)) is not None]
                if kept:
                    self.current = tuple(clip.source.name for clip, _ in kept)
                    yield Pair(*(p.batch([p(data, clip) for clip, data in kept]) for p in (self.a, self.b)))
                done += len(part)
                self.progress(done, len(self.clips))
        if not self.report.clips:
            self._nothing()

    def _lengths(self, clip: Clip) -> tuple[int, int]:
        return clip.length_at(self.a.rate), clip.length_at(self.b.rate)

    def _of(self, source: Source) -> SourceReport:
        return self.report.sources.setdefault(shown(source.argument), SourceReport())

    def _examine(self, scanning: Progress) -> tuple[str, set[str]]:
        """Read every clip once: a file that holds a bad one is left out whole, before any of it is used.

        Returns the digest of all samples, in the order in which they are used, and the sources that hold a sound.
        """
        digests: dict[Clip, bytes] = {}
        usable: set[str] = set()
        for done, clip in enumerate(self.clips):
            scanning(done, len(self.clips))
            if clip.source.name in self.report.bad:
                continue
            try:
                data = c.read(clip)
            except BadAudio as error:
                self._note_bad(clip.source, str(error))
                self._refuse_many()
                continue
            digests[clip] = hashlib.sha256(f"{clip.rate} ".encode() + data.tobytes()).digest()
            if not _silent(data):
                usable.add(shown(clip.source.argument))
        self.clips = [clip for clip in self.clips if clip.source.name not in self.report.bad]
        whole = hashlib.sha256(b"".join(digests[clip] for clip in self.clips))
        return whole.hexdigest()[:32], usable

    def _refuse_empty(self, usable: set[str]) -> None:
        """Raises FileError for a source of which nothing would be used."""
        for name, used in self.report.sources.items():
            mine = [clip for clip in self.clips if shown(clip.source.argument) == name]
            if name not in usable:
                silent = "" if not mine else f", {len(mine)} clips without a usable sound"
                raise FileError(
                    f"{used_text(name, asdict(used))}{silent}. It gives nothing to calibrate on: leave it out, correct "
                    "it, choose other --seconds or more --clips, or pass --allow-empty."
                )

    def _scan(self, sources: list[Source], per_file: int | None, scanning: Progress) -> list[Clip]:
        report, found = self.report, []
        seen: dict[str, str] = {}
        report.files = len(sources)
        for done, source in enumerate(sources):
            scanning(done, len(sources))
            name, used = source.name, self._of(source)
            used.files += 1
            try:
                head = c.header(source)
                parts = c.pieces(source, head, self.seconds, per_file)
            except BadAudio as error:
                self._note_bad(source, str(error))
                continue
            if head.digest in seen:
                report.duplicates.append((name, seen[head.digest]))
            seen.setdefault(head.digest, name)
            if not parts:
                report.short.append(name)
                used.drop("files too short")
                continue
            found += parts
            report.mixed_down += head.channels > 1
            if {head.rate} != {self.a.rate, self.b.rate}:
                report.resampled[head.rate] = report.resampled.get(head.rate, 0) + 1
        self._refuse_many()
        return found

    def _read(self, clip: Clip) -> Samples | None:
        """The samples of a usable clip; None for a silent one, which is counted. Raises FileError when it has changed."""
        report, name = self.report, clip.source.name
        try:
            data = c.read(clip)
        except BadAudio as error:
            raise FileError(f"{name}: it was changed while it was used: {error}. Start again.") from error
        used = self._of(clip.source)
        if _silent(data):
            report.silent += 1
            used.drop("silent clips")
            return None
        if float(np.abs(data).max()) > LOUD and name not in report.loud:
            report.loud.append(name)
        seconds = clip.frames / clip.rate
        used.clips += 1
        used.seconds += seconds
        report.clips += 1
        report.seconds += seconds
        return data

    def _note_bad(self, source: Source, why: str) -> None:
        self.report.bad[source.name] = why
        self._of(source).drop("unusable files")

    def _refuse_many(self) -> None:
        """Raises FileError when too many files are bad or shorter than a clip."""
        length = f"shorter than a clip of {self.seconds:g} s" if self.seconds else "too short"
        bad = {**self.report.bad, **dict.fromkeys(self.report.short, length)}
        files = self.report.files
        if len(bad) > self.max_bad * files:
            some = [f"{path}: {why}" for path, why in list(bad.items())[:10]]
            raise FileError(
                f"{len(bad)} of {files} audio files cannot be used, more than --max-bad {self.max_bad:g} "
                f"allows. Remove or correct them, choose shorter --seconds, or raise --max-bad:",
                some,
            )

    def _nothing(self) -> None:
        report = self.report
        length = "one clip" if self.seconds is None else f"{self.seconds:g} s"
        raise FileError(
            f"none of {report.files} audio files can be used: {len(report.bad)} bad, {len(report.short)} "
            f"shorter than {length}, {report.silent} silent clips. Give longer audio or shorter clips."
        )


def _silent(data: Samples) -> bool:
    return float(np.abs(data - data.mean()).max()) < SILENT
