"""Running: a module is run under the recorder, and what it did becomes the nodes of a Trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.functional_tensor import FunctionalTensor

from permgraph.errors import TraceError
from permgraph.frontend.arguments import Call, input_names, tensors_in, with_tensors
from permgraph.frontend.flatten import table_of
from permgraph.frontend.reads import Reads
from permgraph.frontend.recorder import Functional, Recorder, state_name
from permgraph.frontend.schema import node_of

Wrap = Callable[[Tensor], Tensor]


def record(
    module: nn.Module, call: Call, names: dict[str, str], keep: frozenset[str] = frozenset()
) -> Recorder:
    """Run the module and record it; the last node is the output, and the recorder has what it returned.

    The module is not changed: it runs as a copy that shares the tensors, and nothing is written into these.

    Args:
        call: arguments, with real values.
        names: name of a state tensor → first name of that tensor.
        keep: names of nodes whose results are wanted.
    """
    recorder = Recorder(keep)
    paths = input_names(module, call)
    module = _shell(module)
    held = {
        id(t): t.detach() for t in _all_tensors(module)
    }  # the recorder's name of a tensor lasts while it lives
    _name_state(recorder, module, names, held)
    recorder.meet(tuple(held.values()))
    given = {id(t): t.detach() for t in tensors_in(call)}
    for name, tensor in zip(paths, given.values(), strict=True):
        recorder.name(tensor, recorder.add(name, "input", (), tensor))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(
            torch.compiler.set_stance("force_eager")
        )  # code inside torch.compile runs as it is
        stack.enter_context(torch._C._AutoDispatchBelowAutograd())
        stack.enter_context(_paths(module, recorder))
        stack.enter_context(Functional(recorder))
        args, kwargs = with_tensors(
            call, {key: FunctionalTensor.to_functional(t) for key, t in given.items()}
        )
        wrapped = {key: FunctionalTensor.to_functional(t) for key, t in held.items()}
        _exchange(module, lambda tensor: wrapped[id(tensor)])
        stack.enter_context(Reads(recorder))
        recorder.outputs = [recorder.inner(t) for t in tensors_in(module(*args, **kwargs))]
    recorder.nodes.append(node_of("output", "output", (tuple(map(recorder.ref, recorder.outputs)),)))
    return recorder


def _shell(module: nn.Module) -> nn.Module:
    """A copy that shares the tensors, since a module may keep what it computed in its attributes."""
    memo: dict[int, Any] = {id(t): t for t in _all_tensors(module)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # locks, open files, generators: whatever a module holds
        raise TraceError(
            f"its code reads values of tensors, so a copy of it has to run, and it cannot be copied ({error}): leave"
            " what cannot be copied out of its attributes"
        ) from error


def _all_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that modules hold as plain attributes."""
    plain = [v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return [*module.parameters(), *module.buffers(), *plain]


def _exchange(module: nn.Module, wrap: Wrap) -> None:
    """Every tensor of a module replaced, without the checks of `__setattr__`."""
    for child in module.modules():
        tables: tuple[dict[str, Any], ...] = (child._parameters, child._buffers, vars(child))
        for table in tables:
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    table[name] = wrap(tensor)


def _name_state(
    recorder: Recorder, module: nn.Module, names: dict[str, str], held: dict[int, Tensor]
) -> None:
    """A node per tensor of the state, in torch.export's order; buffers that are not saved are constants."""
    first: dict[int, Any] = {}
    tables = (("parameter", module.named_parameters), ("buffer", module.named_buffers))
    for kind, listed in tables:
        for name, tensor in listed(remove_duplicate=False):
            if id(tensor) in first:
                continue
            state = name in names
            value = table_of(tensor) if not (state and tensor.is_floating_point()) else None
            ref = recorder.add(
                state_name(kind, name),
                "state" if state else "constant",
                (names[name],) if state else (),
                tensor,
                value=value,
            )
            first[id(tensor)] = ref
            for alias in (tensor, held[id(tensor)]):
                recorder.name(alias, ref)


@contextmanager
def _paths(module: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which module is running."""
    paths = {id(child): path for path, child in reversed(list(module.named_modules()))}

    def enter(child: nn.Module, args: Any) -> None:
        recorder.modules.append((paths.get(id(child), ""), type(child).__name__))

    def leave(child: nn.Module, args: Any, result: Any) -> None:
        recorder.modules.pop()

    hooks = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
