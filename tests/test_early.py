"""What can be told at once is told before any model is built; what was expensive is kept when a later step fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from permgraph.atomic_write import refuse_output
from permgraph.demo import demo_models
from permgraph.errors import FileError, MatchError, VerificationError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.pipeline import plan_for
from permgraph.weights.encoder import open_encoder
from tests.test_cli import Said, run

RATE = 16_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models A and B, a plan, permutations of another plan, audio of which a part is silent, short or broken."""
    folder = tmp_path_factory.mktemp("early")
    for name, source in zip("AB", demo_models(), strict=True):
        (folder / name).symlink_to(source)
    a = open_encoder(demo_models()[0])
    plan_for(a).save(folder / "plan.json")
    ffn = plan_for(a, "ffn")
    random_permutations(ffn).save(folder / "other.safetensors")
    rng = np.random.default_rng(0)
    for name, data in {
        "good/0.wav": 0.1 * rng.standard_normal(8 * RATE),
        "good/1.wav": 0.1 * rng.standard_normal(8 * RATE),
        "short/0.wav": 0.1 * rng.standard_normal(RATE // 2),
        "silent/0.wav": np.zeros(4 * RATE),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, data, RATE)
    (folder / "list.csv").write_text("path,split\ngood/0.wav,train\n", encoding="utf-8")
    (folder / "mine.txt").write_text("not of permgraph", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("not of permgraph", encoding="utf-8")
    return folder


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


MATCH = "match plan.json --a A --b B"


def test_the_spy_sees_a_model_that_is_built(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model is built")

    monkeypatch.setattr("permgraph.weights.encoder.open_encoder", built)
    said = run(*f"{MATCH} --audio good".split())
    assert said.code == 1 and "a model is built" in said.err and "Please report it" in said.err


def test_apply_refuses_its_output_before_the_function_check(
    there: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def checked(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the function is checked")

    monkeypatch.setattr("permgraph.verification.checkpoints.check_checkpoint", checked)
    plan = Plan.load("plan.json")
    random_permutations(plan).save(tmp_path / "p.safetensors")
    for out, message in (("full", "exists"), ("no/m", "Make it first"), ("A", "the same")):
        said = run("apply", "plan.json", tmp_path / "p.safetensors", "A", "-o", out)
        assert said.code == 3 and message in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="cannot be written to"):
        refuse_output(tmp_path / "x", folder=False)


# -- kept ------------------------------------------------------------------------------------------------

LISTEN = ("--audio", "good", "--seconds", "2")


def matched(*more: object) -> Said:
    return run("match", "plan.json", "--a", "A", "--b", "B", *LISTEN, *more)


def test_moments_are_kept_when_matching_fails_and_go_on_as_a_checkpoint(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.safetensors"
    assert matched("-o", whole).code == 0
    kept = tmp_path / "p.kept-moments.safetensors"
    with monkeypatch.context() as patch:

        def fails(*args: Any) -> None:
            raise MatchError("scores that are not finite.")

        patch.setattr("permgraph.matching.matchers.measure_probes", fails)
        said = matched("-o", tmp_path / "p.safetensors")
    assert said.code == 3 and f"kept in {kept}" in said.err
    assert Moments.load(kept).origin.plan == Plan.load("plan.json").digest
    with monkeypatch.context() as patch:

        def observed(*args: Any) -> None:
            raise AssertionError("a batch is run again")

        patch.setattr("permgraph.matching.calibration.Observers.observe", observed)
        assert matched("-o", tmp_path / "p.safetensors", "--checkpoint", kept).code == 0
    assert (tmp_path / "p.safetensors").read_bytes() == whole.read_bytes()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("error", [VerificationError("it changes."), KeyboardInterrupt(), RuntimeError("x")])
def test_a_merge_that_fails_keeps_its_plan_and_permutations(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "merged"
    with monkeypatch.context() as patch:

        def fails(*args: Any) -> None:
            raise error

        patch.setattr("permgraph.pipeline.check_function", fails)
        said = run("merge", "A", "B", *LISTEN, "-o", out)
    assert said.code == {"VerificationError": 4, "KeyboardInterrupt": 5}.get(type(error).__name__, 1)
    plan, perms = (tmp_path / f"merged.kept-{name}" for name in ("plan.json", "perms.safetensors"))
    assert f"kept in {plan}" in said.err and f"kept in {perms}" in said.err and not out.exists()
    again = run("merge", "A", "B", "--plan", plan, "--perms", perms, "-o", out)
    assert again.code == 0, again.err
    assert Permutations.load(out / "permutations.safetensors").digest == Permutations.load(perms).digest


@pytest.mark.slow
def test_permutations_are_kept_when_the_merge_cannot_be_written(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "merged")

    monkeypatch.setattr("permgraph.weights.merge_files.merge_checkpoints", fails)
    said = run("merge", "A", "B", *LISTEN, "-o", tmp_path / "m", "--json")
    assert said.code == 3 and "merged: No space left on device." in said.err and not said.out
    assert Permutations.load(tmp_path / "m.kept-perms.safetensors").report["groups"]
    assert Plan.load(tmp_path / "m.kept-plan.json").selection == "cnn,heads,ffn2"


@pytest.mark.slow
def test_nothing_is_kept_of_a_run_that_succeeds(there: Path, tmp_path: Path) -> None:
    said = run("merge", "A", "B", *LISTEN, "-o", tmp_path / "m", "--json")
    assert said.code == 0 and json.loads(said.out)["written"] == [str(tmp_path / "m")]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# -- what calibration says -------------------------------------------------------------------------------


def test_the_card_states_what_was_used_and_not_what_was_named(there: Path, tmp_path: Path) -> None:
    named = ("--audio", "good", "--audio", "silent", "--audio", "short")
    options = ("--seconds", "2", "--max-bad", "0.5", "-o", tmp_path / "m")
    refused = run("merge", "A", "B", *named, *options)
    assert refused.code == 3 and "gives nothing to calibrate on" in refused.err
    assert not list(tmp_path.iterdir())
    said = run("merge", "A", "B", *named, *options, "--allow-empty")
    assert said.code == 0, said.err
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    for line in (
        "good: 2 files, 8 clips, 16 s",
        "silent: 1 files, 0 clips, 0 s; dropped: 2 silent clips",
        "short: 1 files, 0 clips, 0 s; dropped: 1 files too short",
    ):
        assert line in card and line in said.err
    report = Permutations.load(tmp_path / "m" / "permutations.safetensors").report
    assert report["calibration"]["sources"]["good"]["clips"] == 8


def test_progress_has_a_total_from_the_beginning(there: Path, tmp_path: Path) -> None:
    from contextlib import contextmanager

    from permgraph.calibration import Calibration
    from permgraph.pipeline import align

    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def bar(title: str) -> Any:
        yield lambda done, total: told.setdefault(title, []).append((done, total))

    a, b = (open_encoder(folder) for folder in demo_models())
    align(a, b, Plan.load("plan.json"), Calibration(("good",), seconds=2.0), bar=bar)
    assert told["reading headers"] == [(0, 2), (1, 2), *((done, 8) for done in range(8))]
    assert told["calibrating"] == [(0, 8), (4, 8), (8, 8)]
    assert all(steps[0][0] == 0 and steps[0][1] > 0 for steps in told.values())
