"""Roles and names: read off the structure, not off module names.

A role says what a group's units are: `cnn` channels made by a convolution, `heads` the order of attention
heads, `heads/qk` and `heads/v` channels inside one, `ffn` hidden units between linear maps, `residual` a stream
that activations are added to, `embed` columns of an embedding.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from permgraph.axes.propagation import Propagation
from permgraph.ir.spec import Place
from permgraph.ir.trace import Trace
from permgraph.symmetry.block import Block
from permgraph.symmetry.coloured_graph import Classes

Names = dict[int, tuple[str, str, str]]  # block key → (name, role, module)


def name_blocks(
    trace: Trace,
    context: Propagation,
    classes: Classes,
    blocks: list[Block],
    places: list[tuple[tuple[int, ...], Place]],
) -> Names:
    """Roles by structure, running indices in graph order; a nested group is named under its parent."""
    marks = _marks(context, classes)
    first = {key: i for i, (layout, _) in reversed(list(enumerate(places))) for key in layout}
    names: Names = {}
    index: Counter[str] = Counter()
    for block in sorted(blocks, key=lambda b: (len(b.under), first[b.key])):
        mine = [place for layout, place in places if block.key in layout]
        module = _module(trace, mine)
        if block.parent is None:
            role = _role(context, block, mine, marks, nested=any(b.parent == block.key for b in blocks))
            names[block.key] = (f"{role}.{index[role]}", role, module)
            index[role] += 1
        else:
            name, outer, _ = names[block.parent]
            role = f"{outer}/{_inner(block, marks)}"
            suffix = f".{index[name + role]}" if index[name + role] else ""
            names[block.key] = (f"{name}/{role.rsplit('/', 1)[1]}{suffix}", role, module)
            index[name + role] += 1
    blocks[:] = _parents_first(sorted(blocks, key=lambda b: _order(b, first)))
    return names


def _parents_first(blocks: list[Block]) -> list[Block]:
    """In this order, but every block after all those it lives within: it may live at the crossing of two."""
    waiting, done = list(blocks), set[int]()
    ordered = []
    while waiting:
        at = next(i for i, block in enumerate(waiting) if done.issuperset(block.under))
        ordered.append(waiting.pop(at))
        done.add(ordered[-1].key)
    return ordered


def _order(block: Block, first: dict[int, int]) -> list[tuple[int, int]]:
    return [(first[key], key) for key in (*block.under, block.key)]


def _marks(context: Propagation, classes: Classes) -> dict[str, np.ndarray]:
    marks = {}
    for mark in ("qk", "v", "residual"):
        found = np.zeros(classes.count, dtype=bool)
        for labels in context.usage.marks.get(mark, ()):
            found[classes.of[labels.ravel()]] = True
        marks[f"{mark} itself"] = found.copy()
        if mark != "residual":  # a factor of a marked product, the block of marked members
            a, b = classes.edges.a, classes.edges.b
            near = np.concatenate([b[found[a]], a[found[b]]])
            found[near] = True
        marks[mark] = found
    return marks


def _role(
    context: Propagation, block: Block, places: list[Place], marks: dict[str, np.ndarray], nested: bool
) -> str:
    members = block.owner.members(block)
    hit = {mark: bool(found[members].any()) for mark, found in marks.items()}
    if hit["qk"] and hit["v"] and (nested or block.units.shape[-1] > 1):
        return "heads"
    if hit["residual"]:
        return "residual"
    if hit["qk"] or hit["v"]:
        return "qk" if hit["qk"] else "v"
    makers = {
        context.usage.uses[(p.tensor, p.axis)].op
        for p in places
        if (p.tensor, p.axis) in context.usage.uses and p.side == "permute"
    }
    ops = {op.split(".")[1] for op in makers}
    if any(op.startswith("conv") for op in ops):
        return "cnn"
    if "embedding" in ops and "linear" not in ops:
        return "embed"
    read = any(p.side == "un-permute" for p in places)
    return "ffn" if read and ops & {"linear", "addmm", "mm", "matmul", "bmm", "einsum"} else "channels"


def _inner(block: Block, marks: dict[str, np.ndarray]) -> str:
    members = block.owner.members(block)
    qk, v = bool(marks["qk"][members].any()), bool(marks["v"][members].any())
    if qk and v:
        only_v = marks["v itself"][members].any() and not marks["qk itself"][members].any()
        return "v" if only_v else "queries"  # query heads that share a key head
    return "qk" if qk else "v" if v else "inner"


def _module(trace: Trace, places: list[Place]) -> str:
    """The module that makes the units: what the modules of the producing nodes have in common."""
    made = [p for p in places if p.side == "permute"] or places
    paths = [trace.by_name[p.node].module.split(".") for p in made if p.node in trace.by_name]
    weights = [x for x in paths if x != [""]] or paths
    return ".".join(_common(weights))


def _common(paths: list[list[str]]) -> list[str]:
    """Leading parts that all paths share."""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared
