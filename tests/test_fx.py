"""Graphs that are captured already: the same groups, named on their nodes; a pass keeps the function, bit for bit undone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from networks.traced import network, spec
from torch import Tensor, fx
from torch.fx.passes.infra.pass_manager import PassManager

import permgraph as pg
from permgraph.errors import FileError, UsageError
from permgraph.fx import KEY, Reorder, annotate, groups, reorder_program
from permgraph.ir.spec import PermSpec

NAMES = ["mlp", "batch_norm", "multihead_attention", "resnet_basic"]


def exported(name: str) -> tuple[torch.export.ExportedProgram, tuple[Any, ...]]:
    module, inputs = network(name)
    return torch.export.export(copy.deepcopy(module).eval().double(), _double(inputs), strict=False), _double(
        inputs
    )


def _double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def places(found: PermSpec) -> set[tuple[Any, ...]]:
    return {(g.size, frozenset((p.tensor, p.axis) for p in g.places)) for g in found.groups}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_program_has_the_groups_of_its_module(name: str) -> None:
    program, inputs = exported(name)
    assert places(groups(program)) == places(spec(name))
    if name == "mlp":
        assert places(groups(program.module(), inputs)) == places(spec(name))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_the_pass_keeps_the_function_and_a_broken_one_does_not(name: str) -> None:
    program, inputs = exported(name)
    plan = pg.plan(groups(program))
    perms = pg.random_permutations(plan, 1)
    module = program.module()
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    before = first(module(*inputs))
    done = Reorder(plan, perms)(module)
    assert done.modified and done.graph_module is module
    torch.testing.assert_close(first(module(*inputs)), before, rtol=1e-9, atol=1e-9)
    moved = [key for key, tensor in module.state_dict().items() if not torch.equal(tensor, state[key])]
    with torch.no_grad():
        module.state_dict()[moved[0]].copy_(state[moved[0]])  # one tensor out of step
    assert not torch.allclose(first(module(*inputs)), before, rtol=1e-6, atol=1e-6)


def test_a_pass_manager_takes_it_and_the_program_is_put_back() -> None:
    program, inputs = exported("mlp")
    plan = pg.plan(groups(program))
    perms = pg.random_permutations(plan, 2)
    traced = fx.symbolic_trace(copy.deepcopy(network("mlp")[0]).eval().double())
    before = first(traced(*inputs))
    run = PassManager(passes=[Reorder(plan, perms)])(traced)
    assert run.modified
    torch.testing.assert_close(first(run.graph_module(*inputs)), before, rtol=1e-9, atol=1e-9)
    state = {key: tensor.clone() for key, tensor in program.state_dict.items()}
    assert reorder_program(program, plan, perms)
    assert any(not torch.equal(tensor, state[key]) for key, tensor in program.state_dict.items())
    torch.testing.assert_close(first(program.module()(*inputs)), before, rtol=1e-9, atol=1e-9)
    assert reorder_program(program, plan, perms.inverse(plan.spec))
    assert all(torch.equal(tensor, state[key]) for key, tensor in program.state_dict.items())
    assert not reorder_program(program, plan, pg.Permutations({}))


def test_nodes_are_annotated() -> None:
    program, _ = exported("mlp")
    found = groups(program)
    for graph in (program, program.module()):
        count = annotate(graph, found)
        nodes = (graph.graph_module if isinstance(graph, torch.export.ExportedProgram) else graph).graph.nodes
        noted = [node.meta[KEY] for node in nodes if KEY in node.meta]
        assert len(noted) == count == len({p.tensor for p in found.places})
        first_group = found.groups[0].name
        assert {0: (first_group,)} in noted and any(axes.get(1) == (first_group,) for axes in noted)


def test_what_is_no_graph_is_refused() -> None:
    program, inputs = exported("mlp")
    with pytest.raises(UsageError, match="a GraphModule does not hold its inputs"):
        groups(program.module())
    with pytest.raises(UsageError, match=r"got a Linear; give what torch.export.export returned"):
        groups(torch.nn.Linear(2, 2), inputs)
    plan = pg.plan(spec("lstm"))
    before = {key: tensor.clone() for key, tensor in program.state_dict.items()}
    with pytest.raises(FileError, match="18 of the plan's 18 tensors are missing"):
        reorder_program(program, plan, pg.random_permutations(plan))
    assert all(torch.equal(tensor, before[key]) for key, tensor in program.state_dict.items())
