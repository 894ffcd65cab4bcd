"""The law: a planted element of any nested group is found whole; small cases are optimal by brute force."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from permgraph.errors import MatchError
from permgraph.ir.check_plan import check_permutations
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.spec import PermSpec
from permgraph.matching.nested_assignment import align, evidence
from permgraph.matching.scores import flat_source
from tests.matching.planted import (
    GROUPED_QUERY_PROBES,
    TRANSFORMER_PROBES,
    grouped_query,
    plan_of,
    spec_of,
    transformer,
)


def score_of(spec, probes, perms, noise=0.1, seed=0, strength=None):
    """Evidence in which unit i of A scores 1 with the unit of B planted for it, plus noise."""
    rng = np.random.default_rng(seed)
    for key, layout in probes.items():
        source = flat_source(spec, layout, perms)
        n = len(source)
        score = noise * rng.standard_normal((n, n))
        score[np.arange(n), source] += (strength or {}).get(key, 1.0)
        yield evidence(spec, key, layout, score, np.zeros(n, bool), np.zeros(n, bool))


THREE_DEEP = spec_of(
    ("a", "a", 3, None),
    ("a/b", "b", 2, "a"),
    ("a/b/c", "c", 4, "a/b"),
    ("a/d", "d", 3, "a"),
    ("e", "e", 5, None),
)
CASES: dict[str, tuple[PermSpec, dict[str, tuple[str, ...]]]] = {
    "transformer": (transformer(), TRANSFORMER_PROBES),
    "grouped query": (grouped_query(), GROUPED_QUERY_PROBES),
    "three deep": (THREE_DEEP, {"x": ("a", "a/b", "a/b/c"), "y": ("a", "a/d"), "e": ("e",)}),
    "side by side, nothing else": (
        grouped_query(1, 4, 5, 3),
        {"q": ("heads.0", "heads.0/rep", "heads.0/qk")},
    ),
    "joined across roots": (THREE_DEEP, {"x": ("a", "a/b", "a/b/c", "e"), "y": ("a/d", "a")}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_planted_permutations_are_recovered_whole(case, seed):
    spec, probes = CASES[case]
    seen = {g for layout in probes.values() for g in layout}
    plan = plan_of(spec, *(g.name for g in spec.groups if g.name in seen))
    want = random_permutations(plan, seed)
    found = align(spec, plan.selected, score_of(spec, probes, want, seed=seed))
    check_permutations(plan, Permutations(found))
    assert set(found) == set(want)
    for name in want:
        np.testing.assert_array_equal(found[name], want[name], err_msg=name)


def test_a_flat_assignment_would_not_be_an_element_of_the_group():
    """What the recursion is for: with much noise, free assignment tears heads apart."""
    from permgraph.matching.assignment import assign

    spec = transformer(heads=4, v=8)
    plan = plan_of(spec, "heads.0", "heads.0/v")
    want = random_permutations(plan, 1)
    one = next(iter(score_of(spec, {"v": ("heads.0", "heads.0/v")}, want, noise=0.5)))
    flat = assign(one.score.reshape(32, 32)).reshape(4, 8) // 8
    assert (flat != flat[:, :1]).any()
    found = align(spec, plan.selected, [one])
    np.testing.assert_array_equal(found["heads.0"], want["heads.0"])


@pytest.mark.parametrize("seed", range(10))
def test_nested_assignment_is_optimal(seed):
    """Against all (2!)³ · 3! elements of S3 ≀ S2, on noise alone."""
    spec = spec_of(("h", "h", 3, None), ("h/v", "v", 2, "h"))
    score = np.random.default_rng(seed).standard_normal((6, 6))
    one = evidence(spec, "k", ("h", "h/v"), score, np.zeros(6, bool), np.zeros(6, bool))

    def value(outer, inner) -> float:
        source = flat_source(spec, ("h", "h/v"), Permutations({"h": np.array(outer), "h/v": np.array(inner)}))
        return float(score[np.arange(6), source].sum())

    best = max(value(p, s) for p in permutations(range(3)) for s in product([(0, 1), (1, 0)], repeat=3))
    found = align(spec, ["h", "h/v"], [one])
    assert value(found["h"], found["h/v"]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_side_by_side_reaches_the_optimum_of_each_group_given_the_other(seed):
    spec = spec_of(("r", "r", 3, None), ("d", "d", 4, None))
    score = np.random.default_rng(seed).standard_normal((12, 12))
    one = evidence(spec, "k", ("r", "d"), score, np.zeros(12, bool), np.zeros(12, bool))

    def value(r, d) -> float:
        source = flat_source(spec, ("r", "d"), Permutations({"r": np.array(r), "d": np.array(d)}))
        return float(score[np.arange(12), source].sum())

    found = align(spec, ["r", "d"], [one])
    reached = value(found["r"], found["d"])
    assert all(value(r, found["d"]) <= reached + 1e-12 for r in permutations(range(3)))
    assert all(value(found["r"], d) <= reached + 1e-12 for d in permutations(range(4)))


@pytest.mark.parametrize("chosen", [("heads.0",), ("heads.0/v",), ("heads.0/qk",), ("heads.0", "heads.0/qk")])
def test_groups_not_chosen_stay_in_order(chosen):
    """The best element of the chosen groups alone: what is planted there and nothing else is found."""
    spec = transformer()
    want = random_permutations(plan_of(spec, *chosen), 3)
    probes = {k: v for k, v in TRANSFORMER_PROBES.items() if k.startswith("heads")}
    found = align(spec, chosen, score_of(spec, probes, want))
    assert set(found) == set(chosen)
    for name in chosen:
        np.testing.assert_array_equal(found[name], want[name], err_msg=name)


def test_outer_alone_is_scored_by_the_trace_of_its_blocks():
    spec = spec_of(("h", "h", 5, None), ("h/v", "v", 3, "h"))
    score = np.random.default_rng(0).standard_normal((15, 15))
    one = evidence(spec, "k", ("h", "h/v"), score, np.zeros(15, bool), np.zeros(15, bool))
    traces = np.einsum("kiji->kj", score.reshape(5, 3, 5, 3))
    best = max(permutations(range(5)), key=lambda p: sum(traces[k, j] for k, j in enumerate(p)))
    assert align(spec, ["h"], [one])["h"].tolist() == list(best)


def test_the_deciding_probe_orders_the_heads_and_the_others_follow():
    """v and qk disagree on the heads: v decides, qk channels are matched inside v's pairs."""
    spec = transformer(heads=4, v=3, qk=3)
    plan = plan_of(spec, "heads.0", "heads.0/v", "heads.0/qk")
    by_v, by_qk = random_permutations(plan, 0), random_permutations(plan, 5)
    assert (by_v["heads.0"] != by_qk["heads.0"]).any()
    probes = {k: v for k, v in TRANSFORMER_PROBES.items() if k.startswith("heads")}
    scores = {
        "heads.0/v": next(iter(score_of(spec, probes, by_v))),
        "heads.0/qk": list(score_of(spec, probes, by_qk, strength={"heads.0/qk": 9.0}))[1],
    }
    everything = align(spec, plan.selected, scores.values())
    np.testing.assert_array_equal(everything["heads.0"], by_qk["heads.0"])
    decided = align(spec, plan.selected, scores.values(), {"heads.0": {"heads.0/v"}})
    np.testing.assert_array_equal(decided["heads.0"], by_v["heads.0"])
    np.testing.assert_array_equal(decided["heads.0/v"], by_v["heads.0/v"])
    absent = align(spec, plan.selected, scores.values(), {"heads.0": {"no such probe"}})
    np.testing.assert_array_equal(absent["heads.0"], everything["heads.0"])


def test_layouts_in_any_order_mean_the_same():
    spec = transformer()
    want = random_permutations(plan_of(spec, "heads.0", "heads.0/v"), 2)
    one = next(iter(score_of(spec, {"v": ("heads.0", "heads.0/v")}, want)))
    h, v = 4, 5
    turned = one.score.reshape(h, v, h, v).transpose(1, 0, 3, 2).reshape(h * v, h * v)
    other = evidence(spec, "v", ("heads.0/v", "heads.0"), turned, np.zeros(20, bool), np.zeros(20, bool))
    for name, array in align(spec, ["heads.0", "heads.0/v"], [other]).items():
        np.testing.assert_array_equal(array, want[name])


def test_62_dead_heads_and_all_equal_scores_stay_in_place():
    spec = transformer(heads=4, v=3)
    chosen = ["heads.0", "heads.0/v"]
    zero, alive, dead = np.zeros((12, 12)), np.zeros(12, bool), np.ones(12, bool)
    for flags in (alive, dead):
        found = align(spec, chosen, [evidence(spec, "v", tuple(chosen), zero, flags, flags)])
        assert found["heads.0"].tolist() == [0, 1, 2, 3]
        assert (found["heads.0/v"] == np.arange(3)).all()
    # heads 1 of A and 2 of B are dead: they meet, although 0 beats the scores of the living
    score = -np.ones((4, 3, 4, 3))
    dead_a, dead_b = np.zeros((4, 3), bool), np.zeros((4, 3), bool)
    dead_a[1], dead_b[2] = True, True
    score[1], score[:, :, 2] = 0, 0
    one = evidence(spec, "v", tuple(chosen), score.reshape(12, 12), dead_a.ravel(), dead_b.ravel())
    assert align(spec, chosen, [one])["heads.0"].tolist() == [0, 2, 1, 3]


def test_wrong_things_are_refused_in_words():
    spec = transformer()
    flat = np.zeros(20, bool)
    with pytest.raises(MatchError, match=r"no such group 'heads.O'. Did you mean"):
        evidence(spec, "v", ("heads.O",), np.zeros((4, 4)), flat, flat)
    with pytest.raises(MatchError, match=r"shape \(3, 3\) for 4 × 5 = 20 units"):
        evidence(spec, "v", ("heads.0", "heads.0/v"), np.zeros((3, 3)), flat, flat)
    with pytest.raises(MatchError, match=r"has 'heads.0/v' but not 'heads.0', which holds it"):
        evidence(spec, "v", ("heads.0/v",), np.zeros((5, 5)), flat, flat)
    with pytest.raises(MatchError, match=r"'ffn.0' is selected, but no probe observed it"):
        align(spec, ["ffn.0"], [])
