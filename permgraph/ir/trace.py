"""Trace: a network as a flat list of tensor operations, free of torch, that can be written to a file.

A Trace is what `torch.export` saw, reduced to what inference reads: for every operation its name, its
arguments, the shapes of its results and the module it came from. Nothing here imports torch, so a saved
trace is inferred, planned and drawn without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from permgraph.ir.files import read_json, write_json

FORMAT = 2

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """An argument that is the result of another node."""

    node: str


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

    def refs(self) -> Iterator[str]:
        """Names of the nodes this one reads, in argument order."""
        yield from _refs(self.operands.values())
        yield from _refs(self.options.values())


@dataclass(frozen=True)
class Trace:
    """A captured network.

    model    what was traced, as the user typed it or the class name
    nodes    in execution order; the last one is the single "output" node
    state    every parameter and persistent buffer, by first name
    unused   state tensors that no node reads (for example `masked_spec_embed` in eval mode)
    free_output   traced with --free-output: the channels of the outputs may move
    """

    model: str
    nodes: tuple[Node, ...]
    state: dict[str, StateTensor]
    unused: tuple[str, ...] = ()
    free_output: bool = False

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the computation and of every tensor's shape: equal for equal architectures."""
        body = {
            "nodes": [
                [n.op, encode(n.operands), encode(n.options), [m and list(m.shape) for m in n.results]]
                for n in self.nodes
            ],
            "state": [[t.name, list(t.shape)] for t in self.state.values()],
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        return {
            "permgraph": "trace",
            "format": FORMAT,
            "model": self.model,
            "nodes": [_node_to_json(n) for n in self.nodes],
            "state": [_state_to_json(t) for t in self.state.values()],
            "unused": list(self.unused),
            "free_output": self.free_output,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trace:
        state = [
            StateTensor(t["name"], tuple(t["shape"]), t["dtype"], t["kind"], tuple(t.get("aliases", ())))
            for t in data["state"]
        ]
        nodes = tuple(_node_from_json(n) for n in data["nodes"])
        return cls(
            data["model"], nodes, {t.name: t for t in state}, tuple(data["unused"]), data["free_output"]
        )

    def save(self, path: str | Path) -> None:
        write_json(self.to_json(), path)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        return cls.from_json(read_json(path, "trace", FORMAT))


def encode(value: Any) -> Any:
    """An argument as JSON: a `Ref` becomes {"ref": name}, a float that JSON lacks {"float": text}."""
    if isinstance(value, Ref):
        return {"ref": value.node}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": {k: encode(v) for k, v in value.items()}}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": repr(value)}
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    if isinstance(value, dict):
        if "ref" in value:
            return Ref(value["ref"])
        if "float" in value:
            return float(value["float"])
        return {k: decode(v) for k, v in value["dict"].items()}
    return value


def _refs(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, Ref):
            yield value.node
        elif isinstance(value, (tuple, list)):
            yield from _refs(value)


def _node_to_json(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {"name": node.name, "op": node.op}
    if node.operands:
        row["operands"] = encode(node.operands)
    if node.options:
        row["options"] = encode(node.options)
    row["results"] = [m and [list(m.shape), m.dtype] for m in node.results]
    for key in ("multiple", "module", "module_type", "source", "pointwise"):
        if getattr(node, key):
            row[key] = getattr(node, key)
    if node.value is not None:
        row["value"] = node.value
    return row


def _node_from_json(row: dict[str, Any]) -> Node:
    results = tuple(m and TensorMeta(tuple(m[0]), m[1]) for m in row.get("results", ()))
    rest = {
        k: row[k] for k in ("multiple", "module", "module_type", "source", "pointwise", "value") if k in row
    }
    operands, options = (decode(row.get(key, {"dict": {}})) for key in ("operands", "options"))
    return Node(row["name"], row["op"], operands, options, results, **rest)


def _state_to_json(tensor: StateTensor) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "kind": tensor.kind,
    }
    return row | ({"aliases": list(tensor.aliases)} if tensor.aliases else {})
