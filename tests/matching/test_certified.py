"""The law: the certified assignment is the dense solver's optimum, its duals prove it, and ties keep units in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import permgraph as pg
from permgraph.errors import MatchError
from permgraph.matching import assignment, certified, ties
from permgraph.matching.certified import Duals, Solution, WarmStart

Table = NDArray[np.float64]
N = 700


def uniform(rng: np.random.Generator, n: int) -> Table:
    return rng.random((n, n))


def low_rank(rng: np.random.Generator, n: int) -> Table:
    return np.asarray(rng.standard_normal((n, 24)) @ rng.standard_normal((24, n)))


def noisy_permutation(rng: np.random.Generator, n: int) -> Table:
    table = 0.3 * rng.standard_normal((n, n))
    table[np.arange(n), rng.permutation(n)] += 0.8
    return table


def correlations(rng: np.random.Generator, n: int) -> Table:
    """Of two networks' units that share factors, some of them strong."""
    weights = rng.standard_normal((n, 64)) * np.exp(-np.arange(64) / 12)
    hidden = rng.standard_normal((2000, 64))
    a, b = (np.maximum(hidden @ (weights + rng.standard_normal((n, 64)) / 4).T, 0) for _ in range(2))
    a, b = ((x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=0) for x in (a, b))
    return np.asarray(a.T @ b[:, rng.permutation(n)])


def near_copies(rng: np.random.Generator, n: int) -> Table:
    """Columns in fours that differ by 1e-9: bids between them grow in such steps."""
    return np.asarray(rng.random((n, n // 4))[:, np.arange(n) // 4] + 1e-9 * rng.random((n, n)))


def large_offsets(rng: np.random.Generator, n: int) -> Table:
    return np.asarray(rng.random((n, n)) + 1e6 * rng.random((n, 1)) - 1e6 * rng.random(n))


KINDS = (uniform, low_rank, noisy_permutation, correlations, near_copies, large_offsets)


def solve_certified(table: Table) -> Solution | None:
    return certified.certified(table, float(np.abs(table).max()))


def dense(table: Table) -> NDArray[np.int64]:
    return np.asarray(linear_sum_assignment(table, maximize=True)[1])


def value(table: Table, perm: NDArray[np.int64]) -> float:
    return float(table[np.arange(len(table)), perm].sum())


def refuse_wrong(table: Table, solution: Solution) -> None:
    """By duality: prices that bound every entry, and are met by the matching, bound every matching."""
    row, column = solution.duals.row, solution.duals.column
    scale = 1e-12 * np.abs(table).max()
    assert sorted(solution.perm) == list(range(len(table)))
    assert (table - row[:, None] - column).max() <= scale
    assert row.sum() + column.sum() - value(table, solution.perm) <= len(table) * scale


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_optimum_as_the_dense_solver_with_a_proof(
    kind: Callable[[np.random.Generator, int], Table], seed: int
) -> None:
    table = kind(np.random.default_rng(seed), N)
    solution = solve_certified(table)
    if solution is not None:
        refuse_wrong(table, solution)
    want = dense(table)
    found = pg.assign(table)
    assert (found == want).all() or value(table, found) == pytest.approx(value(table, want), rel=1e-14)


def test_those_kinds_are_certified_and_not_left_to_the_dense_solver() -> None:
    for kind in (uniform, low_rank, noisy_permutation, correlations):
        assert solve_certified(kind(np.random.default_rng(3), N)) is not None, kind


def test_a_wrong_optimum_fails_the_proof() -> None:
    table = uniform(np.random.default_rng(0), N)
    solution = solve_certified(table)
    assert solution is not None
    wrong = solution.perm.copy()
    wrong[[0, 1]] = wrong[[1, 0]]
    with pytest.raises(AssertionError):
        refuse_wrong(table, replace(solution, perm=wrong))


def test_entries_that_the_first_step_missed_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few entries are kept at first, the certificate asks for what lacks."""
    table = low_rank(np.random.default_rng(1), N)
    rounds = []
    whole = certified._certificate

    def counted(*arguments: object) -> object:
        rounds.append(whole(*arguments))  # type: ignore[arg-type]
        return rounds[-1]

    monkeypatch.setattr(certified, "WIDTH", 4)
    monkeypatch.setattr(certified, "_certificate", counted)
    solution = solve_certified(table)
    assert len(rounds) > 1 and len(rounds[0][1])
    if solution is not None:
        refuse_wrong(table, solution)
        assert (solution.perm == dense(table)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_solved_before_only_decide_about_speed(
    kind: Callable[[np.random.Generator, int], Table],
) -> None:
    """A walk by small and large steps, another size on the way, prices that belong to nothing: the optimum of each."""
    rng = np.random.default_rng(2)
    table = kind(rng, N)
    warm = WarmStart()
    tables = [table]
    for noise in (0.0, 0.001, 0.02, 1.0, 0.001):
        tables.append(tables[-1] + noise * table.std() * rng.standard_normal(table.shape))
    tables.insert(3, kind(rng, N - 100))
    for one in tables:
        found, want = pg.assign(one, warm), dense(one)
        assert (found == want).all() or value(one, found) == pytest.approx(value(one, want), rel=1e-14)
    if warm._last is not None:
        warm._last = Duals(rng.standard_normal(N), rng.standard_normal(N)), warm._last[1]
    assert (pg.assign(table, warm) == pg.assign(table)).all()


def test_a_similar_score_starts_from_the_last_and_another_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    afresh: list[int] = []
    whole = certified.certified

    def counted(score: Table, scale: float) -> Solution | None:
        afresh.append(len(score))
        return whole(score, scale)

    monkeypatch.setattr(certified, "certified", counted)
    rng = np.random.default_rng(2)
    table, warm = low_rank(rng, N), WarmStart()
    counts = []
    for noise in (0.0, 0.001, 0.001, 1.0, 0.001):
        table = table + noise * table.std() * rng.standard_normal(table.shape)
        solution = warm.certified(table, float(np.abs(table).max()))
        assert solution is not None
        refuse_wrong(table, solution)
        counts.append(len(afresh))
    assert counts == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("digits", [0, 1])
@pytest.mark.parametrize("large", [True, False])
def test_ties_are_settled_in_place_as_by_dense_solutions(
    monkeypatch: pytest.MonkeyPatch, digits: int, large: bool
) -> None:
    """Rounded scores, full of ties: both ways are optimal and keep equally many units in place."""
    n = 120
    table = np.round(np.random.default_rng(digits).random((n, n)), digits)
    kept = {}
    for least in (1, 10**6):
        monkeypatch.setattr(assignment, "LARGE", least)
        perm = assignment.assign(table if large else table / 3)
        kept[least] = value(table, perm), int((perm == np.arange(n)).sum())
    assert kept[1] == pytest.approx(kept[10**6], rel=1e-14)
    plain = int((ties.dense(table) == np.arange(n)).sum())
    assert kept[1][1] > plain


def test_copies_of_units_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows and columns make ties in a table that is otherwise of one optimum."""
    rng = np.random.default_rng(5)
    groups = np.arange(N) // 2
    inner = uniform(rng, N // 2) / 4 + np.eye(N // 2)
    table = inner[groups][:, groups]
    called: list[int] = []
    whole = ties.in_place

    def counted(table: Table, home: NDArray[np.int64]) -> NDArray[np.int64]:
        called.append(len(table))
        return whole(table, home)

    monkeypatch.setattr(ties, "in_place", counted)
    assert solve_certified(table) is not None
    assert (pg.assign(table) == np.arange(N)).all()
    assert called and max(called) < 10  # no second solution of the whole


@pytest.mark.parametrize("seed", range(3))
def test_integers_and_dead_units_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1000, (N, N)).astype(float)
    assert value(counts, pg.assign(counts)) == value(counts, dense(counts))
    score = correlations(rng, N)
    dead_a, dead_b = rng.random(N) < 0.1, rng.random(N) < 0.2
    score[dead_a], score[:, dead_b] = 0, 0
    perm = assignment.assign(score, dead_a, dead_b)
    assert sorted(perm) == list(range(N))
    assert int((~dead_a & ~dead_b[perm]).sum()) == N - max(dead_a.sum(), dead_b.sum())
    live = score[np.ix_(~dead_a, ~dead_b)]
    best = live[linear_sum_assignment(live, maximize=True)].sum()
    matched = ~dead_a & ~dead_b[perm]
    assert score[np.flatnonzero(matched), perm[matched]].sum() == pytest.approx(best, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300])
def test_any_scale(scale: float) -> None:
    table = noisy_permutation(np.random.default_rng(4), N)
    assert (pg.assign(table * scale) == dense(table)).all()


def test_a_large_score_that_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        table = np.zeros((N, N))
        table[3, 5] = bad
        with pytest.raises(MatchError, match=r"score\[3, 5\] is"):
            pg.assign(table)
