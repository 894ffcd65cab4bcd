"""Alike: whether several parts of a network are the same operations on tensors of their own.

Heads, experts and branches that a model keeps as separate modules end in one node: a sum, a concatenation, a stack. Its
operands are compared backwards, all at once: the same node is shared by all; equal ops go on to their operands; state
tensors of equal shapes correspond; so do parts that are cut out of one tensor at different places.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from permgraph.axes.state_labels import elementwise_integers, is_integer
from permgraph.ir.trace import Node, Ref, Trace

Copies = tuple[str, ...]  # nodes that correspond, one of each branch

# `eq` of an index with a number is one part of its one-hot form
_CUTS = {"slice": ("start", "end"), "select": ("index",), "eq": ("other",)}
_PARTS = ("split", "split_with_sizes", "unbind", "chunk", "unsafe_split", "split_copy", "unbind_copy")


@dataclass
class Alike:
    """What corresponds in branches that are alike.

    copies   every tuple of corresponding nodes, the ends of the branches first; some branches may share one (query
             heads a key head), those that all share are left out
    cuts     those of them that are cut out of one tensor at different places
    """

    copies: list[Copies] = field(default_factory=list)
    cuts: set[Copies] = field(default_factory=set)


class Comparison:
    """Compares nodes of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.random = frozenset(trace.random)
        self.elementwise = elementwise_integers(trace)
        self.order = {node.name: i for i, node in enumerate(trace.nodes)}
        self._looks: dict[str, bytes] = {}
        self.weight: dict[str, bool] = {}  # whether a node is computed from the state alone
        for node in trace.nodes:
            self._look(node)

    def looks(self, name: str) -> bytes:
        """Equal for nodes that are alike, and for next to no others."""
        return self._looks[name]

    def _look(self, node: Node) -> None:
        refs = tuple(node.refs())
        self.weight[node.name] = node.op != "input" and all(self.weight[r] for r in refs)
        metas = tuple(m and (m.shape, m.dtype) for m in node.results)
        own: tuple[Any, ...] = (node.op, metas, _options(node))
        if node.op in ("input", "output") or node.name in self.random:
            own = (node.name,)
        elif node.op == "constant":
            own = (*own, repr(node.value) if node.value is not None else node.name)
        digest = hashlib.blake2b(repr(own).encode(), digest_size=12)
        for ref in refs:
            digest.update(self._looks[ref])
        self._looks[node.name] = digest.digest()

    def alike(self, ends: Copies) -> Alike | None:
        """What corresponds in the branches that end in these nodes; None where they are not alike."""
        found, waiting, met = Alike(), [ends], {ends}
        users: dict[str, list[int]] = {}
        while waiting:
            copies = waiting.pop()
            if len(set(copies)) == 1:
                continue
            inner = self._compared(copies, found)
            if inner is None or users.keys() & set(copies):
                return None  # different, or one node in two correspondences
            for i, name in enumerate(copies):
                users.setdefault(name, []).append(i)
            found.copies.append(copies)
            new = [c for c in dict.fromkeys(inner) if c not in met]
            met.update(new)
            waiting += new
        return found

    def _compared(self, copies: Copies, found: Alike) -> list[Copies] | None:
        """The operands of corresponding nodes, compared next; None where the nodes differ."""
        nodes = [self.trace.by_name[name] for name in copies]
        if len({self._looks[name] for name in copies}) > 1:
            return None
        first = nodes[0]
        if first.op == "state":
            return [] if self._movable(nodes) else None
        if first.op in ("input", "constant", "output"):
            return [] if first.op == "constant" and first.value is not None else None
        sources = [tuple(node.refs()) for node in nodes]
        if len({len(s) for s in sources}) > 1 or any(name in self.random for name in copies):
            return None
        if self._cut(nodes):
            found.cuts.add(copies)
        elif len({_arguments(node) for node in nodes}) > 1:
            return None
        return list(zip(*sources, strict=True))

    def _movable(self, nodes: list[Node]) -> bool:
        """State that moves with its channels; integers that say where something is have to hold the same values."""
        if all(not is_integer(n) or n.name in self.elementwise for n in nodes):
            return True
        values = {repr(n.value) for n in nodes}
        return len(values) == 1 and nodes[0].value is not None

    def _cut(self, nodes: list[Node]) -> bool:
        """Whether these are parts of one tensor, cut out at different places."""
        if len({next(iter(n.refs()), "") for n in nodes}) > 1:
            return False
        places = {n.name: _places(n, self.trace) for n in nodes}
        return len(set(places.values())) == len(places) and None not in places.values()


def _places(node: Node, trace: Trace) -> tuple[Any, ...] | None:
    """Where a node cuts a part out of a tensor; None where it does not."""
    if node.op == "getitem":
        source = trace.by_name[node.operands["source"].node]
        return (node.options["index"],) if source.short_op in _PARTS else None
    names = _CUTS.get(node.short_op.removesuffix("_copy"))
    given = {**node.operands, **node.options}
    if names is None or any(not isinstance(given.get(n), int | None) for n in names):
        return None
    return tuple(given.get(n) for n in names)


def _options(node: Node) -> str:
    """The options of a node, without where it cuts: a part of the same size is alike."""
    if node.op == "state":
        return ""
    left = ("index",) if node.op == "getitem" else _CUTS.get(node.short_op.removesuffix("_copy"), ())
    operands = {k: v for k, v in node.operands.items() if k not in left or isinstance(v, Ref)}
    return repr([(k, _plain(v)) for k, v in node.options.items() if k not in left]) + repr(
        [(k, _plain(v)) for k, v in operands.items()]
    )


def _arguments(node: Node) -> str:
    return repr([(k, _plain(v)) for k, v in (*node.operands.items(), *node.options.items())])


def _plain(value: Any) -> Any:
    """An argument with every tensor in it as a mark."""
    if isinstance(value, Ref):
        return "·"
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value
