"""The law: however the samples come (chunks, shards, shifts, scales), the correlation is the exact one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from permgraph.errors import FileError, MatchError
from permgraph.ir.moments import Layout, Moments, ProbeMoments
from permgraph.ir.plan import Origin
from permgraph.matching import accumulation
from permgraph.matching.accumulation import MomentsBuilder

KEY = "ffn.0"


def build(a, b, cuts=(), units=None) -> ProbeMoments:
    return total(a, b, cuts, units)[KEY]


def total(a, b, cuts=(), units=None) -> Moments:
    units = units or a.shape[1]
    builder = MomentsBuilder({KEY: Layout((KEY,), (units,))})
    for one_a, one_b in zip(np.split(a, cuts), np.split(b, cuts), strict=True):
        builder.update(KEY, torch.from_numpy(one_a), torch.from_numpy(one_b))
    return builder.build()


def exact(a, b) -> np.ndarray:
    """Pearson correlation in float64, mean first: the definition."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    return (a.T @ b) / np.sqrt(np.outer((a * a).sum(0), (b * b).sum(0)))


def pair(n=3000, units=7, other=7, offset=0.0, drift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, units))
    b = 0.6 * a[:, rng.integers(units, size=other)] + rng.standard_normal((n, other))
    ramp = drift * np.linspace(0, 1, n)[:, None]
    scale = 10.0 ** rng.integers(-3, 4, size=units)
    return ((a + offset + ramp) * scale).astype(np.float32), (b - offset + ramp).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("drift", [0.0, 1e3])
@pytest.mark.parametrize("cuts", [(), (1, 10, 900), tuple(range(200, 3000, 200))])
def test_correlation_is_exact_far_from_zero(offset, drift, cuts):
    a, b = pair(n=9000, offset=offset, drift=drift)
    assert np.abs(build(a, b, cuts).correlation() - exact(a, b)).max() < 1e-6


KINDS = {
    "normal": lambda x: x,
    "ReLU, mostly 0": lambda x: np.maximum(x - 0.8, 0),
    "few values": lambda x: np.round(x * 8) / 8 + 30,
    "spikes": lambda x: (x > 1.6) * 1.0,
    "far from 0": lambda x: x + 1e4,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", [7, 80])
def test_equal_addends_do_not_round_in_one_direction(kind, units):
    """Sums in float32 drift where the same product comes again and again: short ones, and float64 for few units."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((9000, units))
    b = 0.6 * a + 0.8 * rng.standard_normal(a.shape)
    a, b = (KINDS[kind](x).astype(np.float32) for x in (a, b))
    for one, other in ((a, b), (a, a)):
        assert np.abs(build(one, other, (5000,)).correlation() - exact(one, other)).max() < 1e-6


def test_such_a_drift_would_be_caught(monkeypatch):
    monkeypatch.setattr(accumulation, "NARROW", 0)
    monkeypatch.setattr(accumulation, "CHUNK", 4096)
    a = (np.random.default_rng(0).standard_normal((9000, 7)) > 1.6).astype(np.float32)
    assert np.abs(build(a, a).correlation() - exact(a, a)).max() > 1e-6


def test_naive_sums_fail_where_the_moments_hold():
    a, b = pair(n=9000, offset=1e4)
    n, want = len(a), exact(a, b)
    both = np.concatenate([a, b], axis=1)
    cov = both.T @ both / n - np.outer(both.mean(0), both.mean(0))
    var = np.maximum(np.diag(cov), 1e-9)
    naive = (cov / np.sqrt(np.outer(var, var)))[:7, 7:]
    assert not np.abs(naive - want).max() < 1e-2
    assert np.abs(build(a, b).correlation() - want).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_summed_wide(dtype):
    a, b = ((torch.from_numpy(x / x.std(0)) + 30).to(dtype) for x in pair(n=5000))
    builder = MomentsBuilder({KEY: Layout((KEY,), (7,))})
    builder.update(KEY, a, b)
    want = exact(a.double().numpy(), b.double().numpy())
    assert np.abs(builder.build()[KEY].correlation() - want).max() < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_products_that_leave_float32_are_still_exact(scale):
    a, b = pair(n=500)
    a = (a / np.abs(a).max(0) * scale).astype(np.float32)
    moments = build(a, b, (100, 101))
    assert np.abs(moments.correlation() - exact(a, b)).max() < 1e-6
    assert not moments.dead_a().any()


def test_callers_precision_settings_do_not_leak_in_or_out():
    a, b = pair(n=2000)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = build(a, b).correlation()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert np.abs(found - exact(a, b)).max() < 1e-6


def test_shards_add_up_to_the_whole_whatever_their_shifts():
    a, b = pair(n=4000, offset=50.0, drift=300.0)
    whole, cuts = total(a, b), (17, 1000, 2500)
    shards = [total(x, y) for x, y in zip(np.split(a, cuts), np.split(b, cuts), strict=True)]
    assert len({s[KEY].a.shift.tobytes() for s in shards}) == len(shards)
    for order in (shards, shards[::-1]):
        added = Moments.total(order)[KEY]
        assert added.n == 4000
        assert np.abs(added.correlation() - whole[KEY].correlation()).max() < 1e-7
        np.testing.assert_allclose(added.covariance(), whole[KEY].covariance(), rtol=1e-6, atol=1e-6)
        moved = added.about(whole[KEY].a.shift, whole[KEY].b.shift)
        np.testing.assert_allclose(moved.a.square, whole[KEY].a.square, rtol=1e-6)


def test_adding_without_moving_the_shift_would_be_caught():
    a, b = pair(n=4000, drift=3.0)
    one, two = build(a[:2000], b[:2000]), build(a[2000:], b[2000:])
    broken = one + replace(two, a=replace(two.a, shift=one.a.shift), b=replace(two.b, shift=one.b.shift))
    assert np.abs(broken.correlation() - exact(a, b)).max() > 0.01
    assert np.abs((one + two).correlation() - exact(a, b)).max() < 1e-6


def test_build_hands_over_and_starts_afresh():
    a, b = pair(n=1000)
    builder = MomentsBuilder({KEY: Layout((KEY,), (7,))})
    parts = []
    for rows in (slice(0, 300), slice(300, 1000)):
        builder.update(KEY, torch.from_numpy(a[rows]), torch.from_numpy(b[rows]))
        parts.append(builder.build())
    assert [p[KEY].n for p in parts] == [300, 700]
    assert np.abs((parts[0] + parts[1])[KEY].correlation() - exact(a, b)).max() < 1e-6


def test_order_of_batches_changes_nothing_that_matters():
    a, b = pair(n=4000, offset=30.0)
    order = np.random.default_rng(1).permutation(4)
    blocks = [(a[i * 1000 : i * 1000 + 1000], b[i * 1000 : i * 1000 + 1000]) for i in order]
    shuffled = build(
        np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks]), (1000, 2000)
    )
    assert np.abs(shuffled.correlation() - build(a, b, (500,)).correlation()).max() < 1e-6


def test_columns_of_one_unit_are_averaged():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((500, 4, 3)).astype(np.float32) for _ in range(2))
    want = np.mean([exact(a[:, :, s], b[:, :, s]) for s in range(3)], axis=0)
    found = build(a.reshape(500, 12), b.reshape(500, 12), units=4)
    assert found.product.shape == (3, 4, 4)  # never the (12, 12) of all pairs of columns
    assert np.abs(found.correlation() - want).max() < 1e-6


def test_61_dead_channels_correlate_zero():
    a, b = pair(n=2000)
    a[:, 2] = 0
    a[:, 3] = 1234.567
    a[:, 4] = np.float32(1e6) * (1 + np.random.default_rng(0).integers(0, 2, 2000) * np.finfo(np.float32).eps)
    b[:, 5] = -7
    moments = build(a, b, (100,))
    assert moments.dead_a().tolist() == [False, False, True, True, True, False, False]
    assert np.flatnonzero(moments.dead_b()).tolist() == [5]
    corr = moments.correlation()
    assert not corr[[2, 3, 4]].any() and not corr[:, 5].any() and np.isfinite(corr).all()
    live = np.ix_([0, 1, 5, 6], [0, 1, 2, 3, 4, 6])
    assert np.abs(corr[live] - exact(a[:, [0, 1, 5, 6]], b[:, [0, 1, 2, 3, 4, 6]])).max() < 1e-6


def test_a_small_channel_beside_a_large_one_is_alive():
    a, b = pair(n=2000)
    a[:, 0] *= 1e-12
    moments = build(a, b)
    assert not moments.dead_a().any()
    assert np.abs(moments.correlation() - exact(a, b)).max() < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_60_a_batch_with_nan_is_left_out_and_counted(bad, side):
    a, b = pair(n=300)
    sides = [a.copy(), b.copy()]
    sides[side][150, 3] = bad
    moments = total(*sides, cuts=(100, 200))
    assert moments[KEY].n == 200 and moments.excluded == {KEY: 100}
    keep = np.r_[0:100, 200:300]
    assert np.abs(moments[KEY].correlation() - exact(a[keep], b[keep])).max() < 1e-6
    assert (moments + moments).excluded == {KEY: 200}
    moments.refuse_excluded(0.34)
    with pytest.raises(MatchError, match=r"probe 'ffn\.0': 100 of 300 samples"):
        moments.refuse_excluded()


def test_60_nothing_but_nan_is_an_error():
    builder = MomentsBuilder({KEY: Layout((KEY,), (2,))})
    assert not builder.update(KEY, torch.full((3, 2), torch.nan), torch.zeros(3, 2))
    with pytest.raises(MatchError, match="every batch held a NaN"):
        builder.build()


def test_63_half_precision_sums_do_not_overflow():
    ones = torch.ones(70_000, 1, dtype=torch.float16)
    a = ones + torch.arange(70_000)[:, None] % 2
    builder = MomentsBuilder({KEY: Layout((KEY,), (1,))})
    for part in a.half().split(7000):
        builder.update(KEY, part, -part)
    assert builder.build()[KEY].correlation()[0, 0] == pytest.approx(-1, abs=1e-9)


def test_saved_moments_come_back_and_equal_ones_are_equal_bytes(tmp_path):
    a, b = pair(n=100)
    for name in ("one", "two"):
        moments = Moments(total(a, b).probes | {"x/y z": build(b, a)}, Origin("abc"), {"b": "2", "a": "1"})
        moments.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    back = Moments.load(tmp_path / "one")
    assert back.origin == Origin("abc") and back.meta == {"a": "1", "b": "2"}
    assert back["x/y z"].layout == Layout((KEY,), (7,))
    np.testing.assert_array_equal(back[KEY].product, moments[KEY].product)
    assert (back + moments)[KEY].n == 200


def test_wrong_things_are_refused_in_words(tmp_path):
    a, b = pair(n=10)
    builder = MomentsBuilder({KEY: Layout((KEY,), (7,))})
    with pytest.raises(MatchError, match=r"no probe 'ffn.O' was declared. Did you mean ffn.0\?"):
        builder.update("ffn.O", torch.zeros(2, 7), torch.zeros(2, 7))
    with pytest.raises(MatchError, match="same frame rate"):
        builder.update(KEY, torch.zeros(2, 7), torch.zeros(3, 7))
    with pytest.raises(MatchError, match="8 and 7 columns do not fit 7 units"):
        builder.update(KEY, torch.zeros(2, 8), torch.zeros(2, 7))
    with pytest.raises(MatchError, match="of different calibrations"):
        total(a, b) + Moments({}, Origin("other"))
    with pytest.raises(MatchError, match="of different probes"):
        total(a, b) + total(a[:, :6], b)
    with pytest.raises(FileError, match="no such file"):
        Moments.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FileError, match="not a moments file"):
        Moments.load(tmp_path / "text")
