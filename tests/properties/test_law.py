"""The law: a random element of the whole inferred group keeps the function, and nothing less does.

Measured in float64 on weights that are all different. The sizes of the groups are the business of
tests/symmetry; here only their truth is at stake.
"""

from __future__ import annotations

from copy import deepcopy
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from networks import MODELS
from networks.traced import network, spec
from torch.utils._pytree import tree_leaves

from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.verification.function_check import TOLERANCE, left_out, verify, whole
from permgraph.weights.apply import apply, unapply

BROKEN = 1e-6  # a forgotten step changes the function by more than this

# Steps that nothing depends on: forgetting one must NOT change the function. (model, tensor, why)
INVISIBLE = [
    ("*", "*.k_proj.bias", "adds q·b to all scores of a query alike, and softmax does not see it"),
    ("*", "*.key.bias", "the same"),
    ("*", "*.linear_k.bias", "the same"),
    (
        "wavlm",
        "*.gru_rel_pos_linear.*",
        "its units are added up in fours, so weight and bias may differ in order",
    ),
]


def shifted(plan: Plan) -> Permutations:
    """Every group turned by one: leaves no unit where it was."""
    turned = {g.name: np.roll(np.arange(g.size), 1) for g in plan.groups}
    return Permutations(
        {g.name: np.broadcast_to(turned[g.name], plan.spec.shape_of(g)).copy() for g in plan.groups}
    )


def invisible(model: str, tensor: str) -> bool:
    return any(fnmatch(model, m) and fnmatch(tensor, t) for m, t, _ in INVISIBLE)


@pytest.mark.sampled(40)
@pytest.mark.parametrize("free_output", [False, True], ids=["", "free"])
@pytest.mark.parametrize("name", MODELS)
def test_the_whole_group_keeps_the_function(name: str, free_output: bool) -> None:
    found = spec(name, free_output)
    assert found.groups
    assert found.unknown_ops == ()
    assert verify(*network(name), found, seed=int(free_output)) <= TOLERANCE


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", MODELS)
def test_a_forgotten_step_is_noticed(name: str) -> None:
    """Six steps spread over the plan; every step in the slow test below."""
    count = len(whole(spec(name)).steps)
    forget(name, sorted({round(i * (count - 1) / 5) for i in range(6)}))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_forgotten_step_is_noticed(name: str) -> None:
    forget(name, range(len(whole(spec(name)).steps)))


def forget(name: str, steps: range | list[int]) -> None:
    plan = whole(spec(name))
    perms = shifted(plan)
    for index in steps:
        step = plan.steps[index]
        error = verify(*network(name), left_out(plan, index), perms=perms, explain=False)
        if invisible(name, step.tensor):
            assert error <= TOLERANCE, f"{step.tensor} is said to be invisible"
        else:
            assert error > BROKEN, f"{step.tensor}[{step.axis}] {step.layout} may be left out of step"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "name", ["hubert", "wavlm", "llama_gqa_lm", "tied_language_model", "grouped_conv", "swin"]
)
def test_one_group_at_a_time(name: str) -> None:
    """Each group alone is a symmetry: what a user selects need not be everything."""
    found = spec(name)
    for group in found.groups:
        assert verify(*network(name), Plan(found, (group.name,))) <= TOLERANCE, group.name


@pytest.mark.parametrize(
    "name",
    ["hubert", "wavlm", "gpt2_lm", "llama_gqa", "swin", "shufflenet", "weight_norm_parametrized", "densenet"],
)
def test_unapply_undoes_apply_bit_for_bit(name: str) -> None:
    module, _ = network(name)
    plan = whole(spec(name))
    perms = random_permutations(plan, seed=5)
    state = module.state_dict()
    moved = apply(plan, perms, state)
    assert any(not torch.equal(moved[key], state[key]) for key in state)
    back = unapply(plan, perms, moved)
    assert list(back) == list(state)
    for key in state:
        assert back[key].dtype == state[key].dtype
        assert torch.equal(back[key], state[key]), key


@pytest.mark.parametrize(
    "name",
    [
        "hubert",
        "wavlm",
        "gpt2_lm",
        "llama_gqa",
        "swin",
        "shufflenet",
        "weight_norm_parametrized",
        "cifar_resnet",
    ],
)
def test_applied_and_loaded_weights_compute_the_same(name: str) -> None:
    """The way a user goes: apply to the state dict, load it into a module, run it. No help from `verify`."""
    module, inputs = network(name)
    before = deepcopy(module).double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    plan = whole(spec(name))
    state = before.state_dict()
    after = deepcopy(before)
    after.load_state_dict(apply(plan, random_permutations(plan, seed=7), state))
    wrong = deepcopy(before)
    visible = next(i for i, step in enumerate(plan.steps) if not invisible(name, step.tensor))
    wrong.load_state_dict(apply(left_out(plan, visible), shifted(plan), state))
    with torch.no_grad():
        want, found, other = (tree_leaves(m.eval()(*inputs)) for m in (before, after, wrong))
    change = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(want, found, strict=True)]
    # where transformers computes in float32 whatever the weights are, the order of a sum shows
    assert max(change) <= (1e-5 if name == "llama_gqa" else TOLERANCE)
    assert max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(want, other, strict=True)) > BROKEN
