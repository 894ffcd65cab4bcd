"""Passes: however many a limit of memory asks for, the result is that of one."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.errors import MatchError, UsageError
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match, match_passes
from permgraph.matching.memory import needed, parse_size, passes
from permgraph.matching.probes import choose_probes
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder
from tests.command import run


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(24, 3, 48, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


A, B = network(0), network(1)
BATCHES = [torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(i)) for i in range(3)]
TRACE = pg.trace(A, (BATCHES[0][:1],))
PLAN = pg.plan(pg.infer(TRACE))


@cache
def limits() -> tuple[int, ...]:
    """From what the largest group needs alone to what all need together."""
    whole = needed(PLAN, 0, TRACE).total
    least = 1000 * bisect_left(range(whole // 1000), True, key=lambda n: fits(1000 * n))
    return least, (least + whole) // 2, whole


def fits(limit: int) -> bool:
    try:
        return bool(split(limit))
    except MatchError:
        return False


def split(limit: int | None) -> list[tuple[str, ...]]:
    return [turn.keys for turn in passes(PLAN, limit, lambda keys: needed(PLAN, 0, TRACE, keys=keys))]


@cache
def moments(keys: tuple[str, ...] | None) -> pg.Moments:
    return calibrate(PLAN, A, B, BATCHES, keys=keys)


def test_passes_stay_within_the_limit_and_see_every_probe_once() -> None:
    counts = []
    for limit in limits():
        turns = split(limit)
        counts.append(len(turns))
        assert sorted(key for keys in turns for key in keys) == sorted(choose_probes(PLAN))
        for keys in turns:
            assert needed(PLAN, 0, TRACE, keys=keys).total <= limit
            groups = {name for key in keys for name in choose_probes(PLAN)[key].layout}
            others = {n for k, p in choose_probes(PLAN).items() if k not in keys for n in p.layout}
            assert not groups & others
    assert counts[0] > counts[1] > counts[2] == len(split(None)) == 1


def test_what_comes_after_the_passes_asks_for_no_more_of_them() -> None:
    whole = needed(PLAN, 0, TRACE).total
    for later in ({"check": 2 * whole}, {"repair": 2 * whole}):
        (turn,) = passes(PLAN, whole, lambda keys, x=later: replace(needed(PLAN, 0, TRACE, keys=keys), **x))
        assert turn.memory.calibration == whole and turn.memory.total == 2 * whole


def test_one_group_that_needs_more_is_refused() -> None:
    with pytest.raises(MatchError, match=r"--max-memory 1 MB: the units of .* alone need .*smaller --batch"):
        passes(PLAN, 1_000_000, lambda keys: needed(PLAN, 10**9, TRACE, keys=keys))


@pytest.mark.parametrize(
    "which", [pytest.param(0, marks=pytest.mark.slow), 1]
)  # the most passes, and two or three
@pytest.mark.parametrize("matcher", ["correlation", "covariance", "abs", "identity", "random"])
def test_the_result_of_passes_is_that_of_one(matcher: str, which: int) -> None:
    want = match(PLAN, moments(None), matcher, 3)
    found = match_passes(PLAN, [moments(keys) for keys in split(limits()[which])], matcher, 3)
    assert found == want
    assert json.dumps(found.report) == json.dumps(want.report)


def test_a_pass_that_is_missing_or_counted_twice_is_refused() -> None:
    first, *rest = (moments(keys) for keys in split(limits()[1]))
    with pytest.raises(MatchError, match="no probe observed it"):
        match_passes(PLAN, rest)
    with pytest.raises(MatchError, match="two of these moments hold units of"):
        match_passes(PLAN, [first, *rest, first])
    other = calibrate(PLAN, A, network(2), BATCHES, keys=split(limits()[1])[0])
    with pytest.raises(MatchError, match="of different models"):
        match_passes(PLAN, [*rest, other])


def test_a_checkpoint_of_other_groups_is_not_resumed(tmp_path: Path) -> None:
    one, other = split(limits()[1])[:2]
    calibrate(PLAN, A, B, BATCHES, keys=one, checkpoint=tmp_path / "m")
    with pytest.raises(MatchError, match="another --max-memory"):
        calibrate(PLAN, A, B, BATCHES, keys=other, checkpoint=tmp_path / "m")


def test_sizes_are_read_as_they_are_written() -> None:
    sizes = {"8GB": 8 * 10**9, "1.5 gib": 3 * 2**29, "500MB": 5 * 10**8, "1000": 1000, "2k": 2000, "": None}
    assert {text: parse_size(text) for text in sizes} == sizes
    for text in ("much", "8 bytes", "0GB", "-1GB"):
        with pytest.raises(UsageError, match=f"--max-memory {text}: write a number and a unit"):
            parse_size(text)


@pytest.mark.slow
def test_the_commands_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = demo_models()
    plan = plan_for(open_encoder(a), "ffn")
    plan.save(tmp_path / "plan.json")
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(3 * 16_000), 16_000)
    common = (tmp_path / "plan.json", "--a", a, "--b", b, "--audio", tmp_path / "a.wav", "--seconds", "1")
    run("match", *common, "-o", tmp_path / "one.safetensors")
    capsys.readouterr()
    run("match", *common, "--max-memory", "14MB", "-o", tmp_path / "turns.safetensors")
    said = capsys.readouterr().err
    assert "3 passes over the data" in said
    run("calibrate", *common, "--max-memory", "14MB", "-o", tmp_path / "m.safetensors")
    files = sorted(tmp_path.glob("m.*-of-3.safetensors"))
    assert len(files) == 3
    capsys.readouterr()
    run("calibrate", *common, "--max-memory", "9GB", "-o", tmp_path / "m.safetensors", code=3)
    said = capsys.readouterr().err
    assert "m.0-of-3.safetensors: exists" in said and " of memory" not in said  # before anything is computed
    moments = [word for file in files for word in ("--moments", file)]
    run("match", tmp_path / "plan.json", *moments, "-o", tmp_path / "files.safetensors")
    one, turns, from_files = (
        pg.Permutations.load(tmp_path / f"{name}.safetensors") for name in ("one", "turns", "files")
    )
    assert one == turns == from_files
    assert one.report == turns.report and one.report["groups"] == from_files.report["groups"]
