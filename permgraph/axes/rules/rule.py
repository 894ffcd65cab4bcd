"""Rule: what is said of an op, bound to the arguments of a call, and run. What a rule leaves unused is pinned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from permgraph.axes.contraction import contract
from permgraph.axes.equal_values import EQUAL, EqualValues
from permgraph.axes.equation import Equation
from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Node, Ref, Shape

Results = tuple[LabelledTensor | None, ...]
Said = str | Equation | tuple[str | Equation, Mapping[str, int]] | LabelledTensor | Results
Terms = list[LabelledTensor | None]


@dataclass(frozen=True, eq=False)
class Call:
    """One node and the tensors it reads; a rule that needs more than its arguments asks for it (`call: Call`).

    operands   tensors by the names of the schema; lists as tuples, None where one is absent
    read       which results something reads
    levels     of every node, whether its coordinates may be equal
    nodes      of the network, by name
    """

    space: Workspace
    node: Node
    operands: Mapping[str, Any]
    read: frozenset[int]
    levels: Callable[[], EqualValues]
    nodes: Mapping[str, Node] = field(default_factory=dict)

    def level(self, operand: str, dim: int) -> int:
        """Whether coordinates of an operand along a dim may be equal (`axes/equal_values.py`)."""
        given = self.given(operand)
        return EQUAL if given is None else self.levels().along(given.name, dim)

    def number(self, name: str) -> Any:
        """An argument that is no tensor, wherever the schema puts it."""
        value = self.node.operands.get(name, self.node.options.get(name))
        return None if isinstance(value, (Ref, bool)) else value

    def given(self, operand: str) -> Node | None:
        """The node of an operand."""
        ref = self.node.operands.get(operand)
        return self.nodes.get(ref.node) if isinstance(ref, Ref) else None

    @property
    def shape(self) -> Shape:
        """Of the first result."""
        return self.node.shape

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(meta.shape if meta else () for meta in self.node.results)

    @property
    def tensors(self) -> list[LabelledTensor]:
        """Every tensor that is read, in order."""
        return [tensor for tensor in flat(self.operands.values()) if tensor is not None]

    def pin_all(self, reason: str) -> Results:
        """Nothing that enters may move; results are distinguished by position."""
        for tensor in self.tensors:
            tensor.pin(reason)
        return self.pinned(reason)

    def pinned(self, reason: str, start: int = 0) -> Results:
        """Results from `start` on, distinguished by position."""
        metas = self.node.results[start:]
        return tuple(pinned_tensor(self.space, m.shape, reason) if m else None for m in metas)

    def every(self, result: LabelledTensor) -> Results:
        """The same labels for each of several results."""
        return (result,) * len(self.node.results)

    def only_shapes(self, *tensors: LabelledTensor) -> None:
        """The op reads the shapes of these tensors (of all, if none is named) and no element."""
        for tensor in tensors or self.tensors:
            self.space.use(tensor)


@dataclass(frozen=True, eq=False)
class EquationRule:
    """A rule that is one equation; see `equation` in `table.py`."""

    equation: Equation
    operands: tuple[str, ...]
    sizes: Mapping[str, str]

    @property
    def text(self) -> str:
        return self.equation.text

    def say(self, call: Call) -> tuple[Said, Terms]:
        """The equation with its sizes, and a tensor per term: those that have none are left unused."""
        rank = call.tensors[0].rank  # a dim is counted within what is read: `unfold` returns one more
        sizes = {key: _size(call.node.options[name], rank) for key, name in self.sizes.items()}
        named = (call.operands.get(name) for name in self.operands)
        values = flat(named if self.operands else call.operands.values())
        count = len(self.equation.operands)
        return (self.equation, sizes), [*values, *[None] * count][:count]


def _size(value: Any, rank: int) -> int:
    if isinstance(value, tuple):
        return len(value)
    if not isinstance(value, int):
        raise UnsupportedForm(f"a size that the data decide: {value}")
    return value + rank if value < 0 else value


@dataclass(frozen=True, eq=False)
class FunctionRule:
    """A rule that is a function of arguments by their names; see `op` in `table.py`.

    parameters   those that are arguments of the op
    tensors      names of the parameters that are annotated as tensors
    asks         name of the parameter that is the call itself, if there is one
    """

    function: Callable[..., Said]
    parameters: tuple[inspect.Parameter, ...]
    tensors: frozenset[str]
    asks: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Said]) -> FunctionRule:
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        asks = tuple(p.name for p in parameters if hints.get(p.name) is Call)
        tensors = frozenset(name for name, hint in hints.items() if _mentions(hint, LabelledTensor))
        return cls(function, tuple(p for p in parameters if p.name not in asks), tensors, asks)

    @property
    def text(self) -> str:
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    def say(self, call: Call) -> tuple[Said, Terms]:
        arguments = {p.name: _argument(call, p) for p in self.parameters}
        terms = [value for name, value in arguments.items() if name in self.tensors]
        return self.function(**arguments, **dict.fromkeys(self.asks, call)), list(flat(terms))


Rule = EquationRule | FunctionRule


def _mentions(hint: Any, kind: type) -> bool:
    return hint is kind or any(_mentions(part, kind) for part in get_args(hint))


def _argument(call: Call, parameter: inspect.Parameter) -> Any:
    for given in (call.operands, call.node.options):
        if parameter.name in given:
            return given[parameter.name]
    if parameter.default is inspect.Parameter.empty:
        raise TypeError(f"the rule asks for an argument `{parameter.name}`, which the op does not have")
    return parameter.default


def flat(values: Any) -> Iterator[Any]:
    """The leaves of nested lists and tuples."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from flat(value)
        else:
            yield value


def results_of(rule: Rule, call: Call) -> Results:
    """Run a rule, and pin what it left unused. Raises UnsupportedForm, and whatever the rule's mistakes raise."""
    said, terms = rule.say(call)
    if isinstance(said, (str, Equation)):
        said = (said, {})
    if isinstance(said, tuple) and said and isinstance(said[0], (str, Equation)):
        text, sizes = said
        call.space.points.at = call.space.points.at._replace(rule=str(text))
        said = contract(text, terms, call.shape, sizes)
    results = _with_statistics(call, said) if isinstance(said, LabelledTensor) else said
    for tensor in call.tensors:
        if not call.space.is_used(tensor) and not any(tensor is result for result in results):
            tensor.pin(f"not used by the rule of {call.node.op}")
    return results


def _with_statistics(call: Call, first: LabelledTensor) -> Results:
    """For an op that returns (result, statistics …): statistics that are read hold all that they come from."""
    if any(i > 0 for i in call.read):
        for tensor in call.tensors:
            tensor.pin("statistics")
    return (first, *call.pinned("statistics", 1))
