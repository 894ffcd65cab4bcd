"""From an example call to a network: every structure of the result is read by a weight of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.frontend.decomposition import is_decomposed
from permgraph.frontend.schema import node_of
from permgraph.ir.trace import Node, Ref, StateTensor, TensorMeta, Trace
from tests.axes.example import C, Example, P

F64 = torch.float64


def drawn(operand: P, generator: torch.Generator) -> Tensor:
    if operand.kind == "normal":
        return torch.randn(operand.shape, generator=generator, dtype=F64)
    unit = torch.rand(operand.shape, generator=generator, dtype=F64)
    return 0.5 + unit if operand.kind == "positive" else 1.8 * unit - 0.9


def operands(value: Any) -> list[P]:
    """The free operands of an argument list, in order; one that stands twice counts twice."""
    if isinstance(value, P):
        return [value]
    if isinstance(value, (tuple, list)):
        return [p for v in value for p in operands(v)]
    return []


def filled(value: Any, tensors: list[Tensor]) -> Any:
    """Arguments with the operands replaced by tensors, which are taken off the list."""
    if isinstance(value, P):
        tensor = tensors.pop(0)
        return tensor if value.view is None else tensor.reshape(value.view)
    if isinstance(value, C):
        return value.value
    if isinstance(value, (tuple, list)):
        return [filled(v, tensors) for v in value]
    return value


def frozen(tensors: Iterable[Tensor]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(t, requires_grad=False) for t in tensors)


class Call(nn.Module):
    """Σ w · op(params), one sum per result that is read."""

    def __init__(self, example: Example, seed: int = 0) -> None:
        super().__init__()
        self.example = example
        self.function = getattr(getattr(torch.ops.aten, example.row), example.op.partition(".")[2])
        generator = torch.Generator().manual_seed(seed)
        self.params = frozen(drawn(p, generator) for p in operands(example.args))
        self.weights = frozen(
            torch.randn(r.numel(), generator=generator, dtype=F64) for r in self.results(list(self.params))
        )

    def call(self, params: list[Tensor]) -> Any:
        tables = {k: filled(v, []) for k, v in self.example.kwargs.items()}
        return self.function(*filled(self.example.args, list(params)), **tables)

    def results(self, params: list[Tensor]) -> list[Tensor]:
        made = self.call(params)
        return [made[i] for i in self.example.read] if isinstance(made, (tuple, list)) else [made]

    def forward(self) -> tuple[Tensor, ...]:
        results = self.results(list(self.params))
        return tuple((w * r.reshape(-1)).sum() for w, r in zip(self.weights, results, strict=True))


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.state: dict[str, StateTensor] = {}

    def add(self, name: str, op: str, args: tuple[Any, ...], made: Any, **rest: Any) -> Ref:
        several = isinstance(made, (tuple, list))
        results = tuple(_meta(t) for t in (made if several else (made,)))
        self.nodes.append(node_of(name, op, args, results=results, multiple=several, **rest))
        return Ref(name)

    def parameter(self, name: str, tensor: Tensor) -> Ref:
        self.state[name] = StateTensor(name, tuple(tensor.shape), "float64", "parameter")
        return self.add(name.replace(".", "_"), "state", (name,), tensor)

    def argument(self, value: Any, params: list[Ref]) -> Any:
        if isinstance(value, P):
            ref = params.pop(0)
            if value.view is None:
                return ref
            seen = torch.empty(value.view, dtype=F64)
            return self.add(f"{ref.node}_seen{len(self.nodes)}", "aten.view.default", (ref, value.view), seen)
        if isinstance(value, C):
            known = value.value.tolist() if value.known and not value.value.is_floating_point() else None
            return self.add(f"table{len(self.nodes)}", "constant", (), value.value, value=known)
        if isinstance(value, (tuple, list)):
            return tuple(self.argument(v, params) for v in value)
        return str(value) if isinstance(value, torch.dtype) else value


def _meta(value: Any) -> TensorMeta | None:
    return TensorMeta(tuple(value.shape), str(value.dtype)[6:]) if isinstance(value, Tensor) else None


def traced(call: Call) -> Trace:
    """The trace of `call`; an op that is not to be decomposed comes through under its own name, whatever its rule."""
    return capture(call, ()) if is_decomposed(call.function) else _as_it_is(call)


def _as_it_is(call: Call) -> Trace:
    b, example = _Builder(), call.example
    refs = [b.parameter(f"params.{i}", p) for i, p in enumerate(call.params)]
    weights = [b.parameter(f"weights.{i}", w) for i, w in enumerate(call.weights)]
    args = b.argument(example.args, refs)
    kwargs = {k: b.argument(v, []) for k, v in example.kwargs.items()}
    made = call.call(list(call.params))
    pointwise = torch.Tag.pointwise in call.function.tags
    node = b.add("call", f"aten.{example.op}", args, made, kwargs=kwargs, pointwise=pointwise)
    outputs = []
    for i, (which, w) in enumerate(zip(example.read, weights, strict=True)):
        ref, part = node, made
        if isinstance(made, (tuple, list)):
            part = made[which]
            ref = b.add(f"item{i}", "getitem", (node, which), part)
        flat = part.reshape(-1)
        ref = b.add(f"flat{i}", "aten._unsafe_view.default", (ref, (-1,)), flat)
        ref = b.add(f"scaled{i}", "aten.mul.Tensor", (w, ref), flat * call.weights[i], pointwise=True)
        outputs.append(b.add(f"sum{i}", "aten.sum.default", (ref,), flat.sum()))
    b.nodes.append(node_of("output", "output", (tuple(outputs),)))
    return Trace(str(example), tuple(b.nodes), b.state)
