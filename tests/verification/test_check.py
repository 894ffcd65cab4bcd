"""What a check says: a number with its circumstances, and a refusal where nothing can be measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from oracles.memory import with_tools
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import CheckError, PlanError
from permgraph.frontend.capture import capture
from permgraph.frontend.sources import Source
from permgraph.symmetry.infer import infer
from permgraph.verification.check import Check
from permgraph.verification.function_check import left_out, verify, whole
from permgraph.verification.inputs import random_inputs, vocabularies
from permgraph.verification.state import Weights

from .odd_networks import ODD, Between, Tokens, X


def checked(net: nn.Module, inputs: tuple[Tensor, ...] = X) -> Check:
    torch.manual_seed(0)
    return verify(net, inputs, infer(capture(net.eval(), inputs)))


def test_a_check_compares_and_prints_as_its_change() -> None:
    good, bad = Check(1e-15), Check(0.5)
    assert good < 1e-9 and good <= 1e-15 and not good > 1e-9 and bad >= 0.5
    assert max(good, bad) is bad and float(bad) == 0.5
    assert f"{bad:.1f}" == "0.5" and f"{good}" == str(good) == "1.0e-15 (limit 1e-09)"
    assert good.kept and not bad.kept
    assert {"change", "limit", "kept", "noise", "random", "groups", "tensors"} <= set(good.to_json())


@pytest.mark.parametrize("limit", [1e-9, 3.7e-7, 1e-4])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.02, 0.99, 1.0, 1.01, 1e5, float("inf")])
def test_round_numbers_say_no_less_and_keep_the_verdict(limit: float, share: float) -> None:
    check = Check(share * limit, limit, control=0.123456)
    told = check.in_round_numbers()
    assert told.change >= check.change and told.limit >= limit and told.control == 0.12
    assert (
        told.kept == check.kept or limit < check.change <= told.limit
    )  # a limit is rounded up, a refusal comes before
    if check.change < limit / 1000:  # whatever rounding made of it
        assert told == Check(check.change * 1.7, limit, control=0.1234561).in_round_numbers()


class Plain(nn.Module):
    def __init__(self, end: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.end = end

    def forward(self, x: Tensor) -> object:
        return self.end(self, self.last(torch.relu(self.first(x))))


def test_all_nan_is_refused_and_never_called_kept() -> None:
    with pytest.raises(CheckError, match="all outputs are NaN before any unit moves"):
        checked(Plain(lambda m, y: (y - 1e9).log()))


class Result:
    """A class that torch does not know."""

    def __init__(self, y: Tensor) -> None:
        self.y = y


def test_outputs_inside_a_class_that_torch_does_not_know_are_compared() -> None:
    """Beside a tensor that no unit reaches: what is looked at is what the trace calls the outputs."""
    net = Plain(lambda m, y: (torch.ones(2), Result(y)))
    plan = whole(infer(capture(net, X)))
    assert plan.groups and verify(net, X, plan).kept
    broken = [
        verify(net, X, left_out(plan, i))
        for i, step in enumerate(plan.steps)
        if step.tensor.endswith("weight")
    ]
    assert broken and not any(check.kept for check in broken)


def test_outputs_without_values_are_refused() -> None:
    plan = whole(infer(capture(Plain(lambda m, y: y), X)))
    for end in (lambda m, y: (), lambda m, y: y[:0]):
        with pytest.raises(CheckError, match="no function to check"):
            verify(Plain(end), X, plan)


def test_a_part_that_is_nan_is_told() -> None:
    def partly(net: nn.Module, y: Tensor) -> Tensor:
        return torch.where(torch.arange(5)[:, None] < 1, torch.nan, y)

    check = checked(Plain(partly))
    assert check.kept and check.nan == pytest.approx(0.2) and not check.blind
    assert "20% of the output is NaN in any order" in " ".join(check.remarks())


def test_an_output_that_becomes_zero_or_leaves_zero_is_a_change() -> None:
    """The size that a change is relative to may be on either side."""
    from permgraph.verification.experiment import change

    zero, one = torch.zeros(3), torch.ones(3)
    assert change([zero], [one]) == change([one], [zero]) == 1.0
    assert change([zero], [zero]) == 0.0
    assert change([one], [one, one]) == float("inf") == change([one], [torch.full((3,), torch.nan)])


@pytest.mark.parametrize(
    ("name", "noise"),
    [("log mel", 1.0), ("square root of a buffer", 1.0), ("arc cosine of a buffer", 0.0)],
)
def test_noise_is_as_strong_as_the_network_bears(name: str, noise: float) -> None:
    module, inputs = ODD[name]()
    check = checked(module, inputs)
    assert check.kept and not check.blind
    assert check.noise == noise
    said = " ".join(check.remarks())
    assert ("NaN" in said) == (check.noise < 1)


def test_noise_keeps_the_sign_of_what_has_one() -> None:
    net = nn.Module()
    net.register_buffer("bank", torch.eye(5))
    net.register_buffer("negative", -torch.rand(7, 3))
    net.register_buffer("variance", torch.ones(9))
    net.register_buffer("mask", torch.tensor([0.0, -torch.inf, -2.0]))
    net.weight = nn.Parameter(torch.randn(4, 6))
    for seed in range(5):
        noisy = {
            n: Weights(net, seed).wide(n, 1.0) for n in ("bank", "negative", "variance", "mask", "weight")
        }
        assert (noisy["bank"] >= 0).all() and (noisy["negative"] <= 0).all() and (noisy["variance"] > 0).all()
        assert torch.isinf(noisy["mask"]).tolist() == [False, True, False]
        for name, tensor in noisy.items():
            finite = tensor[torch.isfinite(tensor)]
            assert finite.unique().numel() == finite.numel(), f"two values of {name} are alike"
            assert (noisy["weight"] - net.weight).abs().max() < 0.5


def test_a_network_that_nothing_reaches_is_called_blind() -> None:
    check = checked(Plain(lambda m, y: y.sign().abs()))
    assert check.kept and check.blind
    assert "cannot notice a wrong plan" in " ".join(check.remarks())


HIDDEN, MEMORY = torch.tensor([0.5, 1.5, 2.5]), torch.zeros(5, 3)


def test_a_tensor_out_of_sight_is_cast_when_an_op_meets_it() -> None:
    assert checked(Between(lambda m, h: torch.relu(h) * HIDDEN.repeat(2))).kept


def test_a_tensor_out_of_sight_that_is_written_to_is_refused() -> None:
    def remember(net: nn.Module, y: Tensor) -> Tensor:
        return MEMORY.index_put_((torch.arange(5),), y).clone()

    plan = whole(infer(capture(Plain(lambda m, y: y), X)))
    with pytest.raises(CheckError, match="holds a tensor of another type where the check cannot see it"):
        verify(Plain(remember), X, plan)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_script_module_is_checked() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    plan = whole(infer(capture(net, X)))
    script = torch.jit.trace(net, X)
    assert verify(script, X, plan).kept
    assert not verify(script, X, left_out(plan, 0), explain=False).kept


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_script_module_inside_another_is_checked() -> None:
    net = nn.Sequential(torch.jit.script(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3))
    plan = whole(infer(capture(net, X)))
    assert plan.selected and verify(net, X, plan).kept
    assert not verify(net, X, left_out(plan, 0), explain=False).kept


class Slope(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda at: super(Slope, self).forward(at).square().sum())(x)


def test_a_network_that_computes_a_gradient_is_checked() -> None:
    net = Slope(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    plan = whole(infer(capture(net, X)))
    assert plan.selected and verify(net, X, plan).kept
    assert not verify(net, X, left_out(plan, 0), explain=False).kept


def test_token_ids_are_drawn_inside_their_vocabulary() -> None:
    net, inputs = Tokens(), (torch.zeros(40, 50, dtype=torch.int64),)
    trace = capture(net, inputs)
    assert vocabularies(trace) == [11]
    (ids,), _ = random_inputs(Source("tokens", net, inputs), trace)
    assert set(ids.unique().tolist()) == set(range(11))
    (ids,), _ = random_inputs(Source("tokens", net, inputs))
    assert not ids.any(), "without a table nothing is known, and zero is always inside"
    mine = (torch.ones(40, 50, dtype=torch.int64),)
    (ids,), _ = random_inputs(Source("tokens", net, mine), trace)
    assert torch.equal(ids, mine[0]), "what the user gave stays"


class TwoTables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(13, 4), nn.Embedding(9, 4), nn.Embedding(3, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        flat = ids.view(-1)
        where = (torch.cumsum(mask, 1) - 1).clamp(0)
        both = self.words(flat).view(*ids.shape, 4) + self.words.weight[ids] + self.kinds(kinds)
        return self.out(both + self.places(where))  # type: ignore[no-any-return]


def test_each_input_has_a_vocabulary_of_its_own() -> None:
    ids = torch.zeros(2, 7, dtype=torch.int64)
    trace = capture(TwoTables(), (ids, torch.ones_like(ids), ids.clone()))
    assert vocabularies(trace) == [13, None, 3]


@pytest.mark.parametrize("meta", ["model", "inputs"])
def test_what_has_no_values_is_refused(meta: str) -> None:
    net, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(1, 3)
    spec = infer(capture(net, (x,)))
    with pytest.raises(PlanError, match="on the meta device and has no"):
        if meta == "model":
            verify(net.to("meta"), (x,), spec)
        else:
            verify(net, (x.to("meta"),), spec)


CHILD = """
import sys
import torch
from torch import nn
from oracles.memory import forget_peak, peak
import permgraph as pg
torch.set_num_threads(1)
depth, width = 24, 1400
net = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(width, width, bias=False), nn.ReLU())))
x = (torch.randn(1, width),)
if sys.argv[1] == "verify":
    spec = pg.infer(pg.trace(net, x))
    import permgraph.verification.state as state
    state.BUDGET = 2**26
    forget_peak()
    before = peak()
    check = pg.verify(net, x, spec)
    assert check.kept and not check.blind
    own = sum(p.nbytes for p in net.parameters())
    print((peak() - before) / own)
"""


def test_memory_is_the_weights_own_and_little_more() -> None:
    """The check of 188 MB of weights takes less than as much again; all of them in float64 would take twice."""
    words = [sys.executable, "-c", CHILD, "verify"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=with_tools())
    assert done.returncode == 0, done.stderr
    assert 0.1 < float(done.stdout) < 1.5


class Masked(nn.Module):
    """The best two of five experts, of which a buffer leaves one: the second is the first of equals."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.experts = nn.Linear(3, 5), nn.Parameter(torch.randn(5, 2))
        self.register_buffer("mask", torch.tensor([0.0] + 4 * [-torch.inf]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts[(self.scores(x) + self.mask).topk(2, -1).indices].sum(1)


@pytest.mark.parametrize("seed", range(8))
def test_the_first_of_equal_values_is_met_by_further_draws(seed: int) -> None:
    torch.manual_seed(seed)
    module, inputs = Masked().eval(), (torch.randn(8, 3),)
    spec = pg.infer(pg.trace(module, inputs))
    assert spec.groups  # what a buffer holds is not known to inference
    check = pg.verify(module, inputs, spec, seed=seed)
    assert not check.kept and check.trials == 6
