"""Observers: both models on one batch, and the activations of every probe, row by row the same sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from permgraph.errors import MatchError
from permgraph.frontend.batches import Call, Inputs, call_for, sides
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec, Place, Probe
from permgraph.matching.built_alike import alike
from permgraph.matching.observation import Runner, Seen
from permgraph.matching.probes import choose_probes, in_front_end
from permgraph.planning.modes import with_mode
from permgraph.symmetry.infer import infer

LONG = 1000  # samples of a clip whose products are computed by themselves
RUNNERS = 4  # exports kept per model: inputs come sorted by length, so an old shape does not come again

Prepared = tuple[Runner, dict[str, Probe]]


class Observers:
    """Both models, exported anew for every input shape, and the probes of the plan in each export."""

    def __init__(
        self,
        plan: Plan,
        model_a: nn.Module,
        model_b: nn.Module,
        inputs: Inputs = None,
        stride: int = 1,
        keys: Collection[str] | None = None,
    ) -> None:
        """stride: of the samples of front-end convolutions, every how many-th is seen; keys: of the probes, all when None."""
        self.plan, self.inputs = plan, inputs
        self.models: tuple[nn.Module, ...] = (model_a, model_b)
        self.chosen = choose_probes(plan)
        self.wanted = {key: p for key, p in self.chosen.items() if keys is None or key in keys}
        self.strides = {key: stride if in_front_end(plan.spec, p) else 1 for key, p in self.wanted.items()}
        self._alike = alike(model_a, model_b)
        self._prepared: tuple[dict[Any, Prepared | None], ...] = ({}, {})

    def observe(self, batch: Any, count: Callable[[str, Tensor, Tensor], Any]) -> None:
        """Calls `count` with key, activations of A, of B, each (samples, units · slots), row by row the same sample.

        Some networks flatten clips and heads into one axis; then units are no longer told from clips, and the
        batch is run clip by clip.
        """
        self._observe(count, *map(self._call, range(2), sides(batch, self.inputs)))

    def _observe(self, count: Callable[[str, Tensor, Tensor], Any], *calls: Call) -> None:
        prepared = [self._prepare(side, call) for side, call in enumerate(calls)]
        ready = [one for one in prepared if one is not None]
        if len(ready) < len(prepared):
            for pair in zip(*map(clips_of, calls), strict=True):
                self._observe(count, *pair)
            return
        both = self._side_by_side(ready, calls)
        of_a = both[0] if both else results_of(ready[0], calls[0])

        def each(key: str, of_b: Sequence[Tensor]) -> None:
            for pair in self.paired(key, of_a.pop(key), of_b):
                count(*pair)

        if both:
            for key in self.wanted:
                each(key, both[1].pop(key))
        else:
            hand_over(ready[1], calls[1], each)

    def paired(
        self, key: str, of_a: Sequence[Tensor], of_b: Sequence[Tensor]
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """What two models computed at a probe, turn by turn, as far as both go; none where one took a branch and the other
        did not."""
        step = self.strides[key]
        turns = [_aligned(key, a, b, step) for a, b in zip(of_a, of_b, strict=False)]
        if len(turns) == 1:
            for a, b in _parts(*turns[0]):
                yield key, a.flatten(0, -2), b.flatten(0, -2)
        elif turns:
            a, b = (torch.cat([x.flatten(0, -2) for x in side]) for side in zip(*turns, strict=True))
            yield key, a, b

    def _side_by_side(
        self, prepared: Sequence[Prepared], calls: Sequence[Call]
    ) -> list[dict[str, list[Tensor]]]:
        """What each model computes, both at a time, each with half of the threads that torch may use; nothing where one
        thread is all, or not on CPUs."""
        threads = torch.get_num_threads()
        on_cpu = all(t.device.type == "cpu" for t in tree_leaves(calls) if isinstance(t, Tensor))
        exported = all(runner.program is not None for runner, _ in prepared)
        if (
            threads < 2 or not on_cpu or not exported or torch.is_autocast_enabled("cpu")
        ):  # of this thread alone
            return []
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(threads // 2,)) as pool:
            try:
                return list(pool.map(results_of, prepared, calls))
            finally:
                torch.set_num_threads(threads)

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
            known[shapes] = self._shared(side, shapes) or self._export(self.models[side], call)
        return known[shapes]

    def _shared(self, side: int, shapes: Any) -> Prepared | None:
        """Another model's export with this one's weights, where all are built alike."""
        for other in self._prepared if self._alike else ():
            known = other.get(shapes)
            if known is not None and known[0].program is not None:
                return known[0].of(self.models[side]), known[1]
        return None

    def _export(self, model: nn.Module, call: Call) -> Prepared | None:
        runner = Runner(model, *call)
        plan = _same_selection(self.plan, infer(runner.trace, self.plan.spec.free_output))
        # keys name nodes, and nodes may be numbered differently at another length: pair them up in order
        here = list(choose_probes(plan).values())
        same = _groups(plan.spec) == _groups(self.plan.spec) and _places(plan) == _places(self.plan)
        if same and _alike(here, list(self.chosen.values())):
            return runner, {k: p for k, p in zip(self.chosen, here, strict=True) if k in self.wanted}
        if len(clips_of(call)) > 1:
            return None
        shape = ", ".join(str(tuple(t.shape)) for t in tree_leaves(call) if isinstance(t, Tensor))
        raise MatchError(
            f"with inputs of shape {shape} the network has other groups than in the plan: it is another architecture, "
            "has other constants or other tied tensors, or takes another path at this length. Trace it with an input like this."
        )


def _places(plan: Plan) -> set[Place]:
    """Where units stand, whatever the nodes are called at this length."""
    return {replace(place, node="") for place in plan.spec.places} if plan.mode == "exact" else set()


def results_of(prepared: Prepared, call: Call) -> dict[str, list[Tensor]]:
    """Key → activations with units last, (*sample dims, units · slots), for each time that they were computed."""
    runner, probes = prepared
    args, kwargs = call
    return _of_probes(probes, runner(args, _nodes(probes), kwargs))


def hand_over(prepared: Prepared, call: Call, each: Callable[[str, list[Tensor]], None]) -> None:
    """The same, but `each` is called with every key as soon as its activations are there, and they are not kept.

    Only what a loop may compute again waits for the end.
    """
    runner, waiting = prepared[0], dict(prepared[1])
    args, kwargs = call
    final: set[str] = set()

    def take(seen: Seen, name: str) -> None:
        final.add(name)
        ready = {k: p for k, p in waiting.items() if name in p.nodes and final.issuperset(p.nodes)}
        for key, turns in _of_probes(ready, seen).items():
            del waiting[key]
            each(key, turns)
        for done in {n for p in ready.values() for n in p.nodes} - _nodes(waiting):
            seen[done].clear()

    seen = runner(args, _nodes(waiting), kwargs, take)
    for key, turns in _of_probes(waiting, seen).items():
        each(key, turns)


def _nodes(probes: Mapping[str, Probe]) -> set[str]:
    return {node for probe in probes.values() for node in probe.nodes}


def _of_probes(probes: Mapping[str, Probe], seen: Seen) -> dict[str, list[Tensor]]:
    return {
        key: [_columns(turn, p) for turn in zip(*(seen.get(n, ()) for n in p.nodes), strict=False)]
        for key, p in probes.items()
    }


def clips_of(call: Call) -> list[Call]:
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
    """Units last: (*sample dims, units · slots), in the layout's order; a view where they lie so already.

    Along dims that units of other groups lie on, the values are sorted: B has those units in an order of its own, and a unit
    has the same values among them in any order.
    """
    rest = [d for d in range(results[0].dim()) if d not in probe.dims]
    flat = [r.permute(*rest, *probe.dims).flatten(len(rest)) for r in results]
    if probe.pooled:
        flat = [_sorted(r, len(rest), [rest.index(d) for d in probe.pooled]) for r in flat]
    whole = flat[0] if len(flat) == 1 else torch.cat(flat, -1)
    positions = probe.positions.array().reshape(-1)
    start = int(positions[0]) if len(positions) else 0
    if np.array_equal(positions, np.arange(start, start + len(positions))):
        return whole[..., start : start + len(positions)]
    return whole.index_select(-1, torch.from_numpy(positions).to(whole.device))


def _sorted(result: Tensor, samples: int, along: list[int]) -> Tensor:
    """Sorted along some of the sample dims together, which become the last one."""
    others = [d for d in range(samples) if d not in along]
    return result.permute(*others, *along, samples).flatten(len(others), -2).sort(dim=-2).values


def _aligned(key: str, a: Tensor, b: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Activations whose sample dims are A's: where A and B have different frame rates, the nearest frame in time."""
    if a.dim() != b.dim():
        raise MatchError(
            f"{key}: A gives {tuple(a.shape)}, B {tuple(b.shape)}: not the same kind of activation."
        )
    if a.dim() == 1:  # one sample
        a, b = a[None], b[None]
    for dim, (n, m) in enumerate(zip(a.shape[:-1], b.shape[:-1], strict=True)):
        if n != m:
            if dim == 0 and a.dim() > 2:
                raise MatchError(f"{key}: {n} clips for A and {m} for B in one batch.")
            nearest = ((torch.arange(n, device=b.device) + 0.5) * m / n).long().clamp(max=m - 1)
            b = b.index_select(dim, nearest)
    if stride > 1 and a.dim() > 2:  # the last sample dim is time
        a, b = a[..., ::stride, :], b[..., ::stride, :]
    return a, b


def _parts(a: Tensor, b: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Clip by clip where units stand before time, as convolutions have them: samples of one clip are a view then, and those
    of a batch a copy. Short clips are copied: their products by themselves would cost more."""
    apart = a.dim() > 2 and not (a.is_contiguous() and b.is_contiguous())
    return zip(a, b, strict=True) if apart and a[0, ..., 0].numel() >= LONG else [(a, b)]
