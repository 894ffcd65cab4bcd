"""From the operations of a trace to boxes: which operations a drawing keeps, and what each one reads."""

from __future__ import annotations

import re

from permgraph.ir.trace import Node, Trace

# What is worth a word in the box it follows; aten's own spellings with prefix and suffix taken off.
_ACTIVATIONS = re.compile(
    r"_?(log_)?softmax|gelu|relu6?|leaky_relu|elu|silu|mish|glu|tanh|(hard)?sigmoid|hardswish|hardtanh|softplus"
    r"|(adaptive_)?(max|avg)_pool[123]d(_with_indices)?"
)


class Flow:
    """Which nodes are boxes, and from which boxes each of them reads."""

    def __init__(self, trace: Trace, unknown: set[str]) -> None:
        self.trace, self.unknown = trace, unknown
        self.boxes: dict[str, None] = {}
        self.tails: dict[str, tuple[str, ...]] = {}  # box → boxes it reads from
        self.reads: dict[
            str, dict[str, None]
        ] = {}  # node → state tensors that reach it without a box between
        self.owners: dict[str, dict[str, None]] = {}  # node → boxes it is part of
        self.follows: dict[str, dict[str, None]] = {}  # box → activations folded into it
        self._sources: dict[str, tuple[str, ...]] = {}  # node → boxes whose data it carries
        self._moving = self._depends_on_input()
        for node in trace.nodes:
            self._visit(node)
        self._own_static()

    def _depends_on_input(self) -> set[str]:
        moving = {n.name for n in self.trace.nodes if n.op in ("input", "output")}
        for node in self.trace.nodes:
            if node.op not in ("state", "constant") and any(ref in moving for ref in node.refs()):
                moving.add(node.name)
        if len(moving) > 1:
            return moving
        return {n.name for n in self.trace.nodes if n.op not in ("state", "constant")}

    def _visit(self, node: Node) -> None:
        refs = list(dict.fromkeys(r for r in node.refs() if r in self.trace.by_name))
        static = [r for r in refs if r not in self._moving]
        self.reads[node.name] = dict.fromkeys(t for r in static for t in self.reads[r])
        if node.op == "state":
            self.reads[node.name] = {str(node.options["tensor"]): None}
        if node.name not in self._moving:
            return
        tails = tuple(
            dict.fromkeys(
                s for r in refs if r in self._moving and not self._mask(r) for s in self._sources[r]
            )
        )
        if self._is_box(node, tails):
            self.boxes[node.name] = None
            self.tails[node.name] = tails
            self._sources[node.name] = (node.name,)
            self.owners[node.name] = {node.name: None}
            return
        self._sources[node.name] = tails
        self.owners[node.name] = dict.fromkeys(tails)
        word = short(node.op)
        for tail in tails:
            if _ACTIVATIONS.fullmatch(word):
                self.follows.setdefault(tail, {})[word.strip("_").removesuffix("_with_indices")] = None

    def _mask(self, name: str) -> bool:
        results = self.trace.by_name[name].results
        return bool(results and results[0] and results[0].dtype == "bool")

    def _is_box(self, node: Node, tails: tuple[str, ...]) -> bool:
        fixed = node.op in ("input", "output") or node.name in self.unknown
        return fixed or bool(self.reads[node.name]) or len(tails) > 1

    def _own_static(self) -> None:
        """A node that only reads the state (`_weight_norm`) belongs to the boxes that read it."""
        for node in reversed(self.trace.nodes):
            for ref in node.refs():
                if ref not in self._moving and ref in self.trace.by_name:
                    self.owners.setdefault(ref, {}).update(self.owners.get(node.name, {}))

    def readers(self, tensor: str) -> list[str]:
        """Boxes that read a state tensor; the output for "output:0"."""
        if tensor.startswith("output:"):
            return [box for box in self.boxes if self.trace.by_name[box].op == "output"]
        return [box for box in self.boxes if tensor in self.reads[box]]


def short(op: str) -> str:
    """ "aten.linear.default" is "linear"."""
    parts = op.split(".")
    return parts[1] if len(parts) > 1 else op
