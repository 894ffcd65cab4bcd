"""Ranks: processes that calibrate side by side, started by torchrun or a cluster, and add their moments at the end.

Each rank takes its shard of the data. The sums are exchanged once, by all-reduce (gloo), so they need no fast network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from permgraph.errors import MatchError
from permgraph.ir.moments import FloatArray, Layout, Moments, ProbeMoments
from permgraph.ir.sums import Sums
from permgraph.matching.shards import Shard


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; `local` counts those of this machine."""

    rank: int
    world: int
    local: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Ranks | None:
        """As torchrun says; None for a process by itself."""
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
        if any(name not in environment for name in names):
            return None
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        return cls(rank, world, int(environment.get("LOCAL_RANK", rank)))

    @property
    def shard(self) -> Shard:
        return Shard(self.rank, self.world)

    def all_of(
        self, run: Callable[[], tuple[Moments, tuple[str, ...]]], wait: float
    ) -> tuple[Moments, tuple[str, ...]]:
        """Run each rank's share; the moments of all, the same on each rank, and what this one notes.

        A rank that fails tells the others, which then end too. Raises what `run` raises, and MatchError for other ranks.
        """
        with self.joined(wait):
            try:
                moments, notes = run()
            except BaseException as error:
                with suppress(MatchError):
                    self._told(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", wait)
                raise
            failed = {rank: text for rank, text in enumerate(self._told("", wait)) if text}
            if failed:
                rank, text = next(iter(failed.items()))
                raise MatchError(
                    f"rank {rank} of {self.world} failed, so nothing was written. It said: {text}"
                )
            return self.all_reduced(moments, wait), notes

    @contextmanager
    def joined(self, wait: float) -> Iterator[None]:
        """The ranks know each other; they wait for one another at most so many seconds. Raises MatchError."""
        import torch.distributed as dist

        with _lost_rank(wait):
            dist.init_process_group("gloo", timeout=timedelta(seconds=wait))
        try:
            yield
        finally:
            dist.destroy_process_group()

    def _told(self, said: str, wait: float) -> list[str]:
        """What every rank says, by rank."""
        with _lost_rank(wait):
            return [str(text) for text in _gathered(said)]

    def all_reduced(self, moments: Moments, wait: float) -> Moments:
        """The sum over all ranks, the same on each. Raises MatchError when they calibrated different things."""
        with _lost_rank(wait):
            headers: list[_Header] = _gathered(_Header.of(moments))
            _refuse_different(headers)
            layouts = {key: layout for header in headers for key, layout in header.layouts.items()}
            probes = {key: _reduced(moments.probes.get(key), headers, key) for key in sorted(layouts)}
        batches = sum(int(header.meta.get("batches", "0")) for header in headers)
        meta = {k: v for k, v in moments.meta.items() if k != "shard"} | {"batches": str(batches)}
        return replace(moments, probes=probes, meta=meta)


@dataclass(frozen=True)
class _Header:
    """What a rank tells the others: what it calibrated, and where the sums of each probe are taken."""

    identity: tuple[str, ...]
    meta: dict[str, str]
    layouts: dict[str, tuple[Layout, tuple[int, ...]]]
    counts: dict[str, tuple[int, int]]
    shifts: dict[str, tuple[FloatArray, FloatArray]]

    @classmethod
    def of(cls, moments: Moments) -> _Header:
        data = {k: v for k, v in sorted(moments.meta.items()) if k not in ("shard", "batches", "stride")}
        identity = (str(moments.origin), str(data), moments.meta.get("stride", ""))
        probes = moments.probes
        return cls(
            identity,
            dict(moments.meta),
            {key: (p.layout, p.product.shape) for key, p in probes.items()},
            {key: (p.n, p.excluded) for key, p in probes.items()},
            {key: (p.a.shift, p.b.shift) for key, p in probes.items()},
        )


def _refuse_different(headers: list[_Header]) -> None:
    """Raises MatchError, on every rank alike."""
    for what, part in (("plans or weights", 0), ("files", 1), ("strides", 2)):
        seen = [header.identity[part] for header in headers]
        other = next((rank for rank, text in enumerate(seen) if text != seen[0]), None)
        if other is not None:
            raise MatchError(
                f"ranks 0 and {other} calibrate different {what}: their sums do not belong together. Every rank must be "
                "started with the same command, and see the same files under the same paths."
            )


def _reduced(probe: ProbeMoments | None, headers: list[_Header], key: str) -> ProbeMoments:
    """One probe, over the ranks that have seen it, about the shift of the first of them."""
    having = [header for header in headers if key in header.layouts]
    layout, shape = having[0].layouts[key]
    shift_a, shift_b = having[0].shifts[key]
    moved = None if probe is None else probe.about(shift_a, shift_b)
    slots, units_a, units_b = shape
    shapes = [(slots, units_a), (slots, units_a), (slots, units_b), (slots, units_b), shape]
    own = (
        [None] * 5
        if moved is None
        else [moved.a.sum, moved.a.square, moved.b.sum, moved.b.square, moved.product]
    )
    sums = [_all_reduced(array, size) for array, size in zip(own, shapes, strict=True)]
    n, excluded = (sum(header.counts[key][i] for header in having) for i in range(2))
    return ProbeMoments(layout, Sums(n, shift_a, *sums[:2]), Sums(n, shift_b, *sums[2:4]), sums[4], excluded)


def _all_reduced(array: FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    import torch
    import torch.distributed as dist

    tensor = torch.zeros(shape, dtype=torch.float64)
    if array is not None:
        tensor += torch.from_numpy(np.array(array))
    dist.all_reduce(tensor)
    summed: FloatArray = tensor.numpy()
    summed.flags.writeable = False
    return summed


def _gathered(value: Any) -> list[Any]:
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


@contextmanager
def _lost_rank(wait: float) -> Iterator[None]:
    """What torch says of ranks that ended or do not answer, in words."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise MatchError(
            f"another rank ended, or did not answer within {wait:g} s ({str(error).strip().splitlines()[0]}). Start all "
            "ranks again; with --checkpoint they go on where they stopped."
        ) from error
