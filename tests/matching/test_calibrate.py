"""Calibration: what is counted depends on the data alone, however it comes and however often it is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import MatchError
from permgraph.frontend.batches import Pair
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match
from permgraph.matching.observation import Runner


class Tiny(nn.Module):
    """(n, 1, samples) → (n, 3): convolutions under batch norm, then a hidden layer."""

    def __init__(self, seed: int = 0, stride: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv1d(1, 6, 5, stride=stride)
        self.norm = nn.BatchNorm1d(6)
        self.second = nn.Conv1d(6, 5, 3)
        self.hidden = nn.Linear(5, 8)
        self.out = nn.Linear(8, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.out(torch.tanh(self.hidden(x.transpose(1, 2)))).mean(1)


def clips(count: int = 12, samples: int = 60, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def plan() -> pg.Plan:
    return pg.plan(pg.infer(pg.trace(Tiny(), (clips(1),))))


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    """A, and B: other weights near A's, in another order."""
    a, b = Tiny(), Tiny()
    plan = pg.plan(pg.infer(pg.trace(a, (clips(1),))))
    state = pg.apply(plan, pg.random_permutations(plan, seed=5), a.state_dict())
    noise = torch.Generator().manual_seed(1)
    b.load_state_dict(
        {
            k: t + 0.2 * t.std() * torch.randn(t.shape, generator=noise) if t.dim() > 1 else t
            for k, t in state.items()
        }
    )
    return a, b


def same(one: Permutations, other: Permutations) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(np.array_equal(one[g], other[g]) for g in one)


def counts(moments: Moments) -> dict[str, int]:
    return {key: probe.n for key, probe in moments.probes.items()}


def test_every_selected_group_is_observed_where_the_words_say(plan, pair) -> None:
    moments = calibrate(plan, *pair, clips().split(4))
    assert {key.rsplit(" ", 1)[0] for key in moments.probes} == {
        "cnn.0 normed norm",
        "cnn.1 leaving second",
        "ffn.0 entering out",
    }
    assert counts(moments) == dict(zip(moments.probes, (12 * 28, 12 * 26, 12 * 26), strict=True))


def test_the_numbers_are_those_of_the_modules_own_activations(plan, pair) -> None:
    x, seen = clips(), []
    for model in pair:
        model.norm.register_forward_hook(lambda m, args, result: seen.append(result))
        model(x)
        model.norm._forward_hooks.clear()
    a, b = (s.detach().double().transpose(1, 2).flatten(0, 1).numpy() for s in seen)
    want = np.corrcoef(a.T, b.T)[:6, 6:]
    moments = calibrate(plan, *pair, x.split(5))
    key = next(k for k in moments.probes if k.startswith("cnn.0"))
    assert np.abs(moments[key].correlation() - want).max() < 1e-6


def test_same_inputs_same_bytes(plan, pair, tmp_path: Path) -> None:
    for name in ("one", "two"):
        moments = calibrate(plan, *pair, clips().split(4))
        moments.save(tmp_path / f"{name}.moments")
        match(plan, moments, seed=3).save(tmp_path / f"{name}.perms")
    for kind in ("moments", "perms"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_order_of_clips_and_batch_size_change_no_permutation(plan, pair) -> None:
    x = clips()
    want = match(plan, calibrate(plan, *pair, x.split(4)))
    assert any((perm != np.arange(perm.shape[-1])).any() for perm in want.arrays.values())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    for batches in (x[order].split(4), x.split(1), x.split(5), [x]):
        moments = calibrate(plan, *pair, batches)
        found = match(plan, moments)
        assert same(found, want)
        for group, row in found.report["groups"].items():
            assert row["correlation"] == pytest.approx(want.report["groups"][group]["correlation"], abs=2e-6)


def test_shards_add_up_whatever_their_data_is_called(plan, pair) -> None:
    x = clips()
    whole = calibrate(plan, *pair, x.split(4))
    parts = [calibrate(plan, *pair, part.split(2), data=f"part {i}") for i, part in enumerate(x.split(6))]
    added = Moments.total(parts)
    assert counts(added) == counts(whole)
    assert same(match(plan, added), match(plan, whole))
    other = calibrate(plan, pair[0], Tiny(9), x.split(4))
    with pytest.raises(MatchError, match="different calibrations"):
        _ = whole + other


class Stop(Exception):
    pass


def test_69_killed_at_any_batch_and_resumed_gives_the_same(plan, pair, tmp_path: Path) -> None:
    batches = clips().split(2)
    whole = calibrate(plan, *pair, batches, data="clips")
    whole_bytes = tmp_path / "whole.safetensors"
    match(plan, whole).save(whole_bytes)
    for after in (1, 3, 6):
        path = tmp_path / f"killed-{after}"

        def dying():
            for i, batch in enumerate(batches):
                if i == after:  # noqa: B023
                    raise Stop
                yield batch

        if after < len(batches):
            with pytest.raises(Stop):
                calibrate(plan, *pair, dying(), checkpoint=path, data="clips", save_every=0)
            assert Moments.load(path).meta["batches"] == str(after)
        ran: list[int] = []
        resumed = calibrate(plan, *pair, batches, checkpoint=path, data="clips", progress=ran.append)
        assert ran == list(range(after + 1 if after < len(batches) else 1, len(batches) + 1))
        assert counts(resumed) == counts(whole)
        match(plan, resumed).save(tmp_path / "resumed.safetensors")
        assert (tmp_path / "resumed.safetensors").read_bytes() == whole_bytes.read_bytes()
        again = calibrate(plan, *pair, batches, checkpoint=path, data="clips")
        assert counts(again) == counts(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_68_interrupted_counts_the_batch_at_hand_and_saves(plan, pair, tmp_path: Path, number: int) -> None:
    def interrupting():
        for i, batch in enumerate(clips().split(2)):
            if i == 2:
                os.kill(os.getpid(), number)
            yield batch

    handler = signal.getsignal(number)
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        calibrate(plan, *pair, interrupting(), checkpoint=path)
    assert signal.getsignal(number) is handler
    assert Moments.load(path).meta["batches"] == "3"
    resumed = calibrate(plan, *pair, clips().split(2), checkpoint=path)
    assert counts(resumed) == counts(calibrate(plan, *pair, clips().split(2)))


def test_70_another_calibrations_checkpoint_is_refused(plan, pair, tmp_path: Path) -> None:
    path, x = tmp_path / "checkpoint", clips()
    calibrate(plan, *pair, x.split(2), checkpoint=path, data="clips")
    kept = path.read_bytes()
    narrower = pg.plan(plan.spec, "cnn")
    wrong = [
        (plan, *pair, "other clips", r"other data \(clips, now other clips\)"),
        (plan, pair[0], Tiny(7), "clips", "other weights of B"),
        (plan, pair[1], pair[0], "clips", "other weights of A .* other weights of B"),
        (narrower, *pair, "clips", "other plan"),
    ]
    for other, a, b, data, difference in wrong:
        with pytest.raises(MatchError, match=f"a calibration with {difference}"):
            calibrate(other, a, b, x.split(2), checkpoint=path, data=data)
    with pytest.raises(MatchError, match="holds 6 batches, the data has only 3"):
        calibrate(plan, *pair, x[:6].split(2), checkpoint=path, data="clips")
    assert path.read_bytes() == kept


def test_inputs_of_different_lengths_are_counted_each_at_its_own(plan, pair) -> None:
    batches = [clips(2, n, seed=n) for n in (40, 41, 60, 90, 40)]
    moments = calibrate(plan, *pair, batches)
    frames = [(n - 5) // 2 + 1 for n in (40, 41, 60, 90, 40)]
    assert list(counts(moments).values()) == [2 * sum(frames)] + [2 * sum(f - 2 for f in frames)] * 2
    together = Moments.total([calibrate(plan, *pair, [batch]) for batch in batches])
    assert counts(together) == counts(moments)
    assert same(match(plan, together), match(plan, moments))


def test_a_b_at_another_frame_rate_is_read_at_the_nearest_frame(plan) -> None:
    """B hears the same sound at twice the rate, with a stride twice as long: exactly A's frames."""
    a, b = Tiny(stride=2), Tiny(stride=4)
    sound = clips(6, 120)
    moments = calibrate(
        plan, a, b, [Pair(sound[..., ::2], sound)]
    )  # both see every fourth sample: equal counts
    key = next(k for k in moments.probes if k.startswith("cnn.0"))
    assert moments[key].n == 6 * 28
    slow, fast = Tiny(stride=2), Tiny(stride=1)  # twice the frames
    fast.load_state_dict(slow.state_dict())
    smooth = nn.functional.avg_pool1d(clips(6, 159), 40, stride=1)
    moments = calibrate(plan, slow, fast, [smooth])
    assert moments[key].n == 6 * 58
    nearby = moments[key].correlation().diagonal()
    elsewhere = calibrate(plan, slow, fast, [Pair(smooth, smooth.flip(-1))])[key].correlation().diagonal()
    assert nearby.mean() > 0.85 > 0.5 > np.abs(elsewhere).mean()


class Flattening(nn.Module):
    """Self-attention that folds clips and heads into one axis, as torch's own does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.out = nn.Linear(2, 12), nn.Linear(12, 3)
        self.attention = nn.MultiheadAttention(12, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.read(x)).transpose(0, 1)
        return self.out(self.attention(x, x, x, need_weights=False)[0])


def test_heads_folded_into_the_batch_are_still_told_from_clips() -> None:
    model, x = Flattening(), clips(5, 14).reshape(5, 7, 2)
    plan = pg.plan(pg.infer(pg.trace(model, (x[:1],))))
    batched, single = (calibrate(plan, model, model, batches) for batches in ([x], x.split(1)))
    assert counts(batched) == counts(single)
    for key, probe in single.probes.items():
        assert probe.product.shape == batched[key].product.shape
        assert np.abs(batched[key].correlation() - probe.correlation()).max() < 1e-5


def test_clips_that_do_not_pair_are_refused(plan, pair) -> None:
    with pytest.raises(MatchError, match="4 clips for A and 3 for B"):
        calibrate(plan, *pair, [Pair(clips(4), clips(3))])


def test_no_batch_is_an_error_and_a_nan_is_counted(plan, pair) -> None:
    with pytest.raises(MatchError, match="no batch to calibrate on"):
        calibrate(plan, *pair, [])
    bad = clips(1)
    bad[0, 0, 7] = torch.nan
    with pytest.raises(MatchError, match="NaN or an infinity"):
        calibrate(plan, *pair, [*clips().split(4), bad])


def test_another_architecture_is_refused(plan) -> None:
    class Wider(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(5, 9), nn.Linear(9, 3)

    with pytest.raises(MatchError, match="other groups than in the plan"):
        calibrate(plan, Tiny(), Wider().eval(), [clips()])


def test_the_models_are_left_as_they_were(plan, pair) -> None:
    a = Tiny()
    a.train()
    before = {k: t.clone() for k, t in a.state_dict().items()}
    calibrate(plan, a, pair[1], clips().split(4))
    assert all(m.training for m in a.modules())
    assert all(torch.equal(t, before[k]) for k, t in a.state_dict().items())


class Regions(nn.Module):
    """Ops of the same kind inside and outside autocast and no_grad regions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)) * 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.relu(self.b(x))
        with torch.no_grad():
            x = torch.relu(x.float() - 0.1) * 3
        return self.c(torch.relu(x * 0.5))


def test_nodes_inside_sub_graphs_are_found_by_their_names_in_the_trace() -> None:
    model, x = Regions(), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    runner = Runner(model, (x,))
    ops = [n for n in runner.trace.nodes if n.op.startswith("aten.")]
    seen = runner((x,), [n.name for n in ops])
    assert [tuple(seen[n.name][0].shape) for n in ops] == [n.shape for n in ops]
    relus = [seen[n.name][0] for n in ops if n.op.startswith("aten.relu")]
    with torch.no_grad():
        first = torch.relu(model.a(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            second = torch.relu(model.b(first * 2))
        third = torch.relu(second.float() - 0.1)
        last = torch.relu(third * 3 * 0.5)
    for found, want in zip(relus, (first, second, third, last), strict=True):
        torch.testing.assert_close(found, want)


def test_labels_in_a_loader_change_nothing_and_keywords_are_as_arguments() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6)).eval()

    torch.manual_seed(0)
    a, b, x = net(), net(), torch.randn(64, 6)
    plan = pg.plan(pg.infer(pg.trace(a, (x[:2],))))
    want = match(plan, calibrate(plan, a, b, [x]))
    for target in (torch.randn(64, 6), torch.randint(0, 3, (64,))):
        loader = DataLoader(TensorDataset(x, target), 64)
        assert same(match(plan, calibrate(plan, a, b, loader)), want)
    keyed = match(plan, calibrate(plan, a, b, [{"input": x, "labels": target}]))
    picked = match(plan, calibrate(plan, a, b, [(target, x)], inputs=1))
    assert same(keyed, want) and same(picked, want)
