"""No false alarm on networks that draw random numbers or keep tensors in odd places; a broken plan is still caught."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from permgraph.frontend.capture import capture
from permgraph.ir.spec import PermSpec
from permgraph.symmetry.infer import infer
from permgraph.verification.function_check import left_out, verify, whole

from .odd_networks import ODD, RANDOM, TWINS, Network

ALL = RANDOM | ODD
# Values that Python draws, not torch: the generators start alike in every run, and no op tells.
UNSEEN = {"python's random", "numpy's random"}


@cache
def network(name: str) -> tuple[Network, PermSpec]:
    torch.manual_seed(0)
    module, inputs = ALL[name]()
    return (module.eval(), inputs), infer(capture(module, inputs))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", ALL)
def test_no_false_alarm(name: str) -> None:
    (module, inputs), spec = network(name)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert spec.groups
    check = verify(module, inputs, spec)
    assert check.kept, check
    assert not check.blind
    assert bool(check.random) == (name in RANDOM and name not in UNSEEN)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()), "the model was touched"


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", ALL)
def test_a_forgotten_step_is_noticed(name: str) -> None:
    (module, inputs), spec = network(name)
    plan = whole(spec)
    weights = [i for i, step in enumerate(plan.steps) if len(spec.tensors[step.tensor]) > 1]
    for place in weights:
        check = verify(module, inputs, left_out(plan, place), explain=False)
        assert not check.kept, plan.steps[place]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", TWINS)
def test_chance_over_a_moved_axis_does_not_decide(name: str) -> None:
    """What is drawn over the units does not move along with them, at any seed; in distribution nothing changes."""
    make, twin = TWINS[name]
    torch.manual_seed(0)
    spec = infer(capture(*twin()))
    module, inputs = make()
    plan = whole(spec)
    assert len(plan.groups) >= 1
    check = verify(module, inputs, plan)
    assert check.kept and not check.blind, check
    for place, step in enumerate(plan.steps):
        if len(spec.tensors[step.tensor]) > 1:
            assert not verify(module, inputs, left_out(plan, place), explain=False).kept
