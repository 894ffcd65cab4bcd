"""Runner: runs an exported network op by op and keeps the activations that were asked for.

The network is exported once per input shape, so what is observed are the nodes that inference saw. Nothing is
permuted while it runs: every model is seen as it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from permgraph.frontend.arguments import call_of, leaves
from permgraph.frontend.capture import captured, rerun
from permgraph.frontend.flatten import Path, inlined
from permgraph.frontend.recurrent import states_of
from permgraph.frontend.state import named_tensors

Seen = dict[str, list[Tensor]]
Take = Callable[[Seen, str], None]  # what was seen so far, and the node that ran


class Runner:
    """One model at one input shape."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        self.model, found = model, captured(model, args, kwargs)
        self.program, self.trace, self.names = found.program, found.trace, found.names
        if self.program is None:
            return
        self.state = {**self.program.state_dict, **self.program.constants, **dict(named_tensors(model))}

    def of(self, model: nn.Module) -> Runner:
        """The same export with another model's weights; the caller knows that it is built alike."""
        other = copy(self)
        other.model, other.state = model, {**self.state, **dict(named_tensors(model))}
        return other

    def __call__(
        self,
        args: tuple[Any, ...],
        wanted: Iterable[str],
        kwargs: dict[str, Any] | None = None,
        take: Take | None = None,
    ) -> Seen:
        """The results of the wanted nodes, one for each time that the node ran; the run stops when all are there.

        A node in a loop runs in every turn, one in a branch that is not taken never. `take` may take out of them as soon
        as a node has run that does not run again.
        """
        if self.program is None:
            found = rerun(self.model, call_of(args, kwargs), frozenset(wanted))
            return {name: [tensor] for name, tensor in found.items()}
        fed = iter(leaves(call_of(args, kwargs)))
        inputs = [
            next(fed)
            if kind == InputKind.USER_INPUT
            else _TOKEN
            if kind == InputKind.TOKEN
            else self.state[target]
            for kind, target in ((s.kind, str(s.target)) for s in self.program.graph_signature.input_specs)
        ]
        watch = _Watch(self.names, set(wanted), take)
        with torch.no_grad(), suppress(_Done):
            _Observer(self.program.graph_module, watch).run(*inputs, enable_io_processing=False)
        if watch.failed is not None:
            raise watch.failed
        return watch.seen


_TOKEN = torch.empty(0)  # orders ops that have effects, as the checks of linalg


class _Done(Exception):
    """Everything that was asked for is there."""


class _Watch:
    """What is wanted, by the names of the trace, and what was seen of it."""

    def __init__(self, names: Mapping[Path, str], wanted: set[str], take: Take | None = None) -> None:
        self.names, self.wanted, self._take = names, wanted, take
        self.seen: Seen = {}
        self.failed: Exception | None = None

    def see(self, path: Path, value: Any) -> None:
        self.keep(self.names.get(path, ""), value)

    def keep(self, name: str, value: Any) -> None:
        if name in self.wanted:
            # an op with several results (batch norm) is observed at its first
            self.seen.setdefault(name, []).append(value[0] if isinstance(value, (tuple, list)) else value)

    def give(self, path: Path) -> None:
        """What ran for the only time may be taken. An error is kept: fx would add words of its own to it."""
        name = self.names.get(path, "")
        if self._take is None or name not in self.seen:
            return
        try:
            self._take(self.seen, name)
        except Exception as error:
            self.failed = error
            raise _Done from error

    @property
    def complete(self) -> bool:
        return len(self.seen) == len(self.wanted)


class _Observer(fx.Interpreter):
    """Runs a graph and, as `flatten` does, walks into sub-graphs."""

    def __init__(self, graph: fx.GraphModule, watch: _Watch, path: Path = (), repeats: bool = False) -> None:
        super().__init__(graph)
        self.watch, self.path = watch, path
        self.repeats = repeats  # what was seen once may be seen again
        self.at: Path = ()

    def run_node(self, n: fx.Node) -> Any:
        self.at = (*self.path, n)
        result = super().run_node(n)
        self.watch.see(self.at, result)
        self.watch.see((*self.at, "attention"), result)  # of flex attention
        if not self.path:
            self.watch.give(self.at)
        if not self.repeats and self.watch.complete:
            raise _Done
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if inlined(target):
            at = next(i for i, a in enumerate(args) if isinstance(a, fx.GraphModule))
            return self.inside(args[at], args[at + 1 :])
        if run := _RUNS.get(str(getattr(target, "__name__", ""))):
            return run(self, *args)
        node = self.watch.names.get(self.at, "")
        for name, states in states_of(target, args, kwargs, node, self.watch.wanted):
            self.watch.keep(name, states)
        return super().call_function(target, args, kwargs)

    def inside(
        self, graph: fx.GraphModule, operands: Iterable[Any], number: int = 0, repeats: bool = False
    ) -> Any:
        """Run a sub-graph, the `number`th of the call at hand."""
        inner = _Observer(graph, self.watch, (*self.at, number), self.repeats or repeats)
        return inner.run(*operands, enable_io_processing=False)

    def see(self, kind: str, values: Iterable[Any]) -> None:
        """Values at the φ-nodes of a branch or a loop, which are named by their kind and number."""
        for i, value in enumerate(values):
            self.watch.see((*self.at, f"{kind}{i}"), value)


def _cond(run: _Observer, predicate: Any, one: Any, other: Any, operands: Any) -> Any:
    results = run.inside(one, operands, 0) if predicate else run.inside(other, operands, 1)
    run.see("either", results)
    return results


def _scan(run: _Observer, body: Any, init: Any, rows: Any, operands: Any) -> Any:
    states, collected = list(init), []
    for t in range(len(rows[0])):
        turn = [row[t] for row in rows]
        run.see("carry", states)
        run.see("step", turn)
        results = run.inside(body, (*states, *turn, *operands), repeats=True)
        states = list(results[: len(init)])
        collected.append(results[len(init) :])
    stacked = [torch.stack(row) for row in zip(*collected, strict=True)]
    run.see("after", states)
    run.see("collect", stacked)
    return (*states, *stacked)


def _map(run: _Observer, body: Any, rows: Any, operands: Any) -> Any:
    return _scan(run, body, (), rows, operands)


def _while(run: _Observer, condition: Any, body: Any, init: Any, operands: Any) -> Any:
    states = tuple(init)
    while True:
        run.see("carry", states)
        if not run.inside(condition, (*states, *operands), 0, repeats=True):
            break
        states = tuple(run.inside(body, (*states, *operands), 1, repeats=True))
    run.see("after", states)
    return states


_RUNS: dict[str, Callable[..., Any]] = {"cond": _cond, "scan": _scan, "map_impl": _map, "while_loop": _while}
