"""A network that rounding alone changes is not called unsound; a wrong permutation of it still is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from permgraph.frontend.capture import capture
from permgraph.symmetry.infer import infer
from permgraph.verification.check import Check
from permgraph.verification.experiment import Experiment
from permgraph.verification.function_check import TOLERANCE, left_out, verify, whole
from permgraph.verification.verdict import measure


class Chaotic(nn.Module):
    """Each layer multiplies what rounding did before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(9):
            x = torch.sin(20 * self.layer(x))
        return self.last(x)  # type: ignore[no-any-return]


def test_rounding_is_told_from_a_wrong_group() -> None:
    torch.manual_seed(0)
    net, x = Chaotic().double().eval(), (torch.randn(2, 4).double(),)
    found = infer(capture(net, x))
    check = measure(net, x, found, {}, seeds=3)
    assert TOLERANCE < check.change <= check.limit <= 1e-4 and check.kept
    plan = whole(found)
    for place in range(len(plan.steps)):
        assert not verify(net, x, left_out(plan, place), explain=False).kept


def test_where_rounding_does_little_the_limit_stays() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.randn(2, 4),)
    assert Experiment(net, x).limit() == TOLERANCE


class Halves(nn.Module):
    """The larger of two sums of the same numbers, taken in different orders: only rounding tells which."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        sums = (x + x.flip(-1)).unflatten(-1, (2, 4)).logsumexp(-1)
        best = torch.zeros_like(sums).scatter(-1, sums.argmax(-1, keepdim=True), 1.0)
        return self.last(sums + best)  # type: ignore[no-any-return]


def test_a_choice_that_rounding_makes_is_not_judged() -> None:
    torch.manual_seed(0)
    net, x = Halves().double().eval(), (torch.randn(2, 4, 3).double(),)
    found = infer(capture(net, x))
    checks = [verify(net, x, found, seed=seed) for seed in range(4)]
    wrong = [check for check in checks if not check.kept]
    assert found.groups and wrong
    assert all(check.undecided and not check.groups for check in wrong)
    assert "equal but for rounding" in " ".join(wrong[0].remarks())
    assert "--no-check" in wrong[0].advice("") and Check(0.5).advice("report it") == "report it"


def test_a_wrong_plan_is_not_excused_by_rounding() -> None:
    torch.manual_seed(0)
    net, x = Chaotic().double().eval(), (torch.randn(2, 4).double(),)
    plan = whole(infer(capture(net, x)))
    for place in range(len(plan.steps)):
        assert not verify(net, x, left_out(plan, place)).undecided
    assert not Check(0.5, limit=1e-4, rounding=1e-3).undecided
