"""Shards: a calibration in parts, on one machine after another or on many at a time, whose moments add up."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from permgraph.errors import MatchError, UsageError
from permgraph.ir.moments import Moments

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 0: every count-th clip or batch."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "0/4", the first of four. Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if shard.number >= shard.count:
            raise UsageError(
                f"--shard {text}: write I/N, with I from 0 to N - 1: 0/4, 1/4, 2/4 and 3/4 are all of four."
            )
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Its share of the items. Raises UsageError where there are fewer items than shards."""
        if len(items) < self.count:
            raise UsageError(
                f"{self.count} shards of {len(items)} clips: make at most so many shards as there are clips."
            )
        return list(items[self.number :: self.count])

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Its share of items that come one by one."""
        return (item for i, item in enumerate(items) if i % self.count == self.number)


def added(parts: Mapping[str, Moments]) -> Moments:
    """The sum of shards, or of calibrations on different data. `parts`: names for messages → moments.

    Raises MatchError for shards of other data, a shard that is missing or given twice, data counted twice, and moments
    of other plans, weights or settings.
    """
    if not parts:
        raise UsageError("no moments to add: give the files that permgraph calibrate wrote.")
    by_data: dict[str, dict[str, Moments]] = defaultdict(dict)
    for name, part in parts.items():
        by_data[part.meta.get("data", "") or name][name] = part  # what has no identity is taken as it is
    whole = [_whole(of_data, by_data) for of_data in by_data.values()]
    first = next(iter(parts))
    for name, part in parts.items():
        if part.meta.get("stride") != parts[first].meta.get("stride"):
            raise MatchError(f"{first} and {name}: calibrated with different strides.")
    total = Moments.total(whole)
    batches = sum(_batches(name, part) for name, part in parts.items())
    return replace(total, meta={**total.meta, "batches": str(batches)})


def _batches(name: str, part: Moments) -> int:
    """How many batches a part has counted; sums of moments say "3 + 5". Raises MatchError."""
    counts = part.meta.get("batches", "0").split(" + ")
    if not all(count.isdecimal() and len(count) < 18 for count in counts):
        raise MatchError(f"{name}: meta.batches is not a count. Calibrate again.")
    return sum(map(int, counts))


def _whole(of_data: dict[str, Moments], by_data: Mapping[str, Mapping[str, Moments]]) -> Moments:
    """All shards of the same data, added."""
    names = list(of_data)
    shards = {name: part.meta.get("shard", "0/1") for name, part in of_data.items()}
    counts = {Shard.parse(shard).count for shard in shards.values()}
    if len(counts) > 1:
        raise MatchError(
            f"{', '.join(names)}: shards of the same data, but not of one division ({_listed(shards)})."
        )
    held: dict[str, str] = {}
    for name, shard in shards.items():
        if shard in held:
            raise MatchError(
                f"{held[shard]} and {name}: both are shard {shard} of the same data, which would count twice."
            )
        held[shard] = name
    missing = sorted({f"{i}/{n}" for n in counts for i in range(n)} - held.keys())
    if missing:
        others = [name for part in by_data.values() if part is not of_data for name in part]
        hint = f" {', '.join(others)} saw other files, or the models lay elsewhere." if others else ""
        raise MatchError(f"{', '.join(names)}: shard {', '.join(missing)} of the same data is missing.{hint}")
    return Moments.total(
        [replace(of_data[held[s]], meta=common_meta(of_data[held[s]])) for s in sorted(held)]
    )


def common_meta(part: Moments) -> dict[str, str]:
    """What is said of all of the data, and not of this part alone."""
    return {key: text for key, text in part.meta.items() if key not in ("shard", "batches")}


def _listed(shards: Mapping[str, str]) -> str:
    return ", ".join(sorted(set(shards.values())))
