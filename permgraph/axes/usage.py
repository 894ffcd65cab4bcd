"""Usage: how the axes of weights are used and where activations can be observed, read off the record of contractions.

Nothing here changes what may move. It says of an axis whether it produces or consumes units, where units can be
observed (probes), and what structure says of points: channels of a product of two activations ("qk", "v"), streams
that activations are added to ("residual").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from permgraph.axes.contraction import Contraction
from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.points import Labels, Points

_ADDITIONS = ("aten.add.", "aten.addcmul.", "aten.addcdiv.")


class Seen(NamedTuple):
    """An activation that carries points.

    when   "entering" a consumer, "leaving" a producer, "normed" by a normalisation, "state": hidden in a recurrent layer
    """

    when: str
    node: str
    module: str
    dims: tuple[int, ...]
    labels: Labels


@dataclass
class Use:
    """How an axis of a state tensor is used first: the op, and whether its points are summed over anywhere."""

    node: str
    op: str
    module: str
    consumed: bool


@dataclass
class Usage:
    """uses by (tensor, axis); activations in graph order; marks by role ("qk", "v", "residual")."""

    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    marks: dict[str, list[Labels]] = field(default_factory=dict)

    def mark(self, role: str, array: LabelArray) -> None:
        if not array.pinned:
            self.marks.setdefault(role, []).append(array.labels)

    def observe(self, when: str, tensor: LabelledTensor, module: str, array: LabelArray) -> None:
        if tensor.name and not tensor.weight and not array.pinned:
            self.seen.append(Seen(when, tensor.name, module, array.dims, array.labels))


def usage(
    points: Points,
    record: Iterable[Contraction],
    results: Mapping[str, LabelledTensor],
    inside: Mapping[str, Sequence[LabelledTensor]],
) -> Usage:
    """Read the record.

    Args:
        results: the tensors of the graph by node.
        inside: what else can be observed at a node; all other tensors that only a rule saw cannot.
    """
    found = Usage()
    made: set[int] = set()  # results of weights and activations, by the identity of their arrays
    for step in record:
        kept = {name for names, _ in step.names[-1] for name in names}
        for number, (tensor, summed) in enumerate(step.operands):
            for (names, array), consumed in zip(step.names[number], summed, strict=True):
                if tensor.weight:
                    _use(points, found, step, array, consumed)
                elif consumed:
                    found.observe("entering", tensor, step.node.module, array)
                if consumed or number > 0:
                    _mark_product(found, step, array, consumed and not kept.issuperset(names[-1:]))
        _mark_addition(found, step)
        if _makes_units(step, made):
            made.add(id(step.result.arrays))
            _observe_result(found, step, results)
            for shown in inside.get(step.node.name, ()):
                _observe_made(found, step, shown, "state")
    return found


def _use(points: Points, found: Usage, step: Contraction, array: LabelArray, consumed: bool) -> None:
    """An axis of a weight is produced or consumed here (first and last point: axes are not interleaved)."""
    for end in sorted({int(array.labels.flat[0]), int(array.labels.flat[-1])}):
        run = points.origin_of(np.array([end]))
        if run.tensor:
            node = step.node
            use = found.uses.setdefault((run.tensor, run.axis), Use(node.name, node.op, node.module, False))
            use.consumed = use.consumed or consumed


def _activations(step: Contraction) -> bool:
    return len(step.operands) > 1 and not any(tensor.weight for tensor, _ in step.operands)


def _mark_product(found: Usage, step: Contraction, array: LabelArray, inside: bool) -> None:
    """A product of two activations: attention scores, then the weighted sum of values."""
    if step.summed and _activations(step):
        found.mark("qk" if inside else "v", array)


def _mark_addition(found: Usage, step: Contraction) -> None:
    """Two streams meet; x + x³, as in an approximation of GELU, is only one."""
    if step.node.op.startswith(_ADDITIONS) and _activations(step):
        (one, _), (other, _), *_ = step.operands
        same = {array.dims: array.labels for array in other.arrays}
        for array in one.arrays:
            if array.dims not in same or not np.array_equal(array.labels, same[array.dims]):
                found.mark("residual", array)


def _makes_units(step: Contraction, made: set[int]) -> bool:
    """Whether a weight makes units of an activation here, or is added to units that one made (the bias of addmm)."""
    if {tensor.weight for tensor, _ in step.operands} != {True, False}:
        return False
    added = any(id(t.arrays) in made for t, _ in step.operands if t.arrays and not t.name)
    return step.summed or _normalises(step) or added


def _normalises(step: Contraction) -> bool:
    return "norm" in step.node.op


def _observe_result(found: Usage, step: Contraction, results: Mapping[str, LabelledTensor]) -> None:
    """The units can be observed where the graph shows them: in a result that is the node's own."""
    result = results.get(step.node.name)
    if result is not None:
        _observe_made(found, step, result, "normed" if _normalises(step) else "leaving")


def _observe_made(found: Usage, step: Contraction, shown: LabelledTensor, when: str) -> None:
    if shown.arrays is step.result.arrays:
        for array in shown.arrays:
            found.observe(when, shown, step.node.module, array)
