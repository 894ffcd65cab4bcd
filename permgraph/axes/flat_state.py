"""Flat state: parameters stored as one long axis, parts of which are viewed as weights before they are used.

To label every element would cost as much memory as the network itself. A part is labelled as the weight that it is
seen as: one set of labels for each of its axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from permgraph.axes.label_array import LabelArray
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.points import View
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Node, Ref, Shape, Trace

_LARGE = 2**13  # elements from which on it matters
_MATRIX = 2**15  # of two axes that may be heads and their channels, whose elements have orders of their own

_VIEWS = ("view", "_unsafe_view", "reshape", "unflatten")
_COPIES = ("clone", "alias", "detach", "contiguous")


@dataclass(frozen=True)
class Region:
    """A part of a flat axis: where it begins, and the shape that it is seen in."""

    tensor: str
    axis: int
    offset: int
    shape: Shape


@dataclass(frozen=True)
class FlatState:
    """regions by the node that shows them; `hidden` are the nodes before, which nothing else reads."""

    regions: dict[str, Region]
    hidden: frozenset[str]


def flat_state(trace: Trace) -> FlatState:
    """Every large flat tensor of the state of which all readers are views of parts that do not overlap."""
    regions: dict[str, Region] = {}
    hidden: set[str] = set()
    for node in trace.nodes:
        axes = [d for d, n in enumerate(node.shape) if n > 1]
        if node.op == "state" and len(axes) == 1 and node.shape[axes[0]] > _LARGE and node.is_float:
            found = _followed(node, Region(node.options["tensor"], axes[0], 0, node.shape), trace.readers)
            if found is not None and _apart([r for r in found[0].values()]):
                regions |= found[0]
                hidden |= found[1]
    return FlatState(regions, frozenset(hidden))


def _followed(
    node: Node, region: Region, readers: dict[str, list[Node]]
) -> tuple[dict[str, Region], set[str]] | None:
    """The views of parts of a flat tensor, and the nodes on the way; None where anything else reads it."""
    regions: dict[str, Region] = {}
    hidden = {node.name}
    for reader in readers.get(node.name, ()):
        part = _part(reader, node, region)
        if part is None:
            return None
        if reader.short_op in _VIEWS and sum(n > 1 for n in reader.shape) > 1:
            regions[reader.name] = part
            continue
        further = _followed(reader, part, readers)
        if further is None:
            return None
        regions |= further[0]
        hidden |= further[1]
    return regions, hidden


def _part(reader: Node, node: Node, region: Region) -> Region | None:
    """What a reader shows of a region; None where it does not show a run of it as it is."""
    name = reader.short_op
    if reader.operands.get("self") != Ref(node.name) or any(r != node.name for r in reader.refs()):
        return None
    if name in _VIEWS or name in ("squeeze", "unsqueeze", *_COPIES):
        return Region(region.tensor, region.axis, region.offset, reader.shape)
    dim = reader.options.get("dim", 0) % max(1, len(node.shape))
    start, step = reader.options.get("start", 0), reader.options.get("step", 1)
    if name in ("slice", "narrow") and node.shape[dim] > 1 and step == 1 and isinstance(start or 0, int):
        start = (start or 0) + (node.shape[dim] if (start or 0) < 0 else 0)
        return Region(region.tensor, region.axis, region.offset + start, reader.shape)
    return None


def _apart(regions: list[Region]) -> bool:
    """Whether no two regions overlap (two views of one region are one weight read twice, of one shape)."""
    spans = sorted({(r.offset, r.offset + prod(r.shape), r.shape) for r in regions})
    return all(a[1] <= b[0] for a, b in pairwise(spans))


def label_region(space: Workspace, region: Region) -> LabelledTensor:
    """Labels for every axis of a weight; for every element of a small one, which may be heads by channels."""
    dims = tuple(d for d, n in enumerate(region.shape) if n > 1)
    size = prod(region.shape)
    if size <= _LARGE or (len(dims) == 2 and size <= _MATRIX):
        view = View(region.offset, region.shape, dims)
        joint = space.points.fresh(
            tuple(region.shape[d] for d in dims), region.tensor, region.axis, view=view
        )
        return LabelledTensor(space, region.shape, (LabelArray(dims, joint),), weight=True)
    arrays = []
    for d in dims:
        view = View(region.offset, region.shape, (d,))
        labels = space.points.fresh((region.shape[d],), region.tensor, region.axis, view=view)
        arrays.append(LabelArray((d,), labels))
    return LabelledTensor(space, region.shape, tuple(arrays), weight=True)
