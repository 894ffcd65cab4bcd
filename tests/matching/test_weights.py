"""Laws of weight matching: planted elements come back, the objective never falls, the same run gives the same bytes.

Every network of the tests has its planted element back, with the output in order and free: there are no exceptions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise, permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from networks import MODELS
from networks.side_by_side import CASES, SHAPE
from networks.traced import network, spec
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, MatchError, UsageError
from permgraph.ir.permutations import Permutations
from permgraph.matching import weights as matching
from permgraph.matching.weight_scores import inner
from permgraph.matching.weights import Weights, match_weights
from permgraph.weights.planned import numbers_in

NOISE = 1e-3  # of each tensor's own spread
State = Mapping[str, Tensor]


def planted(plan: pg.Plan, state: State, seed: int = 0) -> tuple[dict[str, Tensor], Permutations]:
    """B: the weights under a random element, with noise; and what brings it back."""
    secret = pg.random_permutations(plan, seed)
    moved, generator = pg.apply(plan, secret, state), torch.Generator().manual_seed(seed)
    for tensor in moved.values():
        if tensor.is_floating_point() and tensor.numel() > 1:
            tensor.add_(NOISE * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return moved, secret.inverse(plan.spec)


def wrong(found: Permutations, answer: Permutations) -> dict[str, int]:
    return {g: int((found[g] != answer[g]).sum()) for g in answer if (found[g] != answer[g]).any()}


def objective(plan: pg.Plan, a: State, b: State, perms: Permutations) -> float:
    """By the definition, through `apply`: of the weights that have places of the plan, each once."""
    moved = pg.apply(plan, perms, b)
    held = {name for step in plan.steps for name in plan.spec.members(step.tensor) if "running_" not in name}
    names = {plan.spec.first_name(key): key for key in reversed(list(a))}
    return sum(inner(a[names[n]].numpy(), moved[names[n]].numpy()) for n in held if n in names)


def never_falls(report: Mapping[str, Any]) -> bool:
    history = report["history"]
    return all(before <= after for before, after in pairwise(history))


FEW = (
    "hubert",
    "llama_gqa",
    "shufflenet",
    "grouped_conv",
    "cifar_resnet",
    "shared_twice",
    "lstm",
    "tied_autoencoder",
)


@pytest.mark.parametrize("free_output", [False, True], ids=["", "free"])
@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_planted_elements_of_every_network_are_recovered(name: str, free_output: bool) -> None:
    plan, state = pg.plan(spec(name, free_output)), network(name)[0].state_dict()
    other, answer = planted(plan, state)
    found = pg.match(plan, (state, other), "weights")
    assert wrong(found, answer) == {}
    report = found.report["weights"]
    assert never_falls(report)
    assert report["in_place"] < report["objective"] <= report["most"] * (1 + 1e-9)
    assert report["objective"] == pytest.approx(objective(plan, state, other, found), rel=1e-9)
    assert report["in_place"] == pytest.approx(
        objective(plan, state, other, Permutations({})), rel=1e-6, abs=1e-6
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("case", ["early Mixtral", "two query heads share a key", "product"])
def test_branches_that_change_places_are_recovered(case: str) -> None:
    torch.manual_seed(0)
    model = CASES[case][0]().eval()
    plan = pg.plan(pg.infer(pg.trace(model, (torch.randn(SHAPE),))))
    other, answer = planted(plan, model.state_dict())
    assert wrong(pg.match(plan, (model.state_dict(), other), "weights"), answer) == {}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["gru", "llama_gqa", "grouped_conv", "shared_twice", "tied_language_model"])
def test_independent_weights_never_fall_and_give_the_same_bytes(name: str) -> None:
    """Nothing is planted: the objective is then as hard as it gets, and two axes of one tensor follow one group."""
    plan, state = pg.plan(spec(name)), network(name)[0].state_dict()
    generator = torch.Generator().manual_seed(3)
    other = {
        k: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t for k, t in state.items()
    }
    found = pg.match(plan, (state, other), "weights", seed=4)
    report = found.report["weights"]
    assert never_falls(report) and report["objective"] > report["in_place"]
    assert report["objective"] == pytest.approx(objective(plan, state, other, found), rel=1e-5)
    assert found.to_bytes() == pg.match(plan, (state, other), "weights", seed=4).to_bytes()


def test_a_step_that_loses_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With random proposals in place of assignments; without the guard the objective would fall."""
    plan, state = pg.plan(spec("gru")), network("gru")[0].state_dict()
    rng = np.random.default_rng(0)

    def proposed(problem: Any, family: Any, places: Any, moved: Any) -> Permutations:
        return pg.random_permutations(family.plan, int(rng.integers(2**31)))

    monkeypatch.setattr(matching.Problem, "assigned", proposed)
    problem = matching.Problem(plan, *(numbers_in(plan, state, "")[0] for _ in "AB"))
    turns = [range(len(problem.families))] * 20
    guarded = problem.start(pg.random_permutations(plan, 1))
    for turn in turns:
        guarded.stale = set(turn)
        guarded.passes([turn])
    assert never_falls({"history": guarded.history})
    monkeypatch.setattr(matching, "LEAST", -math.inf)
    loose = problem.start(pg.random_permutations(plan, 1))
    for turn in turns:
        loose.stale = set(turn)
        loose.passes([turn])
    assert not never_falls({"history": loose.history})


def test_small_groups_reach_the_optimum() -> None:
    """All elements of S4 × S3 by brute force, over several pairs."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    plan = pg.plan(pg.infer(pg.trace(model, (torch.randn(1, 2),))))
    first, second = (g.name for g in plan.groups)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        a, b = (
            {k: torch.randn(t.shape, generator=generator) for k, t in model.state_dict().items()}
            for _ in "AB"
        )
        best = max(
            objective(plan, a, b, Permutations({first: np.array(p), second: np.array(q)}))
            for p, q in product(permutations(range(4)), permutations(range(3)))
        )
        assert pg.match(plan, (a, b), "weights").report["weights"]["objective"] == pytest.approx(best)


def git_re_basin(a: list[np.ndarray], b: list[np.ndarray], rng: np.random.Generator) -> float:
    """Algorithm 1 of Ainsworth et al., 2023, for a chain of layers; W[l] is (out, in, taps). The objective that it reaches."""
    hidden = len(a) - 1
    orders = [np.arange(len(w)) for w in a[:-1]]

    def inputs(layer: int, w: np.ndarray) -> np.ndarray:
        """The inputs of a layer in the order of the one before."""
        return w[:, orders[layer - 1]] if layer else w

    def outputs(layer: int, w: np.ndarray) -> np.ndarray:
        return w[orders[layer]] if layer < hidden else w

    while True:
        progress = False
        for layer in rng.permutation(hidden):
            score = np.einsum("oit,pit->op", a[layer], inputs(layer, b[layer]))
            score += np.einsum("oit,opt->ip", a[layer + 1], outputs(layer + 1, b[layer + 1]))
            new = linear_sum_assignment(score, maximize=True)[1]
            units = np.arange(len(new))
            if score[units, new].sum() > score[units, orders[layer]].sum() + 1e-9:
                orders[layer], progress = new, True
        if not progress:
            return float(sum((a[i] * inputs(i, outputs(i, b[i]))).sum() for i in range(len(a))))


def chain(kind: str) -> tuple[nn.Module, Tensor]:
    if kind == "mlp":
        layers = [nn.Linear(m, n, bias=False) for m, n in ((12, 40), (40, 40), (40, 40), (40, 6))]
        return nn.Sequential(*(m for layer in layers for m in (layer, nn.ReLU()))), torch.randn(1, 12)
    convolutions = [nn.Conv2d(m, n, 3, bias=False) for m, n in ((3, 24), (24, 32), (32, 8))]
    return nn.Sequential(*(m for layer in convolutions for m in (layer, nn.ReLU()))), torch.randn(1, 3, 9, 9)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_at_least_as_good_as_git_re_basin(kind: str) -> None:
    """Of the same two networks, over several pairs and several of its random orders."""
    model, x = chain(kind)
    plan = pg.plan(pg.infer(pg.trace(model, (x,))))
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        a, b = (
            {k: torch.randn(t.shape, generator=generator) for k, t in model.state_dict().items()}
            for _ in "AB"
        )
        ours = pg.match(plan, (a, b), "weights", seed=seed).report["weights"]["objective"]
        taps = [
            [t.double().flatten(2).numpy() for t in (w[..., None] for w in one.values())] for one in (a, b)
        ]
        theirs = [git_re_basin(taps[0], taps[1], np.random.default_rng(order)) for order in range(3)]
        assert ours >= max(theirs) * (1 - 1e-6)


def mlp() -> tuple[pg.Plan, State]:
    return pg.plan(spec("mlp")), network("mlp")[0].state_dict()


def test_what_tells_no_units_apart_stays_in_place() -> None:
    """All scores equal: constant weights, or none at all."""
    plan, state = mlp()
    flat = {k: torch.ones_like(t) for k, t in state.items()}
    for b in (flat, {k: torch.zeros_like(t) for k, t in state.items()}):
        found = pg.match(plan, (flat, b), "weights")
        assert all((array == np.arange(array.shape[-1])).all() for array in found.values())


def test_integers_are_not_scored_and_complex_numbers_count_with_both_parts() -> None:
    plan, state = mlp()
    plain = numbers_in(plan, state, "A")[0]
    assert numbers_in(plan, state | {"table": torch.arange(3)}, "A")[0].keys() == plain.keys()
    secret = pg.random_permutations(plan, 1)
    rotated = {k: (1j * t).to(torch.complex64) for k, t in state.items()}
    other = numbers_in(plan, pg.apply(plan, secret, rotated), "B")[0]
    arrays, report = match_weights(plan, Weights(numbers_in(plan, rotated, "A")[0], other, plan.origin))
    assert wrong(Permutations(arrays), secret.inverse(plan.spec)) == {}
    assert report["objective"] == pytest.approx(report["most"])
    with pytest.raises(MatchError, match="complex in one model and real in the other"):
        match_weights(plan, Weights(plain, other, plan.origin))


def test_running_statistics_do_not_decide() -> None:
    """They are moved, and not scored, however large; where a group has nothing else, they are."""
    plan, state = pg.plan(spec("batch_norm")), network("batch_norm")[0].state_dict()
    other, answer = planted(plan, state)
    noise = torch.Generator().manual_seed(9)
    loud = {k: 1e3 * torch.rand(t.shape, generator=noise) if "running_" in k else t for k, t in other.items()}
    assert wrong(pg.match(plan, (state, loud), "weights"), answer) == {}
    first, second = (
        {k: t for k, t in numbers_in(plan, s, "")[0].items() if "running_" in k} for s in (state, other)
    )
    arrays, _ = match_weights(plan, Weights(first, second, plan.origin))
    assert wrong(Permutations(arrays), answer) == {}


def test_half_precision_and_numpy_are_read_too() -> None:
    plan, state = mlp()
    other, answer = planted(plan, state)
    half = {k: t.bfloat16() for k, t in other.items()}
    arrays = {k: t.double().numpy() for k, t in state.items()}
    assert wrong(pg.match(plan, (arrays, half), "weights"), answer) == {}


def test_a_group_that_is_not_selected_stays() -> None:
    plan = pg.plan(spec("mlp"), groups=plan_names()[0])
    state = network("mlp")[0].state_dict()
    other, answer = planted(plan, state)
    found = pg.match(plan, (state, other), "weights")
    assert [*found] == [*plan.selected] and wrong(found, answer) == {}


def plan_names() -> list[str]:
    return [group.name for group in spec("mlp").groups]


def test_what_is_not_a_pair_of_weights_of_the_network_is_refused() -> None:
    plan, state = mlp()
    lacking = {k: t for k, t in state.items() if k != "2.weight"}
    wide = state | {"2.weight": torch.randn(3, 9)}
    broken = state | {"2.weight": state["2.weight"] * math.nan}
    table: list[tuple[Any, type[Exception], str]] = [
        ((state, lacking), FileError, "state dict of B: 1 of the plan's 6 tensors are missing: 2.weight"),
        ((wide, state), FileError, "state dict of A: shapes differ from the plan's"),
        ((state, broken), FileError, "2.weight: 99 of 99 values are NaN or inf in state dict of B"),
        ((state,), UsageError, r"match: got \(OrderedDict\); give two state dicts, of"),
        ((network("mlp")[0],) * 2, UsageError, r"match: got \(Sequential, Sequential\)"),
        (
            (state, {k: t.to("meta") for k, t in state.items()}),
            FileError,
            "on the meta device and holds no numbers",
        ),
        (None, MatchError, "'weights' compares weights, and moments hold none: give both models"),
    ]
    for given, kind, text in table:
        with pytest.raises(kind, match=text):
            pg.match(plan, given, "weights")
    with pytest.raises(
        MatchError, match="'correlation' does not read weights: give moments, or use 'weights'"
    ):
        pg.match(plan, (state, state))


def test_permutations_know_the_weights_they_were_matched_on() -> None:
    plan, state = mlp()
    other, _ = planted(plan, state)
    origin = pg.match(plan, (state, other), "weights").origin
    assert origin.plan == plan.digest and origin.weights_a and origin.weights_b not in ("", origin.weights_a)
    assert pg.match(plan, (state, state), "weights").origin.weights_b == origin.weights_a


def test_doing_one_after_the_other_is_what_both_do() -> None:
    """`then` on weights: nested groups, and permutations that name only some of the groups."""
    for name in ("llama_gqa", "shufflenet"):
        plan, state = pg.plan(spec(name)), network(name)[0].state_dict()
        first, second = (pg.random_permutations(plan, seed) for seed in (1, 2))
        for one, two in ((first, second), (first.only([*first][::2]), second.only([*second][1::2]))):
            apart = pg.apply(plan, two, pg.apply(plan, one, state))
            at_once = pg.apply(plan, one.then(two, plan.spec), state)
            assert all(torch.equal(apart[key], at_once[key]) for key in state)


class LowRank(nn.Module):
    """The inner rank of a product of weights: no activation holds its units."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.up @ self.down)


def test_units_that_no_activation_holds_are_matched() -> None:
    torch.manual_seed(0)
    model, x = LowRank(), torch.randn(2, 6)
    plan = pg.plan(pg.infer(pg.trace(model, (x,))))
    with pytest.raises(MatchError, match="cannot be matched from activations"):
        pg.calibrate(plan, model, model, [x])
    other, answer = planted(plan, model.state_dict())
    assert wrong(pg.match(plan, (model.state_dict(), other), "weights"), answer) == {}


def test_too_many_units_for_a_table_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("permgraph.matching.weight_scores.MOST", 10)
    plan, state = mlp()
    with pytest.raises(
        MatchError, match=r"11 units of \S+ would need a table of 11 × 11 scores. Leave them in"
    ):
        pg.match(plan, (state, state), "weights")
