"""`apply` and `merge` check before they write, and the result says what became of the check."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import permgraph as pg
from permgraph.demo import demo_models
from permgraph.pipeline import plan_for
from permgraph.verification.function_check import left_out
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.encoder import open_encoder
from tests.command import run

A, B = demo_models()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plan.json with perms.safetensors; broken.json, which forgot a step, with its own permutations."""
    folder = tmp_path_factory.mktemp("plans")
    plan = plan_for(open_encoder(B), "ffn")
    for name, each in (("plan", plan), ("broken", left_out(plan, 0))):
        each.save(folder / f"{name}.json")
        pg.random_permutations(each, seed=0).save(folder / f"{name}.safetensors")
    return folder


def became(path: Path) -> dict[str, object]:
    record = open_checkpoint(path).record
    assert record is not None and record.function_check is not None
    return record.function_check


def commands(files: Path, name: str, out: Path) -> list[tuple[object, ...]]:
    plan, perms = files / f"{name}.json", files / f"{name}.safetensors"
    return [
        ("apply", plan, perms, B, "-o", out / "applied"),
        ("merge", A, B, "--plan", plan, "--perms", perms, "-o", out / "merged"),
    ]


def test_what_was_measured_is_recorded(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(files, "plan", tmp_path):
        run(*command)
        assert f"the permuted {B.name} computes what {B.name} computes" in capsys.readouterr().err
        found = became(command[-1])  # type: ignore[arg-type]
        assert found["checked"] is True and found["change"] < 1e-9 and found["noise"] == 1.0  # type: ignore[operator]


def test_a_plan_that_changes_the_function_writes_nothing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(files, "broken", tmp_path):
        run(*command, code=3)
        assert "it was edited, or made by another version" in capsys.readouterr().err
    # were the inference itself at fault, there would be no difference to see
    spec = pg.Plan.load(files / "broken.json").spec
    monkeypatch.setattr("permgraph.symmetry.infer.infer", lambda *_: spec)
    for command in commands(files, "broken", tmp_path):
        run(*command, code=4)
        said = capsys.readouterr().err
        assert "Nothing was written" in said and "moves too, which the plan forgot" in said
    assert not list(tmp_path.iterdir())


def test_a_check_that_was_skipped_is_recorded_as_skipped(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(files, "broken", tmp_path):
        run(*command, "--no-check")
        assert "not checked: skipped on request" in capsys.readouterr().err
        assert became(command[-1]) == {"checked": False, "why": "skipped on request (--no-check)"}  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["", "net.py:factory"])
def test_without_the_model_it_says_not_checked_and_why(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan and a file of weights are all there is: no code is run to find out more."""
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (torch.randn(2, 4),)
    from permgraph.frontend.capture import capture

    plan = pg.plan(pg.infer(capture(net, x, name=model or None)))
    plan.save(tmp_path / "plan.json")
    pg.random_permutations(plan, seed=0).save(tmp_path / "perms.safetensors")
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    out = tmp_path / "out.safetensors"
    run(
        "apply",
        tmp_path / "plan.json",
        tmp_path / "perms.safetensors",
        tmp_path / "net.safetensors",
        "-o",
        out,
    )
    said = capsys.readouterr().err
    why = f"permgraph verify {model}" if model else "its model cannot be built or run"
    assert "not checked: " in said and why in said
    assert became(out)["checked"] is False and why in str(became(out)["why"])


def test_other_modes_are_not_checked_because_they_keep_nothing(files: Path, tmp_path: Path) -> None:
    plan = plan_for(open_encoder(B), "ffn", mode="one-sided")
    plan.save(tmp_path / "plan.json")
    pg.random_permutations(plan, seed=0).save(tmp_path / "perms.safetensors")
    run("apply", tmp_path / "plan.json", tmp_path / "perms.safetensors", B, "-o", tmp_path / "out")
    assert "one-sided does not keep the function" in str(became(tmp_path / "out")["why"])
