"""The table of rules: how a rule is written, bound to the arguments of a call, and run.

A rule is an equation over the tensors that an op reads, or a function of the op's arguments by the names of the
op's own schema, that returns an equation (or the labelled results, where no equation can say it):

    register("linear", "... in, out in, out? -> ... out")
    register("group_norm", "b (g [c]) [s*], (g c)?, (g c)? -> b (g c) s*", g="num_groups")

    @op("glu")
    def glu(self: LabelledTensor, dim: int) -> LabelledTensor: ...

A tensor that the rule left unused is pinned. `UnsupportedForm` is how a rule says what it does not cover.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from permgraph.axes.contraction import contract
from permgraph.axes.equation import Equation, parse
from permgraph.axes.labelled_tensor import LabelledTensor, pinned_tensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.workspace import Workspace
from permgraph.ir.trace import Node, Shape

F = TypeVar("F", bound=Callable[..., Any])
Results = tuple[LabelledTensor | None, ...]
Outcome = str | Equation | tuple[str | Equation, Mapping[str, int]] | LabelledTensor | Results


@dataclass(frozen=True, eq=False)
class Call:
    """One node and the tensors it reads; a rule that needs more than its arguments asks for it (`call: Call`).

    operands   tensors by the names of the schema; lists as tuples, None where one is absent
    read       which results something reads
    """

    space: Workspace
    node: Node
    operands: Mapping[str, Any]
    read: frozenset[int]

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
        """Nothing that enters may move; results are told apart by position."""
        for tensor in self.tensors:
            tensor.pin(reason)
        return self.pinned(reason)

    def pinned(self, reason: str, start: int = 0) -> Results:
        """Results from `start` on, told apart by position."""
        metas = self.node.results[start:]
        return tuple(pinned_tensor(self.space, m.shape, reason) if m else None for m in metas)

    def every(self, result: LabelledTensor) -> Results:
        """The same labels for each of several results."""
        return (result,) * len(self.node.results)

    def only_shapes(self, *tensors: LabelledTensor) -> None:
        """The op reads the shapes of these tensors (of all, if none is named) and no element."""
        for tensor in tensors or self.tensors:
            self.space.use(tensor)


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    text         what `why` shows
    run          from a call to (what the rule says, the operands of its equation)
    parameters   the arguments that it names, with their defaults; none for a bare equation
    """

    text: str
    run: Callable[[Call], tuple[Outcome, list[LabelledTensor | None]]]
    parameters: tuple[inspect.Parameter, ...] = ()
    tensors: frozenset[str] = frozenset()


RULES: dict[str, Rule] = {}


def register(names: str, rule: Rule | str, *operands: str, **sizes: str) -> None:
    """Give ops a rule; the last one given holds.

    Args:
        names: ops, separated by spaces: "linear" for aten.linear, "lib.op" for others. All overloads share a rule.
        rule: an equation, or a `Rule`.
        operands, sizes: see `equation`.
    """
    row = equation(rule, *operands, **sizes) if isinstance(rule, str) else rule
    RULES.update(dict.fromkeys(names.split(), row))


def op(names: str) -> Callable[[F], F]:
    """Give ops a rule that is a function of their arguments, by the names of the schema.

    Parameters annotated with `LabelledTensor` arrive as labelled tensors, the others as literals, and one annotated
    `Call` as the call itself. It returns an equation over its tensors, (equation, sizes), or the results. A
    parameter that an op or overload may lack has a default.
    """

    def decorate(function: F) -> F:
        register(names, _bound(function))
        return function

    return decorate


def equation(text: str, *operands: str, **sizes: str) -> Rule:
    """A rule that is one equation.

    Args:
        text: in the notation of `permgraph.axes.equation`; raises EquationError where it is mistyped.
        operands: names of the arguments that its terms stand for; left out, the tensors of the schema in order.
        sizes: what the shapes leave open, as the name of an argument: g="num_groups". For a starred axis it is
            how many there are: a number (a negative one counts from the end of the result), or a list's length.
    """
    parsed = parse(text)
    keys = {parsed.key(name): argument for name, argument in sizes.items()}

    def run(call: Call) -> tuple[Outcome, list[LabelledTensor | None]]:
        known = {key: _size(call.node.options[name], len(call.shape)) for key, name in keys.items()}
        return (parsed, known), _terms(parsed, call, operands)

    return Rule(text, run)


def _terms(parsed: Equation, call: Call, names: tuple[str, ...]) -> list[LabelledTensor | None]:
    """A tensor per term, None where it is absent; those that the equation has no term for are left unused."""
    count = len(parsed.operands)
    values = flat(call.operands.get(name) for name in names) if names else flat(call.operands.values())
    return [*values, *[None] * count][:count]


def _size(value: Any, rank: int) -> int:
    if isinstance(value, tuple):
        return len(value)
    if not isinstance(value, int):
        raise UnsupportedForm(f"a size that the data decide: {value}")
    return value + rank if value < 0 else value


def flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from flat(value)
        else:
            yield value


def _bound(function: Callable[..., Any]) -> Rule:
    """A function of named arguments as a rule."""
    parameters = tuple(inspect.signature(function).parameters.values())
    hints = get_type_hints(function)
    asks_call = frozenset(p.name for p in parameters if hints.get(p.name) is Call)
    named = tuple(p for p in parameters if p.name not in asks_call)
    tensors = frozenset(p.name for p in named if _mentions(hints.get(p.name), LabelledTensor))

    def run(call: Call) -> tuple[Outcome, list[LabelledTensor | None]]:
        arguments = {p.name: _argument(call, p) for p in named}
        terms = [arguments[p.name] for p in named if p.name in tensors]
        return function(**arguments, **dict.fromkeys(asks_call, call)), list(flat(terms))

    text = (function.__doc__ or "").strip().partition("\n")[0]
    return Rule(text, run, named, tensors)


def _mentions(hint: Any, kind: type) -> bool:
    return hint is kind or any(_mentions(part, kind) for part in get_args(hint))


def _argument(call: Call, parameter: inspect.Parameter) -> Any:
    for given in (call.operands, call.node.options):
        if parameter.name in given:
            return given[parameter.name]
    if parameter.default is inspect.Parameter.empty:
        raise TypeError(f"the rule asks for an argument `{parameter.name}`, which the op does not have")
    return parameter.default


def rule_of(op: str, pointwise: bool) -> Rule | None:
    """The rule for "aten.linear.default"; pointwise ops without a row of their own share one."""
    namespace, _, rest = op.partition(".")
    name = rest.partition(".")[0]
    if namespace != "aten":
        return RULES.get(f"{namespace}.{name}")
    return RULES.get(name) or (RULES["permgraph.pointwise"] if pointwise else None)


def results_of(rule: Rule, call: Call) -> Results:
    """Run a rule, and pin what it left unused. Raises UnsupportedForm, and whatever the rule's mistakes raise."""
    outcome, operands = rule.run(call)
    if isinstance(outcome, (str, Equation)):
        outcome = (outcome, {})
    if isinstance(outcome, tuple) and outcome and isinstance(outcome[0], (str, Equation)):
        text, sizes = outcome
        call.space.points.at = call.space.points.at._replace(rule=str(text))
        outcome = contract(text, operands, call.shape, sizes)
    results = _with_statistics(call, outcome) if isinstance(outcome, LabelledTensor) else outcome
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
