"""The law: the assignment is optimal, and among the optimal ones keeps the most units in place."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from permgraph.errors import MatchError
from permgraph.matching.assignment import assign, solve


def value(score, perm) -> float:
    return float(score[np.arange(len(score)), perm].sum())


@pytest.mark.parametrize("seed", range(60))
def test_62_optimal_and_then_as_much_in_place_as_possible(seed):
    """Against brute force, on small integer tables that are full of ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    score = rng.integers(-2, 3, size=(n, n)).astype(float)
    everything = [(value(score, p), sum(i == j for i, j in enumerate(p))) for p in permutations(range(n))]
    perm = assign(score)
    assert (value(score, perm), int((perm == np.arange(n)).sum())) == max(everything)


@pytest.mark.parametrize("seed", range(60))
def test_the_same_for_scores_whose_sums_are_rounded(seed):
    """Ties of numbers that are not whole; the sums of brute force are exact."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    score = rng.choice(rng.standard_normal(3), size=(n, n))
    exact = [[Fraction(float(x)) for x in row] for row in score]

    def worth(perm) -> tuple[Fraction, int]:
        return sum(exact[i][j] for i, j in enumerate(perm)), sum(i == j for i, j in enumerate(perm))

    assert worth(assign(score).tolist()) == max(worth(p) for p in permutations(range(n)))


def test_without_the_preference_ties_do_move_units():
    """What the stable assignment is for: the plain solver moves equal units."""
    tables = [np.random.default_rng(s).integers(0, 2, size=(6, 6)).astype(float) for s in range(30)]
    kept = [(assign(t) == np.arange(6)).sum() for t in tables]
    plain = [(assign(t, stable=False) == np.arange(6)).sum() for t in tables]
    assert all(k >= p for k, p in zip(kept, plain, strict=True)) and sum(kept) > sum(plain)


@pytest.mark.parametrize("gap", [1e-15, 1e-12, 1e-6])
def test_the_preference_never_beats_a_better_score_however_slightly(gap):
    score = np.array([[0.5, 0.5 + gap], [0.5 + gap, 0.5]])
    assert score[0, 1] > score[0, 0]
    assert assign(score).tolist() == [1, 0]
    assert assign(score.T[::-1]).tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_permutation_is_found(seed):
    rng = np.random.default_rng(seed)
    planted = rng.permutation(200)
    score = rng.standard_normal((200, 200)) * 0.1
    score[np.arange(200), planted] += 1
    assert (assign(score) == planted).all()


def test_renaming_units_renames_the_assignment():
    rng = np.random.default_rng(7)
    score, rows, columns = rng.standard_normal((40, 40)), rng.permutation(40), rng.permutation(40)
    assert (columns[assign(score[np.ix_(rows, columns)])] == assign(score)[rows]).all()


def test_all_equal_scores_keep_the_order():
    for constant in (0.0, 0.3, -1e9):
        assert (assign(np.full((50, 50), constant)) == np.arange(50)).all()


def test_61_dead_units_come_last_and_in_order():
    score = -np.ones((6, 6))
    dead_a, dead_b = np.zeros(6, bool), np.zeros(6, bool)
    dead_a[[1, 4]] = dead_b[[0, 3]] = True
    score[dead_a] = 0
    score[:, dead_b] = 0
    # plain assignment hides live units behind dead ones, because 0 beats -1
    assert value(score, solve(score)) > -4
    perm = assign(score, dead_a, dead_b)
    assert set(perm[~dead_a]) == {1, 2, 4, 5}
    assert perm[[2, 5]].tolist() == [2, 5]  # ties keep live units in place
    assert perm[[1, 4]].tolist() == [0, 3]


@pytest.mark.parametrize(("count_a", "count_b"), [(0, 3), (4, 1), (10, 10), (0, 10)])
def test_61_any_number_of_dead_units_on_either_side(count_a, count_b):
    rng = np.random.default_rng(count_a)
    score = rng.standard_normal((10, 10))
    dead_a, dead_b = np.zeros(10, bool), np.zeros(10, bool)
    dead_a[rng.choice(10, count_a, replace=False)] = dead_b[rng.choice(10, count_b, replace=False)] = True
    score[dead_a] = 0
    score[:, dead_b] = 0
    perm = assign(score, dead_a, dead_b)
    assert sorted(perm) == list(range(10))
    both_live = int((~dead_a & ~dead_b[perm]).sum())
    assert both_live == 10 - max(count_a, count_b)  # no live unit is wasted on a dead one
    if dead_a.all() or dead_b.all():
        assert (perm == np.arange(10)).all()
    assert (perm == assign(score, dead_a, dead_b)).all()


def test_65_what_scipy_would_accept_or_garble_is_refused_first():
    with pytest.raises(MatchError, match=r"shape \(2, 3\) cannot be assigned one to one"):
        assign(np.zeros((2, 3)))
    score = np.zeros((4, 4))
    score[2, 1] = np.nan
    with pytest.raises(MatchError, match=r"score\[2, 1\] is nan \(1 of 16 are not finite\)"):
        assign(score)
    score[2, 1] = -np.inf
    with pytest.raises(MatchError, match="is -inf"):
        assign(score)


def test_no_units_at_all():
    assert assign(np.zeros((0, 0))).shape == (0,)
