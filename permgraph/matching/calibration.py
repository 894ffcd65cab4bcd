"""Calibrate: run both models over the same inputs and accumulate the moments of every probe, in one pass."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from permgraph.atomic_write import resuming
from permgraph.errors import MatchError
from permgraph.frontend.batches import Inputs
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.moments import Layout, Moments
from permgraph.ir.plan import Origin, Plan
from permgraph.ir.values import refuse_other_values
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.observers import Observers
from permgraph.matching.probes import layout_of, refuse_unobserved, refuse_unvisited
from permgraph.matching.shards import Shard

SAVE_EVERY = 60.0  # seconds between checkpoints


def calibrate(
    plan: Plan,
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    *,
    checkpoint: str | Path | None = None,
    data: str = "",
    settings: Mapping[str, str] | None = None,
    save_every: float = SAVE_EVERY,
    progress: Callable[[int], None] | None = None,
    inputs: Inputs = None,
    stride: int = 1,
    shard: Shard | None = None,
    keys: Collection[str] | None = None,
) -> Moments:
    """Moments of all probes of the plan's groups, over all batches; batch and time positions are samples.

    Args:
        batches: what the forward takes: a tensor, a tuple of arguments, a dict of keywords, the list that a DataLoader
            yields (inputs first, labels are left out), or `Pair(for A, for B)` of these. Every batch holds inputs of
            one length: padding would change a GroupNorm front end.
        inputs: picks the inputs of a batch that holds more: a function of the batch, a key or an index.
        checkpoint: a file to save to now and then, and when the run is interrupted (SIGINT, SIGTERM: after
            the batch at hand); when it exists, the batches it holds are passed over.
        data: what identifies the data, so that a checkpoint is not resumed with others. The plan and the
            weights of both models are identified anyway.
        settings: more that changes the numbers, by name: what is resumed has to have the same.
        progress: called with the number of batches done.
        stride: of the frames of front-end convolutions, hundreds to a thousand a second and much alike, count every
            so many-th only. 1 counts all.
        shard: which part of the data the batches are; others may have seen what these do not.
        keys: of the probes that this pass observes; all when None.

    Raises:
        PlanError: a model holds other integers than the plan follows.
        MatchError: no activation holds the units of a selected group, a model takes another path at an input's
            length, A and B give different frames, or the checkpoint is of another calibration.
        KeyboardInterrupt: interrupted; the checkpoint holds all that was done.
    """
    refuse_unobserved(plan)
    for whose, model in (("model A", model_a), ("model B", model_b)):
        refuse_other_values(plan.spec, model.state_dict(), whose)
    both = Observers(plan, model_a, model_b, inputs, stride, keys)
    origin = replace(
        plan.origin, weights_a=fingerprint_of(plan, model_a), weights_b=fingerprint_of(plan, model_b)
    )
    layouts = {key: layout_of(plan.spec, probe) for key, probe in both.wanted.items()}
    meta = {"data": data} if data else {}
    meta |= dict(settings or {}) | described(model_a, model_b, stride)
    meta |= {"shard": str(shard)} if shard else {}
    with nullcontext() if checkpoint is None else resuming(Path(checkpoint)):
        return _calibrate(
            plan, both, batches, checkpoint, origin, meta, layouts, save_every, progress, shard, keys
        )


def _calibrate(
    plan: Plan,
    both: Observers,
    batches: Iterable[Any],
    checkpoint: str | Path | None,
    origin: Origin,
    meta: dict[str, str],
    layouts: Mapping[str, Layout],
    save_every: float,
    progress: Callable[[int], None] | None,
    shard: Shard | None,
    keys: Collection[str] | None,
) -> Moments:
    """What remains of the calibration, on top of what its checkpoint holds."""
    builder = MomentsBuilder(layouts, origin, meta)
    total, done = _resume(checkpoint, origin, meta)
    if total is not None and not total.probes.keys() <= layouts.keys():
        raise MatchError(
            f"{checkpoint}: a calibration of other groups, made with another --max-memory. "
            "Remove it to start afresh, or give another --checkpoint."
        )
    last, seen = time.monotonic(), 0
    with _deferred(checkpoint is not None) as interrupted:
        for seen, batch in enumerate(batches, 1):
            if seen <= done:
                continue
            both.observe(batch, builder.update)
            done = seen
            if progress:
                progress(done)
            if checkpoint is not None and (interrupted or time.monotonic() - last > save_every):
                total = _save(checkpoint, total, builder, done)
                last = time.monotonic()
            if interrupted:
                raise KeyboardInterrupt
    if seen < done:
        raise MatchError(
            f"{checkpoint}: holds {done} batches, the data has only {seen}. Remove it to start afresh, or give "
            "another --checkpoint."
        )
    if builder.pending:
        total = (
            _joined(total, builder, done) if checkpoint is None else _save(checkpoint, total, builder, done)
        )
    if seen and shard is None:
        refuse_unvisited(plan, total.probes if total else (), keys)
    if total is None:
        raise MatchError("no batch to calibrate on: the list of inputs is empty.")
    total.refuse_excluded()
    return total


def described(model_a: nn.Module, model_b: nn.Module, stride: int = 1) -> dict[str, str]:
    """What changes the numbers beside plan, weights and data."""
    found = {"software": _software(), "dtypes": f"{_dtypes(model_a)}; {_dtypes(model_b)}"}
    return found | ({"stride": str(stride)} if stride > 1 else {})


def fingerprint_of(plan: Plan, model: nn.Module) -> str:
    """Of the weights of a model."""
    weights = Fingerprint(plan.spec)
    for name, tensor in model.state_dict().items():
        weights.add(name, tensor)
    return weights.text


@contextmanager
def _deferred(wanted: bool) -> Iterator[list[int]]:
    """SIGINT and SIGTERM are only noted down, so that no batch is counted by half.

    Signals can be caught in the main thread alone; elsewhere they do what they always do.
    """
    caught: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {
        number: signal.signal(number, lambda n, _: caught.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resume(
    checkpoint: str | Path | None, origin: Origin, meta: Mapping[str, str]
) -> tuple[Moments | None, int]:
    """The moments so far and the number of batches in them. Raises MatchError."""
    if checkpoint is None or not Path(checkpoint).exists():
        return None, 0
    total = Moments.load(checkpoint)
    batches = total.meta.get("batches", "")
    other = different(total, origin, meta)
    if other or not batches.isdecimal():
        raise MatchError(
            f"{checkpoint}: a calibration with {'; '.join(other) or 'an unknown number of batches'}. "
            "Remove it to start afresh, or give another --checkpoint."
        )
    return total, int(batches)


def different(found: Moments, origin: Origin, meta: Mapping[str, str]) -> list[str]:
    """In what a calibration differs from one of this origin with these settings, in words."""
    pairs = [
        (what, getattr(found.origin, name), getattr(origin, name))
        for name, what in _ORIGIN.items()
        if name != "plan" or found.origin.architecture == origin.architecture
    ]
    names = sorted((found.meta.keys() | meta.keys()) - {"batches"})
    pairs += [(name, found.meta.get(name, ""), meta.get(name, "")) for name in names]
    return [f"other {what} ({was or 'none'}, now {now or 'none'})" for what, was, now in pairs if was != now]


_ORIGIN = {
    "architecture": "architecture",
    "plan": "plan",
    "weights_a": "weights of A",
    "weights_b": "weights of B",
}


def _software() -> str:
    return ", ".join(f"{name} {vars(sys.modules[name])['__version__']}" for name in ("permgraph", "torch"))


def _dtypes(model: nn.Module) -> str:
    return " ".join(sorted({str(t.dtype).removeprefix("torch.") for t in model.state_dict().values()}))


def _save(checkpoint: str | Path, total: Moments | None, builder: MomentsBuilder, done: int) -> Moments:
    total = _joined(total, builder, done)
    total.save(checkpoint)
    return total


def _joined(total: Moments | None, builder: MomentsBuilder, done: int) -> Moments:
    part = builder.build()
    total = part if total is None else total + part
    return replace(total, meta={**total.meta, "batches": str(done)})
