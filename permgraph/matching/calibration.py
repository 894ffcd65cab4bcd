"""Calibrate: run both models over the same inputs and accumulate the moments of every probe, in one pass."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from permgraph.errors import MatchError
from permgraph.frontend.batches import Call, Inputs, call_for, sides
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.moments import Moments
from permgraph.ir.plan import Origin, Plan
from permgraph.ir.spec import PermSpec, Probe
from permgraph.ir.values import refuse_other_values
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.observation import Runner
from permgraph.matching.probes import choose_probes, layout_of, refuse_unobserved, refuse_unvisited
from permgraph.planning.modes import with_mode
from permgraph.symmetry.infer import infer

SAVE_EVERY = 60.0  # seconds between checkpoints
RUNNERS = 4  # exports kept per model: inputs come sorted by length, so an old shape does not come again


def calibrate(
    plan: Plan,
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    *,
    checkpoint: str | Path | None = None,
    data: str = "",
    save_every: float = SAVE_EVERY,
    progress: Callable[[int], None] | None = None,
    inputs: Inputs = None,
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
        progress: called with the number of batches done.

    Raises:
        PlanError: a model holds other integers than the plan follows.
        MatchError: no activation holds the units of a selected group, a model takes another path at an input's
            length, A and B give different frames, or the checkpoint is of another calibration.
        KeyboardInterrupt: interrupted; the checkpoint holds all that was done.
    """
    refuse_unobserved(plan)
    for whose, model in (("model A", model_a), ("model B", model_b)):
        refuse_other_values(plan.spec, model.state_dict(), whose)
    both = Observers(plan, model_a, model_b, inputs)
    origin = replace(
        plan.origin, weights_a=_fingerprint(plan, model_a), weights_b=_fingerprint(plan, model_b)
    )
    layouts = {key: layout_of(plan.spec, probe) for key, probe in choose_probes(plan).items()}
    builder = MomentsBuilder(layouts, origin, {"data": data} if data else None)
    total, done = _resume(checkpoint, origin, data)
    last, seen = time.monotonic(), 0
    with _deferred(checkpoint is not None) as interrupted:
        for seen, batch in enumerate(batches, 1):
            if seen <= done:
                continue
            for key, a, b in both.observe(batch):
                builder.update(key, a, b)
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
    if seen:
        refuse_unvisited(plan, total.probes if total else ())
    if total is None:
        raise MatchError("no batch to calibrate on: the list of inputs is empty.")
    total.refuse_excluded()
    return total


def _fingerprint(plan: Plan, model: nn.Module) -> str:
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


def _resume(checkpoint: str | Path | None, origin: Origin, data: str) -> tuple[Moments | None, int]:
    """The moments so far and the number of batches in them. Raises MatchError."""
    if checkpoint is None or not Path(checkpoint).exists():
        return None, 0
    total = Moments.load(checkpoint)
    batches = total.meta.get("batches", "")
    if total.origin != origin or total.meta.get("data", "") != data or not batches.isdecimal():
        raise MatchError(
            f"{checkpoint}: a calibration with another plan, other models, data or settings. "
            "Remove it to start afresh, or give another --checkpoint."
        )
    return total, int(batches)


def _save(checkpoint: str | Path, total: Moments | None, builder: MomentsBuilder, done: int) -> Moments:
    total = _joined(total, builder, done)
    total.save(checkpoint)
    return total


def _joined(total: Moments | None, builder: MomentsBuilder, done: int) -> Moments:
    part = builder.build()
    total = part if total is None else total + part
    return replace(total, meta={**total.meta, "batches": str(done)})


Prepared = tuple[Runner, dict[str, Probe]]


class Observers:
    """Both models, exported anew for every input shape, and the probes of the plan in each export."""

    def __init__(self, plan: Plan, model_a: nn.Module, model_b: nn.Module, inputs: Inputs = None) -> None:
        self.plan, self.models, self.inputs = plan, (model_a, model_b), inputs
        self.wanted = choose_probes(plan)
        self._prepared: tuple[dict[Any, Prepared | None], ...] = ({}, {})

    def observe(self, batch: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(key, activations of A, of B), each (samples, units · slots), row by row the same sample.

        Some networks flatten clips and heads into one axis; then units are no longer told from clips, and the
        batch is run clip by clip.
        """
        yield from self._observe(*map(self._call, range(2), sides(batch, self.inputs)))

    def _observe(self, *calls: Call) -> Iterator[tuple[str, Tensor, Tensor]]:
        prepared = [self._prepare(side, call) for side, call in enumerate(calls)]
        if any(one is None for one in prepared):
            for pair in zip(*map(_clips, calls), strict=True):
                yield from self._observe(*pair)
            return
        found = [_results(one, call) for one, call in zip(prepared, calls, strict=True) if one is not None]
        for key in self.wanted:
            # turn by turn, as far as both models go; none where one took a branch and the other did not
            turns = [_aligned(key, a, b) for a, b in zip(found[0][key], found[1][key], strict=False)]
            if turns:
                yield key, torch.cat([a for a, _ in turns]), torch.cat([b for _, b in turns])

    def _call(self, side: int, value: Any) -> Call:
        """The arguments of one model's forward, on its device."""
        device = next((p.device for p in self.models[side].parameters()), torch.device("cpu"))
        call: Call = tree_map_only(Tensor, lambda t: t.to(device), call_for(self.models[side], value))
        return call

    def _prepare(self, side: int, call: Call) -> Prepared | None:
        """The model as exported for inputs like these; None when they must be run one at a time."""
        values, layout = tree_flatten(call)
        shapes = str(layout), tuple(tuple(a.shape) if isinstance(a, Tensor) else a for a in values)
        known = self._prepared[side]
        if shapes not in known:
            while len(known) >= RUNNERS:
                del known[next(iter(known))]
            known[shapes] = self._export(self.models[side], call)
        return known[shapes]

    def _export(self, model: nn.Module, call: Call) -> Prepared | None:
        runner = Runner(model, *call)
        plan = _same_selection(self.plan, infer(runner.trace, self.plan.spec.free_output))
        # keys name nodes, and nodes may be numbered differently at another length: pair them up in order
        here = list(choose_probes(plan).values())
        if _groups(plan.spec) == _groups(self.plan.spec) and _alike(here, list(self.wanted.values())):
            return runner, dict(zip(self.wanted, here, strict=True))
        if len(_clips(call)) > 1:
            return None
        shape = ", ".join(str(tuple(t.shape)) for t in tree_leaves(call) if isinstance(t, Tensor))
        raise MatchError(
            f"with inputs of shape {shape} the network has other groups than in the plan. The plan is for another "
            "architecture, or the network takes another path at this length: trace it with an input like this."
        )


def _results(prepared: Prepared, call: Call) -> dict[str, list[Tensor]]:
    """Key → activations with units last, (*sample dims, units · slots), for each time that they were computed."""
    runner, probes = prepared
    args, kwargs = call
    results = runner(args, {n for p in probes.values() for n in p.nodes}, kwargs)
    return {
        key: [_columns(turn, p) for turn in zip(*(results.get(n, ()) for n in p.nodes), strict=False)]
        for key, p in probes.items()
    }


def _clips(call: Call) -> list[Call]:
    """The inputs one at a time: slices of every tensor along its first dim, where they all have that many."""
    sizes = {t.shape[0] for t in tree_leaves(call) if isinstance(t, Tensor) and t.dim()}
    count = sizes.pop() if len(sizes) == 1 else 1
    return [_clip(call, i) for i in range(count)]


def _clip(call: Call, at: int) -> Call:
    one: Call = tree_map_only(Tensor, lambda t: t[at : at + 1] if t.dim() else t, call)
    return one


def _alike(here: list[Probe], wanted: list[Probe]) -> bool:
    """Whether two lists of probes see the same units in as many columns."""
    return [(p.layout, p.when, p.positions.shape) for p in here] == [
        (p.layout, p.when, p.positions.shape) for p in wanted
    ]


def _same_selection(plan: Plan, spec: PermSpec) -> Plan:
    base = tuple(dict.fromkeys(name.partition("@")[0] for name in plan.selected))
    same = Plan(spec, tuple(n for n in base if n in spec.by_name), selection=plan.selection, taps=plan.taps)
    return with_mode(same, plan.mode)


def _groups(spec: PermSpec) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(g.name, g.size, g.ancestors) for g in spec.groups]


def _columns(results: Sequence[Tensor], probe: Probe) -> Tensor:
    """Units last: (*sample dims, units · slots), in the layout's order."""
    rest = [d for d in range(results[0].dim()) if d not in probe.dims]
    flat = torch.cat([r.permute(*rest, *probe.dims).flatten(len(rest)) for r in results], -1)
    index = torch.from_numpy(probe.positions.array().reshape(-1)).to(flat.device)
    return flat.index_select(-1, index)


def _aligned(key: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sample dims of B brought to A's: where A and B have different frame rates, the nearest frame in time."""
    if a.dim() != b.dim():
        raise MatchError(
            f"{key}: A gives {tuple(a.shape)}, B {tuple(b.shape)}: not the same kind of activation."
        )
    for dim, (n, m) in enumerate(zip(a.shape[:-1], b.shape[:-1], strict=True)):
        if n != m:
            if dim == 0 and a.dim() > 2:
                raise MatchError(f"{key}: {n} clips for A and {m} for B in one batch.")
            nearest = ((torch.arange(n, device=b.device) + 0.5) * m / n).long().clamp(max=m - 1)
            b = b.index_select(dim, nearest)
    return a.flatten(0, -2), b.flatten(0, -2)
