"""Benchmarks: ratios to what is measured in the same run, objectives that are checked, a page from what was kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import large_models
import numpy as np
import pytest
from bench import assignments, calibration, graphs, page, start_up
from bench.graphs import _slope
from bench.measure import Cost, Row, commands_in_turn, in_turn, python, row
from oracles.memory import with_tools
from scipy.optimize import linear_sum_assignment

import permgraph as pg
from tests.command import run


def test_a_ratio_is_of_the_same_round() -> None:
    costs = {"ours": [Cost(2, 2), Cost(8, 1)], "floor": [Cost(1, 4), Cost(8, 1)]}
    found = row("job", costs, "ours", "floor", target=1.5)
    assert (found.ratio, found.low, found.high, found.wall) == (1.5, 1.0, 2.0, 0.75)


def test_jobs_and_commands_run_in_turn_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    costs, made = in_turn({name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}, 2)  # type: ignore[func-returns-value, misc]
    assert order == list("ababab") and len(costs["a"]) == 2 and made == {"a": 5, "b": 6}
    spent = commands_in_turn({"light": python("pass"), "heavy": python('x = b"x" * (900 << 20)')}, 1)
    assert spent["heavy"][0].peak > 900
    with pytest.raises(RuntimeError, match="ended with 3"):
        commands_in_turn({"fails": [sys.executable, "-c", "raise SystemExit(3)"]}, 1)


def test_warm_starts_are_measured_on_one_score_after_another() -> None:
    rows = list(assignments.warm_starts(512))
    assert [r.job for r in rows] == [f"{k}, n = 512, after a similar one" for k in assignments.NEEDED]
    assert all(r.checked == "same assignment" and r.ratio > 0 for r in rows)


@pytest.mark.parametrize("kind", assignments.KINDS)
def test_every_objective_is_checked(kind: str) -> None:
    score = assignments.KINDS[kind](np.random.default_rng(0), 60)
    best = linear_sum_assignment(score, maximize=True)[1]
    assert "same" in assignments._compared(score, pg.assign(score), best)
    worse = np.roll(best, 1)
    with pytest.raises(RuntimeError, match=r"where .* can be had"):
        assignments._compared(score, worse, best)


def test_all_ways_to_moments_agree(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(calibration.moments(1, (20,), 300))
    assert [r.beside for r in rows] == ["activations kept, numpy.corrcoef", "2C × 2C moments in float64"]
    assert all(float(r.checked.split()[-1]) < 1e-6 for r in rows)


def test_the_page_is_made_of_what_was_kept(tmp_path: Path) -> None:
    data, out = tmp_path / "b.json", tmp_path / "b.md"
    kept = Row("merge", "read, write", 2.0, 1.5, 2.5, 1.2, 0.9, 90.0, 3.0)
    page.save("weights", [kept], data)
    page.save("assignment", [Row("uniform", "scipy", 0.2, 0.1, 0.3, 0.2, 0.1, 0.0, 0.125)], data)
    page.save("weights", [kept, kept], data)
    page.write(data, out)
    text = out.read_text()
    assert text.count("| merge | read, write | **2** (1.5 to 2.5) | ≤ 3 |") == 2
    assert "≤ 0.125 (missed)" in text and text.index("## Assignment") < text.index("## Apply and merge")


def test_the_page_in_the_docs_is_that_of_the_data(tmp_path: Path) -> None:
    page.write(page.DATA, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == page.PAGE.read_text(), "run `python tools/bench page`"


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    x = np.log([1.0, 2, 4, 8])
    assert _slope(list(x), list(2.5 * x + 3)) == pytest.approx(2.5)


@pytest.mark.parametrize("verb", ["plan", "draw", "view"])
def test_a_verb_that_writes_can_be_measured_round_after_round(verb: str, files: Path) -> None:
    for _ in range(2):
        run(verb, *start_up.commands_of(files)[verb])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    start_up.prepare(folder)
    return folder


SMALL = """
import json, large_models, torch
from bench import graphs
from torch import nn

def small():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(700, 900), nn.BatchNorm1d(900), nn.ReLU(), nn.Linear(900, 800))
        return net.eval(), (torch.zeros(2, 700),)

large_models.resnet50 = small
print(json.dumps(graphs.verified("resnet50")))
"""


def test_verify_is_measured_with_its_memory() -> None:
    """In a process of its own, as the benchmark does: a peak of memory is that of all that a process did before."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL], env=with_tools(), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["size"] == 700 * 900 + 3 * 900 + 900 * 800 + 800
    seconds, memory = graphs._of_verify("resnet50", found)
    assert seconds.ratio > 0 and 1 < memory.ratio < 100 and not memory.target


def test_what_is_no_section_and_no_peer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    main: Any = __import__("bench.__main__", fromlist=["main"]).main
    for arguments, words in (
        (["speed"], "speed: no such section"),
        (["--peer", "gurobi=/x"], "gurobi: no such peer"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_llama_70b_is_planned_without_weights() -> None:
    module, args = large_models.llama_70b()
    assert all(p.is_meta for p in module.parameters())
    spec = pg.infer(pg.trace(module, args))
    assert {(g.size, g.copies) for g in spec.groups} == {(8, 1), (8, 8), (128, 8), (8192, 1), (28672, 1)}
    assert not spec.unknown_ops and not spec.frozen
