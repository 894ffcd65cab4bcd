"""Audio report: what became of the audio that was named, source by source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LOUD = 1.5  # peak of floating-point audio that was scaled wrongly


@dataclass
class SourceReport:
    """What was used of one folder, glob, file or manifest.

    files      that it names
    clips, seconds  that the models received
    dropped    reason → files or clips that were left out for it
    """

    files: int = 0
    clips: int = 0
    seconds: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


def used_text(name: str, used: Mapping[str, Any]) -> str:
    """A source as a line: "speech: 14 files, 40 clips, 200 s; dropped: 2 files too short"."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(used["dropped"].items()))
    text = f"{name}: {used['files']} files, {used['clips']} clips, {used['seconds']:,.0f} s"
    return f"{text}; dropped: {dropped}" if dropped else text


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
    sources      folder, glob, file or manifest → files, clips and seconds used of it, and how much was dropped for
                 which reason: the weight of each domain
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
    sources: dict[str, SourceReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def notes(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [used_text(name, asdict(used)) for name, used in self.sources.items()]
        lines += [f"skipped {name}: {why}" for name, why in sorted(self.bad.items())]
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
