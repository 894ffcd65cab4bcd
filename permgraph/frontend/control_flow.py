"""Control flow: branches and loops that `torch.export` kept become straight lines of nodes.

A branch is both of its arms, joined element by element. A loop is one turn of its body: what it carries has the
same axes before and after, and what it reads step by step or collects has steps along its first axis. The φ-nodes
are ops of our own, whose rules are in `axes/rules/control.py`:

    carry    the state of a loop before a turn
    step     one step of what a loop reads along its first axis
    loop     the states before and after a turn (and what else decides how often it turns)
    collect  the results of all steps, stacked
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import fx

from permgraph.ir.trace import Ref


class Walk(Protocol):
    """What a walk over a graph offers: adding nodes, and walking into a sub-graph."""

    def made(self, node: fx.Node, name: str, op: str, args: tuple[Any, ...], value: Any) -> Any: ...

    def inside(
        self, node: fx.Node, graph: fx.GraphModule, operands: tuple[Any, ...], number: int = 0
    ) -> tuple[Any, ...]: ...


def branch(walk: Walk, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """cond(predicate, one, other, operands)"""
    predicate, one, other, operands = args
    arms = walk.inside(node, one, operands), walk.inside(node, other, operands, 1)
    return tuple(
        walk.made(node, f"either{i}", "aten.where.self", (predicate, a, b), value)
        if isinstance(a, Ref) and isinstance(b, Ref)
        else a
        for i, (a, b, value) in enumerate(zip(*arms, node.meta["val"], strict=True))
    )


def scan(walk: Walk, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """scan(body, carried, read step by step, operands) → (carried …, collected …)"""
    body, init, rows, operands = args
    states, steps = _carries(walk, node, body, init), _steps(walk, node, body, rows, len(init))
    after = walk.inside(node, body, (*states, *steps, *operands))
    return _closed(walk, node, states, after[: len(init)], after[len(init) :], ())


def each(walk: Walk, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """map(body, read step by step, operands) → (collected …)"""
    body, rows, operands = args
    after = walk.inside(node, body, (*_steps(walk, node, body, rows, 0), *operands))
    return _closed(walk, node, (), (), after, ())


def repeat(walk: Walk, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """while_loop(condition, body, carried, operands) → (carried …)"""
    condition, body, init, operands = args
    states = _carries(walk, node, body, init)
    goes_on = walk.inside(node, condition, (*states, *operands))
    return _closed(walk, node, states, walk.inside(node, body, (*states, *operands), 1), (), goes_on)


def flex(walk: Walk, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """flex_attention(q, k, v, score function, block mask …, scale, options, what the functions read)

    Its functions are told batch, head, query and key position of a score; those that they ask for are ordered.
    """
    q, k, v, score, block = args[:5]
    mask = block[-1]
    asked = {i for i, n in enumerate(_placeholders(score)[1:5]) if n.users}
    asked |= {i for i, n in enumerate(_placeholders(mask)) if i < 4 and n.users}
    read = tuple(x for x in (*args[7], *args[8]) if isinstance(x, Ref))
    inputs = (q, k, v, read, tuple(sorted(asked)))
    return walk.made(node, "attention", "permgraph.flex_attention.default", inputs, node.meta["val"])


def _placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph.graph.nodes if n.op == "placeholder"]


WALKS: dict[str, Callable[[Walk, fx.Node, tuple[Any, ...]], Any]] = {
    "flex_attention": flex,
    "cond": branch,
    "scan": scan,
    "map_impl": each,
    "while_loop": repeat,
}


def _carries(walk: Walk, node: fx.Node, body: fx.GraphModule, init: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        walk.made(node, f"carry{i}", "permgraph.carry.default", (x,), value) if isinstance(x, Ref) else x
        for i, (x, value) in enumerate(zip(init, _inputs(body), strict=False))
    )


def _steps(
    walk: Walk, node: fx.Node, body: fx.GraphModule, rows: tuple[Any, ...], at: int
) -> tuple[Any, ...]:
    values = _inputs(body)[at:]
    return tuple(
        walk.made(node, f"step{i}", "permgraph.step.default", (x,), value)
        for i, (x, value) in enumerate(zip(rows, values, strict=False))
    )


def _inputs(body: fx.GraphModule) -> list[Any]:
    return [n.meta.get("val") for n in _placeholders(body)]


def _closed(
    walk: Walk,
    node: fx.Node,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    rows: tuple[Any, ...],
    also: tuple[Any, ...],
) -> tuple[Any, ...]:
    """The results of a loop. Each refers to the φ-node, so that a result nobody reads still holds the others."""
    values = node.meta["val"]
    kept = [i for i, a in enumerate(before) if isinstance(a, Ref)]
    shapes = tuple(values[i] for i in kept)
    states = tuple(before[i] for i in kept), tuple(after[i] for i in kept)
    joint = walk.made(node, "loop", "permgraph.loop.default", (*states, also), shapes) if kept else None
    results: list[Any] = list(after)
    for at, i in enumerate(kept):
        results[i] = walk.made(node, f"after{i}", "getitem", (joint, at), values[i])
    held = () if joint is None else (joint,)
    for i, row in enumerate(rows):
        value = values[len(before) + i]
        results.append(walk.made(node, f"collect{i}", "permgraph.collect.default", (row, *held), value))
    return tuple(results)
