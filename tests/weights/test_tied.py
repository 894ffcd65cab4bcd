"""A plan of a network in which two tensors are one, and weights in which they are not; and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, PermgraphError, PlanError
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.merge_files import merge_checkpoints


class Words(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 5)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        return self.head(h + self.down(self.up(h).tanh()))  # type: ignore[no-any-return]


X = (torch.tensor([[1, 2, 3]]),)


def planned(tied: bool) -> tuple[pg.Plan, dict[str, Tensor], dict[str, Tensor]]:
    """A plan, the weights of its network, and those of the other kind."""
    torch.manual_seed(0)
    net, other = Words(tied), Words(not tied)
    return pg.plan(pg.infer(pg.trace(net, X))), net.state_dict(), other.state_dict()


def saved(state: dict[str, Tensor], path: Path) -> Path:
    save_file({key: tensor.clone() for key, tensor in state.items()}, path)
    return path


def test_weights_that_are_not_tied_are_refused_by_a_plan_that_ties_them(tmp_path: Path) -> None:
    plan, tied, untied = planned(tied=True)
    perms = pg.random_permutations(plan, seed=0)
    a, b = saved(tied, tmp_path / "a.safetensors"), saved(untied, tmp_path / "b.safetensors")
    calls: dict[str, Any] = {
        "apply": lambda: pg.apply(plan, perms, untied),
        "unapply": lambda: pg.unapply(plan, perms, untied),
        "match": lambda: pg.match(plan, (tied, untied), matcher="weights"),
        "apply to a file": lambda: apply_checkpoint(plan, perms, b, tmp_path / "out.safetensors"),
        "merge files": lambda: merge_checkpoints(a, b, tmp_path / "out.safetensors", plan=plan, perms=perms),
    }
    for name, call in calls.items():
        with pytest.raises(FileError, match="' hold different numbers, and are one tensor"):
            call()
            pytest.fail(name)
    assert not (tmp_path / "out.safetensors").exists()


def test_copies_of_one_tensor_are_no_reason_to_refuse(tmp_path: Path) -> None:
    plan, tied, _ = planned(tied=True)
    perms = pg.random_permutations(plan, seed=0)
    copies = {key: tensor.clone() for key, tensor in tied.items()}
    moved = pg.apply(plan, perms, copies)
    assert torch.equal(moved["words.weight"], moved["head.weight"])
    assert not torch.equal(moved["words.weight"], tied["words.weight"])
    back = pg.unapply(plan, perms, moved)
    assert all(torch.equal(back[key], tied[key]) for key in tied)


def test_one_tensor_is_not_torn_by_a_plan_of_two() -> None:
    torn = pg.plan(pg.infer(pg.trace(Apart(), (torch.randn(2, 5),))))
    perms = pg.random_permutations(torn, seed=0)
    net = Apart()
    net.two.weight = net.one.weight
    with pytest.raises(PlanError, match="are one tensor here"):
        pg.apply(torn, perms, net.state_dict())


class Apart(nn.Module):
    """Two layers of one shape whose units are free apart from each other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 6, bias=False), nn.Linear(5, 6, bias=False)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.one(x).tanh(), self.two(x).sin()], -1))  # type: ignore[no-any-return]


def test_two_spellings_of_one_tensor_keep_their_own_numbers_or_are_refused() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 2))
    plan = pg.plan(pg.infer(pg.trace(net, (torch.randn(2, 4),))))
    perms = pg.random_permutations(plan, seed=1)
    state = dict(net.state_dict())
    state["0.parametrizations.weight.original0"] = state["0.weight_g"] + 1
    with pytest.raises(PermgraphError, match="hold different numbers"):
        pg.apply(plan, perms, state)
