"""Every kind of broken plan is caught on real architectures, for every seed, and the guilty part is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks.traced import network, spec
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Place, Positions
from permgraph.symmetry.infer import infer
from permgraph.verification.culprit import with_places, without
from permgraph.verification.function_check import left_out, verify, whole

NETWORKS = [
    "hubert",
    "whisper_encoder",
    "llama_gqa",
    "gpt2_lm",
    "swin",
    "shufflenet",
    "grouped_conv",
    "densenet",
]
NETWORKS += ["qkv_3hd", "weight_norm", "multihead_attention", "resnet_bottleneck"]
EACH = 4  # broken plans of one kind per network


def with_step(plan: Plan, old: Place, new: Place) -> Plan:
    return with_places(plan, (new if p is old else p for p in plan.spec.places))


def missing_place(plan: Plan) -> Iterator[Plan]:
    for i, step in enumerate(plan.steps):
        if seen(plan, step):
            yield left_out(plan, i)


def tensor_left_out(plan: Plan) -> Iterator[Plan]:
    for tensor in dict.fromkeys(s.tensor for s in plan.steps if seen(plan, s)):
        yield without(plan, [tensor])


def wrong_axis(plan: Plan) -> Iterator[Plan]:
    for step in plan.steps:
        shape = plan.spec.tensors.get(step.tensor, ())
        for axis, size in enumerate(shape):
            free = not any(s.tensor == step.tensor and s.axis == axis for s in plan.steps)
            if seen(plan, step) and step.rows is None and free and size == shape[step.axis]:
                yield with_step(plan, step, replace(step, axis=axis))


def wrong_slots(plan: Plan) -> Iterator[Plan]:
    """Two units of one place change names; in a nested place, heads and channels are read the other way round."""
    for step in plan.steps:
        at = step.positions.array()
        if not seen(plan, step) or at.shape[-2] < 2 or step.rows is not None:
            continue
        swapped = at.copy()
        first = (0,) * (len(step.layout) - 1)
        swapped[first][[0, 1]] = at[first][[1, 0]]
        if at.shape[-2] > 2 or len(step.layout) > 1:  # two units alone may be named either way
            yield with_step(plan, step, replace(step, positions=Positions.of(swapped)))
        if len(step.layout) == 2:
            turned = np.sort(at.reshape(-1, at.shape[-1]), axis=0)
            turned = turned.reshape(at.shape[1], at.shape[0], -1).swapaxes(0, 1)
            if not np.array_equal(turned, at):
                yield with_step(plan, step, replace(step, positions=Positions.of(turned)))


def seen(plan: Plan, step: Place) -> bool:
    """Whether the function depends on the step: not on a key's bias, which softmax does not see."""
    return len(plan.spec.tensors.get(step.tensor, ())) > 1


KINDS = [missing_place, tensor_left_out, wrong_axis, wrong_slots]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_broken_plan_is_caught(name: str, kind: object) -> None:
    broken = list(kind(whole(spec(name))))  # type: ignore[operator]
    for i in sorted({round(k * (len(broken) - 1) / (EACH - 1)) for k in range(EACH)}) if broken else []:
        check = verify(*network(name), broken[i], seed=i, explain=False)
        assert not check.kept, (name, i, check)


@pytest.mark.parametrize("name", NETWORKS)
def test_there_are_broken_plans_of_most_kinds(name: str) -> None:
    assert sum(any(True for _ in kind(whole(spec(name)))) for kind in KINDS) >= 3


class Small(nn.Module):
    """Groups of two units, a third of them nested: where chance used to hide a wrong plan."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix, self.down = nn.Linear(4, 4), nn.Conv1d(4, 4, 1, groups=2), nn.Linear(4, 3)
        self.first, self.last = nn.Linear(4, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.mix(torch.tanh(self.up(x))[..., None])[..., 0])
        return self.down(h) + self.last(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def test_groups_of_two_never_hide_a_broken_plan() -> None:
    """Two uniform draws let a sixth of these pass."""
    torch.manual_seed(0)
    net, x = Small().eval(), (torch.randn(8, 4),)
    plan = whole(infer(capture(net, x)))
    assert {g.size for g in plan.groups} == {2} and any(g.ancestors for g in plan.groups)
    assert all(verify(net, x, plan, seed=seed).kept for seed in range(8))
    for kind in KINDS:
        for broken in kind(plan):
            assert not any(verify(net, x, broken, seed=seed, explain=False).kept for seed in range(8))


def test_a_failure_names_the_group_and_what_it_forgot() -> None:
    plan = whole(spec("hubert"))
    for at, step in enumerate(plan.steps):
        if step.tensor == "encoder.layers.1.feed_forward.output_dense.weight":
            check = verify(*network("hubert"), left_out(plan, at))
            assert check.groups == ("ffn.1",)
            assert check.tensors == (step.tensor,)
            assert check.remedy == f"{step.tensor}[1] moves too, which the plan forgot"


def test_a_failure_names_the_tensor_that_moves_wrongly() -> None:
    plan = whole(spec("hubert"))
    (step,) = (s for s in plan.steps if s.tensor == "encoder.layers.0.feed_forward.output_dense.weight")
    at = step.positions.array()[[1, 0, *range(2, 40)]]
    broken = with_step(plan, step, replace(step, positions=Positions.of(at)))
    check = verify(*network("hubert"), broken)
    assert not check.kept
    assert check.groups == ("ffn.0",) and check.tensors == (step.tensor,)
    assert check.remedy == f"the units of {step.tensor}[1] lie as in other places of ffn.0"


def test_a_failure_names_the_tensor_that_should_stay() -> None:
    plan = whole(spec("hubert"))
    (step,) = (s for s in plan.steps if s.tensor == "encoder.layers.0.feed_forward.output_dense.weight")
    other = "encoder.layers.1.feed_forward.output_dense.weight"
    places = [p for p in plan.spec.places if p.tensor != other]
    extra = replace(with_places(plan, (*places, replace(step, tensor=other))), selected=("ffn.0",))
    check = verify(*network("hubert"), extra)
    assert not check.kept and check.groups == ("ffn.0",)
    assert check.tensors == ("encoder.layers.1.feed_forward.output_dense.weight",)
    assert check.remedy == f"{check.tensors[0]} stays in order"
