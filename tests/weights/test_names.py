"""The spellings a tensor can have, and strictness about everything else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from permgraph.errors import FileError, UsageError
from permgraph.ir.names import canonical
from permgraph.ir.plan import Plan
from permgraph.weights.apply import apply
from permgraph.weights.names import match_names

from .nets import Net, attention, mlp, shifted

NEW = "parametrizations.weight.original"


def renamed(net: Net, old: str, new: str) -> Net:
    """The net with its plan's tensor `old` called `new`; the state keeps its key."""

    def name(tensor: str) -> str:
        return new if tensor == old else tensor

    places = tuple(replace(p, tensor=name(p.tensor)) for p in net.spec.places)
    tensors = {name(k): v for k, v in net.spec.tensors.items()}
    return replace(net, spec=replace(net.spec, places=places, tensors=tensors).completed())


def test_canonical_is_idempotent_and_leaves_other_keys_alone() -> None:
    assert canonical(f"pos.conv.{NEW}0") == "pos.conv.weight_g"
    assert canonical(f"{NEW}1") == "weight_v"
    for key in ("a.weight", "pos.conv.weight_g", f"a.{NEW}", f"a.{NEW}2", f"x{NEW}0"):
        assert canonical(key) == key


@pytest.mark.parametrize("planned, stored", [("weight_v", f"{NEW}1"), (f"{NEW}1", "weight_v")])
def test_26_weight_norm_is_one_tensor_in_either_spelling(planned: str, stored: str) -> None:
    net = mlp()
    plan = renamed(net, "fc1.weight", f"fc1.{planned}").plan
    perms = shifted(net.spec)
    want = apply(net.plan, perms, net.state)
    state = {(f"fc1.{stored}" if k == "fc1.weight" else k): v for k, v in net.state.items()}
    moved = apply(plan, perms, state)
    assert list(moved) == list(state)
    assert torch.equal(moved[f"fc1.{stored}"], want["fc1.weight"])
    both = {**state, f"fc1.{planned}": net.state["fc1.weight"].clone()}
    moved = apply(plan, perms, both)
    assert torch.equal(moved[f"fc1.{planned}"], want["fc1.weight"])


def test_a_prefix_is_found_on_either_side_and_a_head_is_carried_through() -> None:
    net, perms = attention(), shifted(attention().spec)
    want = apply(net.plan, perms, net.state)
    head = {"lm_head.weight": torch.randn(5, 8)}
    moved = apply(net.plan, perms, {f"hubert.{k}": v for k, v in net.state.items()} | head)
    assert all(torch.equal(moved[f"hubert.{k}"], want[k]) for k in want)
    assert torch.equal(moved["lm_head.weight"], head["lm_head.weight"])
    for name in net.state:
        net = renamed(net, name, f"model.hubert.{name}")
    moved = apply(net.plan, perms, net.state)
    assert all(torch.equal(moved[k], want[k]) for k in want)
    moved = apply(net.plan, perms, {f"hubert.{k}": v for k, v in net.state.items()})
    assert all(torch.equal(moved[f"hubert.{k}"], want[k]) for k in want)


def test_two_prefixes_that_fit_are_not_chosen_between() -> None:
    net = mlp()
    shapes = {f"{p}.{k}": tuple(v.shape) for p in ("teacher", "student") for k, v in net.state.items()}
    with pytest.raises(
        UsageError, match=r"fits under 2 prefixes: 'student\.', 'teacher\.'.*prefix='student\.'"
    ):
        match_names(net.spec, shapes)
    stored = match_names(net.spec, shapes, prefix="teacher.")
    assert stored == {f"teacher.{k}": k for k in net.state}


def test_11_missing_and_unknown_tensors_are_listed_and_counted() -> None:
    net = mlp()
    many = {f"z{i:02}.weight": (2, 2) for i in range(25)}
    spec = replace(net.spec, tensors={**net.spec.tensors, **many})
    shapes = {k: tuple(v.shape) for k, v in net.state.items()}
    with pytest.raises(
        FileError, match=r"x: 25 of the plan's 29 tensors are missing: z00.*z19\.weight and 5 more"
    ):
        match_names(spec, shapes, "x")
    with pytest.raises(FileError, match=r"25 tensors unknown to the plan: z00.*z19\.weight and 5 more"):
        match_names(net.spec, {**shapes, **many})
    assert match_names(net.spec, {**shapes, **many}, ignore_unexpected=["z*"]) == {k: k for k in shapes}


def test_12_a_wrong_shape_names_both() -> None:
    net = mlp()
    shapes = {k: tuple(v.shape) for k, v in net.state.items()} | {"fc1.bias": (25,)}
    with pytest.raises(FileError, match=r"fc1\.bias: stored \(25,\), the plan has \(24,\)"):
        match_names(net.spec, shapes)


def test_20_unused_tensors_may_be_missing_and_counters_pass_through() -> None:
    net = mlp()
    tensors = {**net.spec.tensors, "mask": (5,), "bn.num_batches_tracked": ()}
    plan = Plan(replace(net.spec, tensors=tensors, unused=("mask",)), net.plan.selected)
    extra = {"ids": torch.arange(12).view(1, 12), "steps": torch.tensor(4), "scale": torch.tensor([0.5])}
    moved = apply(plan, shifted(net.spec), {**net.state, **extra})
    assert all(torch.equal(moved[k], v) for k, v in extra.items())
