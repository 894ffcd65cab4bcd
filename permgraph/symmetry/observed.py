"""What else a spec says: the activations that carry the units of a group, and what is held in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from permgraph.axes.accumulation import shown
from permgraph.axes.points import Labels
from permgraph.axes.propagation import Propagation
from permgraph.axes.side_by_side import Sides
from permgraph.axes.usage import Seen
from permgraph.ir.spec import PermSpec, Pin, Positions, Probe
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Block
from permgraph.symmetry.coloured_graph import Classes
from permgraph.symmetry.layout import Addresses

_BY_CONTENT = (
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
)  # how much they find depends on the values


def probes_of(
    context: Propagation,
    classes: Classes,
    blocks: list[Block],
    names: dict[int, tuple[str, str, str]],
    sides: Sides | None,
) -> dict[str, list[Probe]]:
    """Activations that carry each innermost group, in graph order; those of equal branches side by side."""
    if not blocks:
        return {}
    addresses = blocks[0].owner
    found: dict[str, list[Probe]] = {}
    for seen, labels, beside in (*_alone(context), *(_beside(context, sides) if sides else ())):
        for layout, at in addresses.layouts(classes.of[labels]):
            if any(k not in names for k in layout) or (at < 0).any() or len(set(layout)) < len(layout):
                continue  # in pairs of units no single one can be observed
            text = tuple(names[k][0] for k in layout)
            pooled = _of_others(context, seen, classes, addresses)
            probe = Probe(
                seen.node, seen.when, seen.dims, text, Positions.of(at), seen.module, beside, pooled
            )
            if probe not in found.setdefault(text[-1], []):
                found[text[-1]].append(probe)
    return {name: [p for p in probes if not p.pooled] or probes for name, probes in found.items()}


def _of_others(context: Propagation, seen: Seen, classes: Classes, addresses: Addresses) -> tuple[int, ...]:
    """The dims of what is seen on which units of other groups lie: coordinates in a group change along them."""
    shown = context.results.get(seen.node)
    found: set[int] = set()
    for array in shown.arrays if shown else ():
        of = addresses.coordinates[classes.of[array.labels]]
        found |= {d for i, d in enumerate(array.dims) if (of != of.take([0], axis=i)).any()}
    return tuple(sorted(found - set(seen.dims)))


def _alone(context: Propagation) -> Iterator[tuple[Seen, Labels, tuple[str, ...]]]:
    for seen in context.usage.seen:
        yield seen, seen.labels.ravel(), ()


def _beside(context: Propagation, sides: Sides) -> Iterator[tuple[Seen, Labels, tuple[str, ...]]]:
    """What is seen at corresponding nodes, one after another; not where each sees samples of its own."""
    by_content = {
        number
        for number, branches in enumerate(sides.sets)
        for copies in branches.alike.copies
        if sides.trace.by_name[copies[0]].short_op in _BY_CONTENT
    }
    together: dict[object, dict[str, Seen]] = {}
    for seen in context.usage.seen:
        owners = sides.owners.get(seen.node)
        if owners and not any(number in by_content for number, _ in owners):
            key = (sides.root[seen.node], seen.when, seen.dims, seen.labels.shape)
            together.setdefault(key, {}).setdefault(seen.node, seen)
    for by_node in together.values():
        first = next(iter(by_node.values()))
        if by_node.keys() == set(sides.copies[sides.root[first.node]]):
            nodes = list(by_node)
            labels = np.concatenate([by_node[n].labels.ravel() for n in nodes])
            yield first, labels, tuple(nodes[1:])


def pins_of(context: Propagation, classes: Classes) -> tuple[Pin, ...]:
    """For every axis of a state tensor, how many coordinates each reason holds in place."""
    points, which = context.points.pins()
    reason_of = np.full(classes.count, -1)
    reason_of[classes.of[points[::-1]]] = which[::-1]  # the first reason given wins
    pins = []
    for run in context.points.origins:
        if not run.tensor:
            continue
        held = reason_of[classes.of[run.start : run.stop]]
        for index, count in sorted(Counter(held[held >= 0].tolist()).items()):
            reason = context.points.pinned[index][1]
            pins.append(Pin(run.tensor, run.axis, count, reason.text, reason.step.node))
    return tuple(pins)


def as_traced(spec: PermSpec, trace: Trace) -> PermSpec:
    """With the nodes of the network itself."""
    groups = (replace(g, probes=tuple(p for p in g.probes if p.node in trace.by_name)) for g in spec.groups)
    return replace(
        spec,
        fingerprint=trace.fingerprint,
        groups=tuple(groups),
        places=tuple(replace(p, node=shown(p.node)) for p in spec.places),
        pinned=tuple(replace(p, node=shown(p.node)) for p in spec.pinned),
        unknown_ops=tuple(replace(o, node=shown(o.node)) for o in spec.unknown_ops),
    ).completed()
