"""The statistics, beside independent references: statsmodels, scipy, and counting everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from permgraph.errors import UsageError
from permgraph.evaluation.bootstrap import Counts, interval
from permgraph.evaluation.extras import extra
from permgraph.evaluation.significance import combine_seeds, holm, mcnemar, mcnemar_over_folds

RNG = np.random.default_rng(0)


def right(
    values: np.ndarray,
    clusters: list[str] | None = None,
    runs: list[str] | None = None,
    sizes: np.ndarray | None = None,
) -> Counts:
    values = np.atleast_2d(values).astype(float)
    count = values.shape[1]
    return Counts(
        values,
        tuple(runs or ["0"] * len(values)),
        tuple(clusters or [f"clip {i}" for i in range(count)]),
        tuple(int(size) for size in (np.ones(count) if sizes is None else sizes)),
    )


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (20, 12), (150, 101), (7, 7)])
def test_mcnemar_is_that_of_statsmodels(first: int, second: int) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = contingency.mcnemar([[40, first], [second, 5]], exact=True).pvalue
    assert mcnemar(first, second).p == pytest.approx(min(1.0, float(expected)))


@pytest.mark.parametrize(("first", "second"), [(0, 3), (2, 5), (6, 1), (4, 4)])
def test_mcnemar_is_the_share_of_sign_flips_at_least_as_uneven(first: int, second: int) -> None:
    flips = [abs(sum(signs)) for signs in product((-1, 1), repeat=first + second)]
    assert mcnemar(first, second).p == pytest.approx(np.mean([f >= abs(first - second) for f in flips]))


def test_folds_are_added_up_not_averaged() -> None:
    a, b = RNG.random(300) < 0.7, RNG.random(300) < 0.6
    folds = [(a[i::5], b[i::5]) for i in range(5)]
    whole = mcnemar_over_folds([(a, b)])
    assert mcnemar_over_folds(folds) == whole
    assert (whole.first, whole.second) == (int((a & ~b).sum()), int((~a & b).sum()))
    with pytest.raises(UsageError, match="same clips"):
        mcnemar_over_folds([(a, b[:-1])])


def test_mcnemar_holds_its_level_under_the_null() -> None:
    ps = []
    for _ in range(400):
        a, b = RNG.random((2, 200)) < 0.7
        ps.append(mcnemar_over_folds([(a, b)]).p)
    assert np.mean(np.array(ps) < 0.05) < 0.07


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_holm_is_that_of_statsmodels(count: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.round(RNG.random(count) ** 3, 2)  # with ties
    np.testing.assert_allclose(holm(list(p)), multitest.multipletests(p, method="holm")[1])


def test_holm_refuses_what_is_no_p_value() -> None:
    assert holm([]) == []
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            holm([0.5, bad])


def test_the_p_of_several_seeds_is_valid_even_when_they_are_copies_or_independent() -> None:
    assert combine_seeds([0.03]) == 0.03
    uniform = RNG.random((20_000, 5))
    copies = np.repeat(uniform[:, :1], 5, axis=1)
    for draws in (uniform, copies):
        combined = np.array([combine_seeds(list(row)) for row in draws])
        for level in (0.01, 0.05, 0.2):
            assert np.mean(combined <= level) <= level * 1.15
    # adding up the counts of five copies, as if they were five times the clips, is not
    assert mcnemar(60, 40).p < 0.1 < mcnemar(12, 8).p


def test_an_interval_of_clips_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    values = (RNG.random(120) < 0.7).astype(float)
    mine = interval(right(values), resamples=20_000)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=RNG
    ).confidence_interval
    assert mine.value == pytest.approx(values.mean())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert mine.unit == "120 clips"


def test_a_difference_is_paired() -> None:
    """Two encoders that are right on the same clips differ by nothing, whatever is drawn."""
    values = (RNG.random(100) < 0.5).astype(float)
    same = interval(right(values), right(values))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(UsageError, match="same clips"):
        interval(right(values), right(values[:50]))


def test_clusters_are_drawn_whole() -> None:
    """Brute force: every draw of the speakers with replacement, weighted by nothing else."""
    sizes = RNG.integers(1, 6, size=8)
    names = [f"s{k}" for k, size in enumerate(sizes) for _ in range(size)]
    values = (RNG.random(len(names)) < 0.6).astype(float)
    sums = np.array([values[[n == f"s{k}" for n in names]].sum() for k in range(8)])
    draws = np.random.default_rng(1).integers(8, size=(200_000, 8))
    expected = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    found = interval(right(values, names), resamples=50_000, word="speaker")
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)
    assert found.unit == "8 speakers"


def test_a_word_error_rate_is_a_ratio_of_sums_over_what_is_drawn() -> None:
    """Brute force: speakers drawn with replacement, all their errors over all their words; a difference on the same draw."""
    rng = np.random.default_rng(5)
    names = [f"s{k}" for k in range(10) for _ in range(rng.integers(1, 5))]
    words = rng.integers(1, 60, size=len(names))
    easy, hard = (rng.binomial(words, np.clip(rate + 3 / words, 0, 1)) for rate in (0.1, 0.3))
    speaker = np.array([int(name[1:]) for name in names])
    of = {id(x): np.bincount(speaker, weights=x) for x in (words, easy, hard)}
    draws = np.random.default_rng(1).integers(10, size=(100_000, 10))
    one, other = (of[id(x)][draws].sum(1) / of[id(words)][draws].sum(1) for x in (easy, hard))
    sides = [right(x, names, sizes=words) for x in (easy, hard)]
    for found, expected, value in (
        (interval(sides[0], resamples=50_000), one, easy.sum() / words.sum()),
        (interval(*sides, resamples=50_000), one - other, (easy.sum() - hard.sum()) / words.sum()),
    ):
        assert found.value == pytest.approx(value)
        assert (found.low, found.high) == pytest.approx(
            tuple(np.quantile(expected, [0.025, 0.975])), abs=0.003
        )
    of_clips = right(easy / words, names)  # a mean of rates of clips is another number
    assert abs(interval(of_clips).value - easy.sum() / words.sum()) > 0.03
    with pytest.raises(UsageError, match="same clips"):
        interval(sides[0], right(hard, names, sizes=words + 1))


def test_seeds_of_a_word_error_rate_are_averaged_as_those_of_an_accuracy() -> None:
    words = np.array([4, 1, 5])
    rows = np.array([[4, 0, 1], [0, 0, 0], [2, 1, 2]])
    found = interval(right(rows, runs=["a", "a", "b"], sizes=words))
    assert found.value == pytest.approx(((0.5 + 0.0) / 2 + 0.5) / 2)


def test_clips_of_a_speaker_that_go_together_widen_the_interval() -> None:
    """Coverage: 20 speakers who are each all right or all wrong. Drawing clips would be far too sure."""
    names = [f"s{k}" for k in range(20) for _ in range(25)]
    covered = {True: 0, False: 0}
    for trial in range(100):
        speakers = np.random.default_rng(trial).random(20) < 0.6
        values = np.repeat(speakers, 25).astype(float)
        for clustered in covered:
            found = interval(right(values, names if clustered else None), resamples=500, seed=trial)
            covered[clustered] += found.low <= 0.6 <= found.high
    assert covered[True] >= 85
    assert covered[False] < 50


def test_of_few_clusters_clips_are_drawn_and_the_unit_says_so() -> None:
    values = (RNG.random(60) < 0.5).astype(float)
    found = interval(right(values, ["anna"] * 30 + ["ben"] * 30), word="speaker")
    assert found.unit == "60 clips of 2 speakers"
    assert found.low < found.high


@pytest.mark.slow
def test_runs_and_seeds_are_drawn_too() -> None:
    """The variance of the resamples is that of the two-level design, when clips say nothing."""
    accuracy = {"a": [0.2, 0.2], "b": [0.8, 0.8], "c": [0.5, 0.5]}  # runs differ, seeds do not
    rows, runs = [], []
    for run, values in accuracy.items():
        for value in values:
            row = np.zeros(1000)
            row[: int(1000 * value)] = 1
            rows.append(RNG.permutation(row))
            runs.append(run)
    found = interval(right(np.array(rows), runs=runs), resamples=20_000)
    means = np.array([np.mean(draw) for draw in product([0.2, 0.8, 0.5], repeat=3)]).repeat(100)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    single = interval(right(np.array(rows[:1])), resamples=20_000)
    assert single.high - single.low < 0.06  # clips alone


def test_the_mean_weighs_runs_equally_not_their_seeds() -> None:
    rows = np.array([[1.0] * 10, [0.0] * 10, [0.0] * 10, [0.0] * 10])
    assert interval(right(rows, runs=["a", "b", "b", "b"])).value == pytest.approx(0.5)


def test_a_missing_library_says_how_to_install_it() -> None:
    with pytest.raises(UsageError, match=r"nowhere is not installed: pip install 'permgraph\[evaluate\]'"):
        extra("nowhere.at.all")
