"""Walk: the graph of an exported program as a flat list of nodes, sub-graphs included."""

from __future__ import annotations

import operator
import re
from typing import Any

import sympy
import torch
from torch import fx
from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind

from permgraph.frontend.control_flow import WALKS
from permgraph.frontend.schema import node_of, plain
from permgraph.ir.trace import Node, Ref, TensorMeta

DATA = 12  # stands for a count that only the data tells
MAX_CONSTANT = 2**16  # elements of an integer table whose values are kept in the trace
_SHORT = 256  # elements of a vector of real numbers whose values are kept
_INLINE = (
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "tag_activation_checkpoint",
    "wrap",
    "hints_wrapper",
)
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


# Where a node stands: the calls whose sub-graphs it is in, each with the number of the sub-graph, then itself; a φ-node
# has the name of its kind at the end.
Path = tuple[fx.Node | int | str, ...]


def inlined(target: Any) -> bool:
    """Whether a call is a higher-order op whose sub-graph simply runs (autocast, no_grad, checkpoint)."""
    return str(getattr(target, "__name__", "")) in _INLINE


class Walk:
    """Turns one exported program, sub-graphs included, into a flat list of nodes."""

    def __init__(
        self,
        signature: ExportGraphSignature,
        names: dict[str, str],
        constants: dict[str, Any],
        state: dict[str, Any],
    ) -> None:
        self.signature = signature
        self.names = names
        self.values = state | constants
        self.nodes: list[Node] = []
        self.taken: set[str] = set()
        self.named: dict[Path, str] = {}  # names in the trace of what runs in the graph
        self.path: Path = ()  # of the sub-graph
        self.prefix = ""  # of the names of nodes inside a branch or a loop

    def program(self, graph: fx.GraphModule) -> list[Node]:
        inputs = {spec.arg.name: spec for spec in self.signature.input_specs}
        env: dict[fx.Node, Any] = {}
        seen: dict[str, Ref] = {}
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                env[node] = self.placeholder(node, inputs[node.name], seen)
        self.body(graph, env)
        (out,) = (n for n in graph.graph.nodes if n.op == "output")
        given = zip(self.signature.output_specs, out.args[0], strict=True)
        wanted = [a for spec, a in given if spec.kind == OutputKind.USER_OUTPUT and isinstance(a, fx.Node)]
        refs = tuple(env[a] for a in wanted)
        self.nodes.append(node_of("output", "output", (tuple(r for r in refs if isinstance(r, Ref)),)))
        return self.nodes

    def placeholder(self, node: fx.Node, spec: Any, seen: dict[str, Ref]) -> Any:
        meta = metas_of(node.meta.get("val"))
        if not meta or meta[0] is None:
            return node.meta.get("val")  # a plain number or None baked into the call
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in self.names:
            first = self.names[spec.target]
            if first not in seen:
                seen[first] = self.add(node.name, "state", (first,), meta, value=self.table(spec.target))
            return seen[first]
        if spec.kind == InputKind.USER_INPUT:
            return self.add(node.name, "input", (), meta)
        return self.add(node.name, "constant", (), meta, value=self.table(spec.target, True))

    def add(self, name: str, op: str, args: tuple[Any, ...], results: Any, **rest: Any) -> Ref:
        name = self.prefix + name
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.nodes.append(node_of(name, op, args, results=results, **rest))
        return Ref(name)

    def run(self, node: fx.Node, op: str, args: tuple[Any, ...], results: Any, **rest: Any) -> Ref:
        """Add what one node of the graph does."""
        ref = self.add(node.name, op, args, results, **rest)
        path = (*self.path, node)
        self.named[path] = ref.node
        return ref

    def body(self, graph: fx.GraphModule, env: dict[fx.Node, Any]) -> Any:
        """Walk the calls of one graph; returns what its output node returns, as arguments."""
        for node in graph.graph.nodes:
            if node.op == "get_attr":
                env[node] = self.attribute(graph, node)
            elif node.op == "call_function":
                env[node] = self.call(node, env)
            elif node.op == "output":
                known = fx.map_arg(node.args[0], lambda n: env.get(n))
                return known
        return None

    def attribute(self, graph: fx.GraphModule, node: fx.Node) -> Any:
        value = operator.attrgetter(str(node.target))(graph)
        if isinstance(value, torch.Tensor):
            return self.add(node.name, "constant", (), metas_of(value), value=table_of(value, True))
        return value

    def call(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args = plain(fx.map_arg(node.args, lambda n: env[n]))
        kwargs = plain(fx.map_arg(dict(node.kwargs), lambda n: env[n]))
        if node.target is operator.getitem:
            source, index = args
            if isinstance(source, tuple):  # the result of an inlined sub-graph
                return source[index]
            results = metas_of(node.meta.get("val"))
            return self.run(node, "getitem", (source, index), results, **_where(node))
        if inlined(node.target):
            position = next(i for i, a in enumerate(args) if isinstance(a, fx.GraphModule))
            return self.inline(node, args[position], args[position + 1 :])
        target = node.target
        name = (
            str(target)
            if isinstance(target, torch._ops.OperatorBase)
            else f"<{getattr(target, '__name__', '')}>"
        )
        if walk := WALKS.get(str(getattr(target, "__name__", ""))):
            return walk(self, node, args)
        tags = target.tags if isinstance(target, torch._ops.OpOverload) else ()
        value = node.meta.get("val")
        return self.run(
            node,
            name,
            tuple("<graph>" if isinstance(a, fx.GraphModule) else a for a in args),
            metas_of(value),
            kwargs=kwargs,
            multiple=isinstance(value, (tuple, list)),
            pointwise=torch.Tag.pointwise in tags,
            **_where(node),
        )

    def inline(self, node: fx.Node, graph: fx.GraphModule, operands: tuple[Any, ...], number: int = 0) -> Any:
        """Walk into a sub-graph, the `number`th of a call."""
        inputs = [n for n in graph.graph.nodes if n.op == "placeholder"]
        outer, self.path = self.path, (*self.path, node, number)
        result = self.body(graph, dict(zip(inputs, operands, strict=False)))
        self.path = outer
        return tuple(result) if isinstance(result, (tuple, list)) else result

    def inside(
        self, node: fx.Node, graph: fx.GraphModule, operands: tuple[Any, ...], number: int = 0
    ) -> tuple[Any, ...]:
        """Walk into an arm of a branch or the body of a loop; its nodes get names of their own."""
        outer, self.prefix = self.prefix, f"{self.prefix}{node.name}."
        made = self.inline(node, graph, operands, number)
        self.prefix = outer
        return made if isinstance(made, tuple) else (made,)

    def made(self, node: fx.Node, name: str, op: str, args: tuple[Any, ...], value: Any) -> Ref:
        """A φ-node of a branch or a loop."""
        several = isinstance(value, (tuple, list))
        pointwise = op == "aten.where.self"
        rest = {"multiple": several, "pointwise": pointwise, **_where(node)}
        ref = self.add(f"{node.name}.{name}", op, args, metas_of(value), **rest)
        path = (*self.path, node, name)
        self.named[path] = ref.node
        return ref

    def table(self, target: str | None, constant: bool = False) -> Any:
        value = self.values.get(target or "")
        return table_of(value, constant) if isinstance(value, torch.Tensor) else None


def table_of(value: torch.Tensor, constant: bool = False) -> Any:
    """Contents of an integer or boolean table; a bare number when a constant has one value throughout.

    Of real numbers, those of a short constant vector in which some are equal.
    """
    if (
        value.is_meta
        or value.layout != torch.strided
        or value.numel() == 0
        or isinstance(value, torch._subclasses.FakeTensor)
    ):
        return None
    if value.is_floating_point() or value.is_complex():
        value = value.detach()
        if constant and value.dim() == 1 and value.numel() <= _SHORT and not value.is_complex():
            numbers = value.tolist()
            if 1 < len(set(numbers)) < len(numbers) and bool(torch.isfinite(value).all()):
                return numbers
        first = value.flatten()[0]
        uniform = value.numel() > 1 and bool((value == first).all()) and bool(torch.isfinite(first).all())
        return float(first) if uniform and not value.is_complex() else None
    return value.tolist() if value.numel() <= MAX_CONSTANT else None


def metas_of(value: Any) -> tuple[TensorMeta | None, ...]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(
        TensorMeta(tuple(map(_size, v.shape)), dtype_of(v.dtype)) if isinstance(v, torch.Tensor) else None
        for v in values
    )


def _size(n: int | torch.SymInt) -> int:
    """A size; one that depends on the data (how many tokens an expert gets) as if `DATA` were counted."""
    if not isinstance(n, torch.SymInt):
        return int(n)
    expression = n.node.expr
    return max(
        0, int(expression.xreplace({symbol: sympy.Integer(DATA) for symbol in expression.free_symbols}))
    )


def dtype_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _where(node: fx.Node) -> dict[str, str]:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    frames = [f for f in FRAME.findall(node.meta.get("stack_trace") or "") if "/torch/" not in f[0]]
    source = f"{short(frames[-1][0])}:{frames[-1][1]}" if frames else ""
    kind = kind if isinstance(kind, str) else kind.__name__
    return {"module": path, "module_type": kind.rsplit(".", 1)[-1], "source": source}


def short(path: str) -> str:
    return path.rsplit("site-packages/", 1)[-1] if "site-packages/" in path else path.rsplit("/", 1)[-1]
