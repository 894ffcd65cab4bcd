"""Trace: a network as a flat list of tensor operations, free of torch, that can be written to a file.

A Trace is what `torch.export` saw, reduced to what inference reads: for every operation its name, its
arguments, the shapes of its results and the module it came from. Nothing here imports torch, so a saved
trace is inferred, planned and drawn without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from permgraph.ir.check_trace import check_trace
from permgraph.ir.codec import encode
from permgraph.ir.files import Document, digest_of
from permgraph.ir.notebook import html_table, short
from permgraph.ir.ref import Ref, refs_in

__all__ = ["Node", "Ref", "Shape", "StateTensor", "TensorMeta", "Trace"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorMeta:
    """Shape and dtype ("float32", "int64", …) of one result."""

    shape: Shape
    dtype: str


@dataclass(frozen=True)
class StateTensor:
    """A parameter or a persistent buffer: one storage, one or more names.

    `name` is the first name the model gives it; `aliases` are the further names of a tied tensor.
    """

    name: str
    shape: Shape
    dtype: str
    kind: str  # "parameter" | "buffer"
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """One operation.

    op        "aten.linear.default" and the like; or "state", "input", "constant", "output"
    operands  the tensors it reads, by the argument names of the op's schema: `Ref`s, tuples of them, None if absent
    options   every other argument by name, defaults included: literals, tuples, `Ref`s to numbers that the data
              decide; for "state" {"tensor": its name}
    results   one meta per tensor returned (a single-result op has exactly one; None for a non-tensor)
    multiple  True when the op returns a tuple, read through "getitem" nodes
    module    path of the module that ran the op, "" for the root
    source    "file.py:123" in the model's code, "" when unknown
    pointwise True when torch tags the op as pointwise
    value     for a "constant": its contents as nested lists, when it is small and known
    """

    name: str
    op: str
    operands: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    results: tuple[TensorMeta | None, ...] = ()
    multiple: bool = False
    module: str = ""
    module_type: str = ""
    source: str = ""
    pointwise: bool = False
    value: Any = None

    @property
    def shape(self) -> Shape:
        """Shape of the (first) result."""
        meta = self.results[0] if self.results else None
        return meta.shape if meta else ()

    @property
    def short_op(self) -> str:
        """ "topk" of "aten.topk.default"; "state" and the like as they are."""
        return self.op.split(".")[1] if self.op.count(".") > 1 else self.op

    @property
    def is_float(self) -> bool:
        """Whether the (first) result holds real floating-point numbers."""
        meta = self.results[0] if self.results else None
        return meta is not None and meta.dtype.startswith(("float", "bfloat"))

    def refs(self) -> Iterator[str]:
        """Names of the nodes this one reads, in argument order."""
        yield from refs_in(self.operands.values())
        yield from refs_in(self.options.values())


@dataclass(frozen=True, repr=False)
class Trace(Document):
    """A captured network.

    model    what was traced, as the user typed it or the class name: a label, which nothing builds or imports
    nodes    in execution order; the last one is the single "output" node
    state    every parameter and persistent buffer, by first name
    unused   state tensors that no node reads (for example `masked_spec_embed` in eval mode)
    random   nodes that draw random numbers
    notes    what a reader must know of how it was captured, one sentence each without a full stop
    """

    kind: ClassVar[str] = "trace"
    format: ClassVar[int] = 4
    written_by: ClassVar[str] = "trace"

    model: str
    nodes: tuple[Node, ...]
    state: dict[str, StateTensor]
    unused: tuple[str, ...] = ()
    random: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """Node → the nodes that read it, in order; nothing for one that no node reads."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.refs()):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the computation and of every tensor's shape: equal for equal architectures."""
        nodes = []
        for node in self.nodes:
            fields = {name: value for name, value in encode(node).items() if name not in _LABELS}
            nodes.append([fields, [meta and meta.shape for meta in node.results]])
        return digest_of([nodes, [[t.name, t.shape] for t in self.state.values()]])

    def __repr__(self) -> str:
        return f"Trace({short(self.model)!r}: {len(self.nodes):,} nodes, {len(self.state):,} tensors)"

    def _repr_html_(self) -> str:
        calls = Counter(node.op for node in self.nodes)
        return html_table(repr(self), ("op", "calls"), calls.most_common(), len(calls))

    def check(self) -> None:
        check_trace(self)


# Fields of a node that are no part of the fingerprint: where it stands in the code, dtypes, contents of constants.
_LABELS = ("name", "module", "module_type", "source", "pointwise", "multiple", "value", "results")
