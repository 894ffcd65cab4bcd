"""Laws of aligning several networks: one order for all, planted elements back, no way worse than a simpler one.

Judged by brute force where there are few elements, and by permuting weights, which shares no code with the composition.
"""

from __future__ import annotations

import copy
from itertools import combinations, pairwise, permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from networks import pretrained as p
from networks.traced import network, spec
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import MatchError, UsageError
from permgraph.ir.moments import Layout, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Origin
from permgraph.ir.sums import Sums
from permgraph.matching.ascent import between
from permgraph.matching.many import WAYS, match_many
from tests.matching.planted import spec_of

State = dict[str, Tensor]
NESTED = [
    "hubert_layer",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("llama_gqa", "shufflenet", "lstm")),
]


def scrambled(plan: pg.Plan, state: State, seed: int, noise: float = 1e-3) -> tuple[State, Permutations]:
    """A copy under a random element, with noise; and what brings it back."""
    secret = pg.random_permutations(plan, seed)
    moved, generator = pg.apply(plan, secret, state), torch.Generator().manual_seed(seed)
    for tensor in moved.values():
        if tensor.is_floating_point() and tensor.numel() > 1:
            tensor.add_(noise * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return moved, secret.inverse(plan.spec)


def same(a: Permutations, b: Permutations) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def equal(a: State, b: State) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", NESTED)
def test_permutations_between_networks_compose_exactly(name: str) -> None:
    """From c to b and from b to a is from c to a; there and back is nowhere; and so it is on weights, bit for bit."""
    plan, state = pg.plan(spec(name)), network(name)[0].state_dict()
    some = [pg.random_permutations(plan, seed) for seed in range(3)]

    def way(a: int, b: int) -> Permutations:
        return between(some, a, b, plan.spec)

    for a, b, c in product(range(3), repeat=3):
        assert same(way(b, c).then(way(a, b), plan.spec), way(a, c))
        assert same(way(a, b).inverse(plan.spec), way(b, a))
    by_hand = pg.unapply(plan, some[0], pg.apply(plan, some[1], state))
    assert equal(by_hand, pg.apply(plan, way(0, 1), state))
    assert not equal(by_hand, pg.apply(plan, way(1, 0), state))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NESTED)
def test_scrambled_copies_come_back_by_their_weights(name: str, way: str) -> None:
    plan, state = pg.plan(spec(name)), network(name)[0].state_dict()
    made = [scrambled(plan, state, seed) for seed in range(1, 4)]
    found = pg.match_many(plan, [state, *(other for other, _ in made)], "weights", way)
    assert same(found[0], pg.match(plan, None, "identity"))
    for one, (_, answer) in zip(found[1:], made, strict=True):
        assert same(one, answer)


class Small(nn.Module):
    """(n, 5) → (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


INPUTS = [torch.randn(64, 5, generator=torch.Generator().manual_seed(7)) for _ in range(3)]


def small(seed: int) -> Small:
    torch.manual_seed(seed)
    return Small().eval()


def small_plan() -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(small(0), (INPUTS[0][:2],))))


def with_state(state: State) -> Small:
    model = small(0)
    model.load_state_dict(state)
    return model


def all_pairs(plan: pg.Plan, models: list[Any]) -> dict[tuple[int, int], Moments]:
    return pg.calibrate_many(plan, models, INPUTS)


@pytest.mark.parametrize("way", WAYS)
def test_scrambled_copies_come_back_by_their_activations(way: str) -> None:
    plan, first = small_plan(), small(1)
    made = [scrambled(plan, first.state_dict(), seed) for seed in range(1, 5)]
    pairs = all_pairs(plan, [first, *(with_state(state) for state, _ in made)])
    found = pg.match_many(plan, pairs, align=way)
    for number, (one, (_, answer)) in enumerate(zip(found[1:], made, strict=True), 1):
        assert same(one, answer)
        assert one.origin == pairs[0, number].origin
        assert min(row["correlation"] for row in one.report["groups"].values()) > 0.999


def test_all_pairs_in_one_pass_are_what_each_pair_gives() -> None:
    plan, models = small_plan(), [small(seed) for seed in range(3)]
    pairs = pg.calibrate_many(plan, models, INPUTS)
    assert pairs == {
        (i, j): pg.calibrate(plan, models[i], models[j], INPUTS) for i, j in combinations(range(3), 2)
    }
    assert pg.calibrate_many(plan, models, INPUTS, align="first").keys() == {(0, 1), (0, 2)}
    with pytest.raises(MatchError, match="a batch is a Pair, with inputs of two models"):
        pg.calibrate_many(plan, models, [pg.Pair(INPUTS[0], INPUTS[1])])
    with pytest.raises(UsageError, match="two or more models"):
        pg.calibrate_many(plan, models[:1], INPUTS)


def test_each_with_the_first_is_the_matching_of_two() -> None:
    plan, models = small_plan(), [small(seed) for seed in range(3)]
    pairs = all_pairs(plan, models)
    found = pg.match_many(plan, {pair: pairs[pair] for pair in ((0, 1), (0, 2))})
    by_weights = pg.match_many(plan, [m.state_dict() for m in models], "weights")
    for number in (1, 2):
        assert found[number].to_bytes() == pg.match(plan, pairs[0, number]).to_bytes()
        two = (models[0].state_dict(), models[number].state_dict())
        assert by_weights[number].to_bytes() == pg.match(plan, two, "weights").to_bytes()


@pytest.mark.parametrize("matcher", ["correlation", "weights"])
def test_what_compares_more_is_never_worse_over_all_pairs(matcher: str) -> None:
    """And what is reported is what the permutations give, measured by weights that are moved."""
    plan = small_plan()
    models = [small(seed) for seed in range(4)]
    states = [m.state_dict() for m in models]
    evidence: Any = states if matcher == "weights" else all_pairs(plan, models)
    many, universe = (pg.match_many(plan, evidence, matcher, way) for way in ("many", "universe"))
    told = [found[1].report["many"] for found in (many, universe)]
    assert told[0]["in_place"] < told[0]["first"] <= told[0]["objective"] <= told[1]["objective"]
    assert told[0]["first"] == told[1]["first"]
    if matcher == "weights":
        assert told[1]["objective"] <= told[1]["most"]
        for found, row in zip((many, universe), told, strict=True):
            moved = [pg.apply(plan, one, state) for one, state in zip(found, states, strict=True)]
            placed = [key for key in moved[0] if not key.endswith("4.bias")]
            pairs = [sum(float((a[k] * b[k]).sum()) for k in placed) for a, b in combinations(moved, 2)]
            assert row["objective"] == pytest.approx(sum(pairs), rel=1e-5)
            assert all(a <= b for a, b in pairwise(row["history"]))


def moments_of(score: np.ndarray, origin: Origin) -> Moments:
    """Moments whose covariance is this table."""
    u = len(score)
    zero = np.zeros((1, u))
    sums = Sums(1, zero, zero, np.ones((1, u)))
    return Moments({"ffn.0": ProbeMoments(Layout(("ffn.0",), (u,)), sums, sums, score[None])}, origin)


def brute_force(scores: dict[tuple[int, int], np.ndarray], u: int) -> float:
    """The largest sum over all pairs of three networks."""
    orders = [np.array(order) for order in permutations(range(u))]
    return max(
        float(
            scores[0, 1][np.arange(u), p].sum()
            + scores[0, 2][np.arange(u), q].sum()
            + scores[1, 2][p, q].sum()
        )
        for p, q in product(orders, repeat=2)
    )


def test_all_pairs_against_brute_force() -> None:
    """Random scores, the hardest there are: never above the largest sum there is, and mostly that; more starts, more often."""
    plan, u, rng = pg.plan(spec_of(("ffn.0", "ffn", 4, None))), 4, np.random.default_rng(0)
    reached: dict[str, list[float]] = {"first": [], "many": [], "universe": []}
    for _ in range(20):
        scores = {pair: rng.standard_normal((u, u)) for pair in combinations(range(3), 2)}
        best = brute_force(scores, u)
        pairs = {pair: moments_of(score, plan.origin) for pair, score in scores.items()}
        for way in ("many", "universe"):
            found = match_many(plan, 3, pairs, None, "covariance", way)
            order = [one["ffn.0"] for one in found]
            got = sum(scores[a, b][order[a], order[b]].sum() for a, b in scores)
            told = found[1].report["many"]
            assert told["objective"] * 3 * u == pytest.approx(got)
            reached[way].append(got / best)
        reached["first"].append(told["first"] * 3 * u / best)
    assert max(max(each) for each in reached.values()) <= 1 + 1e-9
    means = {way: np.mean(each) for way, each in reached.items()}
    assert means["first"] < means["many"] <= means["universe"]
    assert means["universe"] > 0.97 and np.mean(np.array(reached["universe"]) > 1 - 1e-9) > 0.6


@pytest.mark.slow
def test_heads_and_what_is_inside_them_by_activations() -> None:
    """Copies come back whatever the noise of the others; and with much noise, comparing more is never worse."""
    plan, (model, inputs) = pg.plan(spec("hubert_layer")), network("hubert_layer")
    generator = torch.Generator().manual_seed(0)
    batches = [tuple(torch.randn(8, *x.shape[1:], generator=generator) for x in inputs) for _ in range(4)]
    for noise, exact in ((1e-3, True), (2.0, False)):
        made = [scrambled(plan, model.state_dict(), seed, noise) for seed in (1, 2)]
        models = [model, *(copy.deepcopy(model) for _ in made)]
        for other, (state, _) in zip(models[1:], made, strict=True):
            other.load_state_dict(state)
        pairs = pg.calibrate_many(plan, models, batches)
        many, universe = (pg.match_many(plan, pairs, align=way) for way in ("many", "universe"))
        assert not exact or all(
            same(one, answer)
            for found in (many, universe)
            for one, (_, answer) in zip(found[1:], made, strict=True)
        )
        rows = [found[1].report["many"] for found in (many, universe)]
        assert rows[0]["first"] <= rows[0]["objective"] <= rows[1]["objective"]


def test_what_cannot_be_compared_is_refused() -> None:
    plan, models = small_plan(), [small(seed) for seed in range(3)]
    pairs = all_pairs(plan, models)
    some = {pair: one for pair, one in pairs.items() if pair != (1, 2)}
    with pytest.raises(MatchError, match="moments of networks 1 and 2 are missing: calibrate every pair"):
        pg.match_many(plan, some, align="universe")
    with pytest.raises(
        MatchError, match="network 1 has other weights in the moments of 1 and 2 than in those of 0"
    ):
        pg.match_many(plan, pairs | {(1, 2): pg.calibrate(plan, small(9), models[2], INPUTS)}, align="many")
    other = pg.plan(plan.spec, "ffn.0")
    with pytest.raises(MatchError, match="calibrated for another plan"):
        pg.match_many(other, pairs)
    with pytest.raises(UsageError, match=r"align 'univers': one of first, many, universe\. Did you mean"):
        pg.match_many(plan, pairs, align="univers")
    with pytest.raises(UsageError, match="1 network: give two or more"):
        pg.match_many(plan, [models[0].state_dict()], "weights")
    with pytest.raises(UsageError, match="no moments of any pair"):
        pg.match_many(plan, {})
    with pytest.raises(MatchError, match="'weights' compares weights: give those of all 3 networks"):
        pg.match_many(plan, pairs, "weights")


@p.needs_data
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["onsets_brnn_1", "res8_firefox_seed403959", "cifar_resnet20", "mnist_cnn_a"]
)
def test_copies_of_real_networks_come_back(name: str, way: str) -> None:
    model = p.load(name)
    plan, state = pg.plan(pg.infer(pg.trace(model, p.example(name)))), model.state_dict()
    made = [scrambled(plan, state, seed, 0.05) for seed in range(1, 5)]
    found = pg.match_many(plan, [state, *(other for other, _ in made)], "weights", way)
    assert all(same(one, answer) for one, (_, answer) in zip(found[1:], made, strict=True))
