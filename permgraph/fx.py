"""Graphs of torch.fx and ATen: their groups, what lies on each parameter, and a pass that re-orders their weights.

    program = torch.export.export(model, inputs)
    spec = groups(program)                      # of an ExportedProgram, or of a GraphModule with its inputs
    annotate(program, spec)                     # node.meta["permgraph"]: axis → names of groups
    Reorder(plan, perms)(program.module())      # a pass as torch.fx's PassManager takes them

A pass re-orders weights, and no node: the graph is the same before and after, which is what makes it a symmetry. It stands beside
passes that fuse, quantise or prune, which may then find units in a better order (`pg.reorder`, docs/cookbook.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from permgraph.errors import UsageError
from permgraph.frontend.arguments import call_of
from permgraph.frontend.capture import capture
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.symmetry.infer import infer
from permgraph.weights.apply import apply

KEY = "permgraph"  # in the meta of a node
Program = ExportedProgram | fx.GraphModule


def groups(program: Program, example_inputs: Any = None, free_output: bool = False) -> PermSpec:
    """The groups of a graph that is captured already; tensors are named as in its state dict.

    Args:
        example_inputs: arguments of its forward, as for `permgraph.trace`; an ExportedProgram holds its own.

    Raises:
        UsageError: a GraphModule without inputs, or something else than a graph.
        TraceError: it cannot be captured.
    """
    if isinstance(program, ExportedProgram):
        args, kwargs = program.example_inputs or ((), {})
        return infer(capture(program.module(), args, kwargs, "ExportedProgram"), free_output)
    _refuse_other(program)
    if example_inputs is None:
        raise UsageError(
            "groups: a GraphModule does not hold its inputs. Give them: groups(graph_module, (x,))."
        )
    args, kwargs = call_of(example_inputs, None)
    return infer(capture(program, args, kwargs, type(program).__name__), free_output)


def annotate(program: Program, spec: PermSpec) -> int:
    """Write on every node that reads a tensor of the state which groups lie on which of its axes; returns on how many.

    `node.meta["permgraph"]` is {axis: (names of groups, outermost first)}; nodes of other tensors have none.
    """
    graph = program.graph_module.graph if isinstance(program, ExportedProgram) else program.graph
    read = _state_of(program)
    count = 0
    for node in graph.nodes:
        tensor = spec.first_name(read.get(node.name, ""))
        axes = {
            axis: tuple(group.name for group in spec.groups_of(f"{tensor}[{axis}]"))
            for axis in range(len(spec.tensors.get(tensor, ())))
        }
        found = {axis: names for axis, names in axes.items() if names}
        if found:
            node.meta[KEY] = found
            count += 1
    return count


class Reorder(PassBase):
    """A pass that applies permutations to the weights of a GraphModule, in place, bit for bit.

    It takes what `PassManager` takes. Raises FileError, PlanError where the plan is of another network; the weights are then as they were.
    """

    def __init__(self, plan: Plan, perms: Permutations) -> None:
        super().__init__()
        self.plan, self.perms = plan, perms

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        changed = reorder_state(self.plan, self.perms, graph_module.state_dict())
        return PassResult(graph_module, changed)


def reorder_program(program: ExportedProgram, plan: Plan, perms: Permutations) -> bool:
    """The same on the state dict of an ExportedProgram, in place; returns whether anything moved."""
    return reorder_state(plan, perms, program.state_dict)


def reorder_state(plan: Plan, perms: Permutations, state: Any) -> bool:
    """Permute tensors where they are, all or none."""
    moved = apply(plan, perms, state)
    changed = False
    done: set[int] = set()
    with torch.no_grad():
        for name, tensor in state.items():
            if tensor.data_ptr() in done or torch.equal(tensor, moved[name]):
                continue
            done.add(tensor.data_ptr())  # tied tensors are one
            tensor.copy_(moved[name])
            changed = True
    return changed


def _state_of(program: Program) -> dict[str, str]:
    """Node → the tensor of the state dict that it reads."""
    if isinstance(program, ExportedProgram):
        signature = program.graph_signature
        return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    _refuse_other(program)
    return {node.name: str(node.target) for node in program.graph.nodes if node.op == "get_attr"}


def _refuse_other(program: object) -> None:
    if not isinstance(program, fx.GraphModule):
        raise UsageError(
            f"got a {type(program).__name__}; give what torch.export.export returned, or a torch.fx.GraphModule."
        )
