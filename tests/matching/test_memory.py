"""The memory of a calibration: estimated before it starts, refused where it cannot fit, printed, near to what it takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.errors import MatchError
from permgraph.matching import memory
from permgraph.matching.memory import Memory, available, needed, size
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder
from tests.test_cli import run


def network(width: int = 48, heads: int = 3) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(24, heads, width, batch_first=True).eval(), torch.randn(1, 7, 24)


def bytes_of(moments: pg.Moments) -> int:
    arrays = [
        x
        for p in moments.probes.values()
        for x in (p.product, *(y for s in (p.a, p.b) for y in (s.shift, s.sum, s.square)))
    ]
    return sum(x.nbytes for x in arrays)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("width, heads", [(48, 3), (200, 2), (5, 4)])
def test_the_moments_take_what_was_estimated(width: int, heads: int) -> None:
    model, x = network(width, heads)
    trace = pg.trace(model, (x,))
    for groups in ("ffn", "heads,heads.*/v", "all"):
        plan = pg.plan(pg.infer(trace), groups)
        moments = pg.calibrate(plan, model, network(width, heads)[0], [torch.randn(2, 9, 24)])
        assert needed(plan, 0, trace).moments == bytes_of(moments) > 0


def test_activations_grow_with_the_batch() -> None:
    model, x = network()
    trace = pg.trace(model, (x,))
    plan = pg.plan(pg.infer(trace))
    one, four = (needed(plan, 0, trace, n * x.numel()).activations for n in (1, 4))
    assert one and four == 4 * one
    assert needed(plan, 10, trace).models == 40 and needed(plan, 0, trace).activations is None
    assert needed(plan, 0, trace, checkpoint=True).moments > needed(plan, 0, trace).moments


def test_what_does_not_fit_is_refused_and_what_may_not_is_told() -> None:
    refused = Memory(models=10**9, moments=2 * 10**9, activations=None, largest="ffn.0", available=10**9)
    with pytest.raises(MatchError, match=r"about 3.0 GB of memory .*1.0 GB are available.*those of ffn\.0"):
        refused.tell(print)
    tight = Memory(10**6, 10**6, 10**9, "ffn.0", 10**8)
    said: list[str] = []
    tight.tell(said.append)
    assert said[1] == (
        "Warning: calibration may need more than is available. A smaller --batch, or --max-memory, needs less."
    )
    assert tight.scarce and not Memory(1, 1, 1, "ffn.0", None).scarce
    assert (
        "activations of a batch 1.0 GB" in tight.text()
        and "available" not in Memory(1, 1, 1, "", None).text()
    )
    assert [size(n) for n in (1, 1_499_999, 999_400_000, 999_600_000)] == ["1 MB", "1 MB", "999 MB", "1.0 GB"]


def test_what_comes_after_the_calibration_counts_where_it_needs_more() -> None:
    """One stage comes after the other, so the largest counts; its own remedy is named."""
    calibration = Memory(10**9, 10**9, 10**9, "ffn.0", 5 * 10**9)
    for later, told, remedy in (
        ({"check": 6 * 10**9}, ", the function check 6.0 GB;", "--no-check leaves the function check out."),
        ({"repair": 6 * 10**9}, ", --repair 6.0 GB;", "A smaller --batch, or no --repair, needs less."),
    ):
        said: list[str] = []
        memory = replace(calibration, **later)
        memory.tell(said.append)
        assert calibration.total == 3 * 10**9 and memory.total == 6 * 10**9 and memory.scarce
        assert told in said[0] and said[1].startswith("Warning: ") and said[1].endswith(remedy)
        assert said[1].split("Warning: ")[1].split(" may")[0] == told[2:].rsplit(" ", 2)[0]
    alone = Memory(0, 0, None, "", None, check=10**9)
    assert alone.text() == "The function check needs about 1.0 GB of memory."


def test_what_is_available_is_the_least_of_machine_container_and_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = available()
    assert here is not None and 2**20 < here < 2**50
    (tmp_path / "meminfo").write_text(
        "MemTotal: 9 kB\nMemAvailable: 4000 kB\nSwapFree: 96 kB\n", encoding="ascii"
    )
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    assert available() == 4096 * 1024
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max", encoding="ascii")
    assert available() == 4096 * 1024
    (tmp_path / "memory.max").write_text("3000000", encoding="ascii")
    (tmp_path / "memory.current").write_text("1500000", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 500000\n", encoding="ascii")
    assert available() == 2_000_000
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    (tmp_path / "memory.max").unlink()
    assert math.isfinite(available() or 0)


@pytest.mark.slow
def test_the_command_tells_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wav: Path
) -> None:
    a, b = demo_models()
    plan = plan_for(open_encoder(a))
    plan.save(tmp_path / "plan.json")
    command = ("match", tmp_path / "plan.json", "--a", a, "--b", b, "--audio", wav, "--seconds", "1")
    said = run(*command, "-o", tmp_path / "p.safetensors", "--json")
    assert said.code == 0, said.err
    told: dict[str, Any] = json.loads(said.out)["memory"]
    calibration = told["models"] + told["moments"] + told["waiting"] + told["activations"]
    assert told["total"] == max(calibration, told["check"]) and told["repair"] == 0
    weights = sum(p.numel() for p in open_encoder(a).source.module.parameters())
    assert told["check"] >= 4 * weights + 8 * weights + told["moments"]
    assert said.err.startswith("Calibration needs about ") and ", the function check " in said.err
    merge = ("merge", a, b, "--audio", wav, "--seconds", "1", "--repair")
    said = run(*merge, "-o", tmp_path / "m", "--json")
    assert said.code == 0 and ", --repair " in said.err
    assert json.loads(said.out)["memory"]["repair"] >= 3 * 4 * weights
    files = ("--plan", tmp_path / "plan.json", "--perms", tmp_path / "p.safetensors")
    said = run(*merge, *files, "--no-check", "-o", tmp_path / "n")
    assert said.code == 0 and said.err.startswith("--repair needs about "), said.err
    said = run("merge", a, b, *files, "--other-weights", "-o", tmp_path / "o")
    assert said.code == 0 and said.err.startswith("The function check needs about "), said.err
    said = run("merge", a, b, *files, "-o", tmp_path / "q")  # checked when it was matched: no model is built
    assert said.code == 0 and " of memory" not in said.err

    def observed(*args: Any) -> None:
        raise AssertionError("a batch is run")

    monkeypatch.setattr("permgraph.matching.calibration.Observers.observe", observed)
    monkeypatch.setattr(memory, "available", lambda: 10**5)
    said = run(*command, "-o", tmp_path / "q.safetensors")
    assert (
        said.code == 3
        and "Let the groups take turns with --max-memory" in said.err
        and "a batch is run" not in said.err
    )


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    import numpy as np
    import soundfile

    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 16_000)
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    return tmp_path / "a.wav"
