"""Runner: runs an exported network op by op and keeps the activations that were asked for.

The network is exported once per input shape, so what is observed are the nodes that inference saw. Nothing is
permuted while it runs: every model is seen as it was trained.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from permgraph.frontend.arguments import call_of, leaves
from permgraph.frontend.capture import captured, rerun
from permgraph.frontend.flatten import inlined


class Runner:
    """One model at one input shape."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        self.model, found = model, captured(model, args, kwargs)
        self.program, self.trace = found.program, found.trace
        if self.program is None:
            return
        state = dict(model.named_parameters(remove_duplicate=False)) | dict(
            model.named_buffers(remove_duplicate=False)
        )
        self.state = {**self.program.state_dict, **self.program.constants, **state}

    def __call__(
        self, args: tuple[Any, ...], wanted: Iterable[str], kwargs: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """The results of the wanted nodes; the run stops after the last of them."""
        if self.program is None:
            return rerun(self.model, call_of(args, kwargs), frozenset(wanted))
        fed = iter(leaves(call_of(args, kwargs)))
        inputs = [
            next(fed) if spec.kind == InputKind.USER_INPUT else self.state[str(spec.target)]
            for spec in self.program.graph_signature.input_specs
        ]
        found: dict[str, Tensor] = {}
        interpreter = _Observer(self.program.graph_module, set(wanted), found)
        with torch.no_grad(), suppress(_Done):
            interpreter.run(*inputs, enable_io_processing=False)
        return found


class _Done(Exception):
    """Everything that was asked for is there."""


class _Observer(fx.Interpreter):
    """Runs a graph and, as `flatten` does, walks into sub-graphs, giving every node a name of its own."""

    def __init__(
        self,
        graph: fx.GraphModule,
        wanted: set[str],
        found: dict[str, Tensor],
        outer: _Observer | None = None,
    ) -> None:
        super().__init__(graph)
        self.wanted, self.found = wanted, found
        self.inner = outer is not None
        self.taken: set[str] = outer.taken if outer else set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        name = self._name(n)
        if name in self.wanted:
            # an op with several results (batch norm) is observed at its first
            self.found[name] = result[0] if isinstance(result, (tuple, list)) else result
            if len(self.found) == len(self.wanted):
                raise _Done
        return result

    def _name(self, n: fx.Node) -> str:
        """The node's name in the trace; "" when it is none there: what only hands values in or out."""
        handed = n.op == "output" or (n.op == "placeholder" and self.inner) or inlined(n.target)
        if n.target is operator.getitem and isinstance(n.args[0], fx.Node):
            handed = handed or inlined(n.args[0].target)
        if handed:
            return ""
        name = n.name
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if inlined(target):
            at = next(i for i, a in enumerate(args) if isinstance(a, fx.GraphModule))
            inner = _Observer(args[at], self.wanted, self.found, self)
            return inner.run(*args[at + 1 :], enable_io_processing=False)
        return super().call_function(target, args, kwargs)
