"""The whole line: two encoders and audio in, one merged encoder out. On the encoders that ship with permgraph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from permgraph.demo import demo_audio, demo_models, run_demo
from permgraph.errors import MatchError, UsageError, VerificationError
from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.matching.matchers import match
from permgraph.pipeline import PERMUTATIONS, _written, align, check_function, plan_for
from permgraph.verification.checkpoints import EditedPlan
from permgraph.verification.function_check import left_out
from permgraph.weights.encoder import Encoder, open_encoder
from permgraph.weights.ratios import group_weights, parse_weights
from tests.command import run


@pytest.fixture(scope="module")
def pair() -> tuple[Encoder, Encoder]:
    a, b = demo_models()
    return open_encoder(a), open_encoder(b)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    demo_audio(folder)
    return folder


@pytest.fixture(scope="module")
def matched(pair: tuple[Encoder, Encoder], audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plan.json and perms.safetensors, made by the command line."""
    folder = tmp_path_factory.mktemp("matched")
    plan_for(pair[0], "cnn,heads,ffn2").save(folder / "plan.json")
    run("match", folder / "plan.json", *sides(), *listen(audio), "-o", folder / "perms.safetensors")
    return folder


def sides() -> tuple[str, ...]:
    a, b = demo_models()
    return "--a", str(a), "--b", str(b)


def listen(audio: Path) -> tuple[str, ...]:
    return "--audio", str(audio), "--seconds", "2", "--clips", "12"


def test_the_demo_aligns_verifies_merges_and_draws(tmp_path: Path) -> None:
    from transformers import AutoModel

    said: list[str] = []
    out = run_demo(tmp_path / "demo", said.append)
    report = Permutations.load(out / "permutations.safetensors").report["groups"]
    assert {row["role"] for row in report.values()} == {"cnn", "heads", "heads/v", "ffn"}
    for name, row in report.items():
        assert row["correlation"] > row["identity"] + 0.05 and row["correlation"] > row["shuffled"] + 0.05, (
            name
        )
    assert any("computes what encoder_b computes" in line for line in said)
    assert (out / "graph.svg").read_text().rstrip().endswith("</svg>")
    model = AutoModel.from_pretrained(out / "merged").eval()
    with torch.no_grad():
        assert torch.isfinite(model(torch.randn(1, 8000)).last_hidden_state).all()
    card = (out / "merged" / "README.md").read_text()
    assert Plan.load(out / "plan.json").digest in card and "permgraph demo" in card


@pytest.mark.slow
def test_matching_by_weights_needs_no_audio_and_knows_the_same_weights(
    pair: tuple[Encoder, Encoder], matched: Path
) -> None:
    """As stored and as loaded into a module the weights are the same: then they have one fingerprint."""
    plan = Plan.load(matched / "plan.json")
    done = align(*pair, plan, None, matcher="weights", verify=False)
    report = done.perms.report["weights"]
    assert report["objective"] > report["in_place"] and done.perms.origin.weights_b
    assert done.perms.origin == Permutations.load(matched / "perms.safetensors").origin
    with pytest.raises(
        MatchError, match="'weights' compares weights, and moments hold none: give both models"
    ):
        match(plan, Moments({}), "weights")


@pytest.mark.slow
def test_matching_twice_gives_the_same_bytes(matched: Path, audio: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    run("match", matched / "plan.json", *sides(), *listen(audio), "--batch", 3, "-o", again)
    run(
        "match",
        matched / "plan.json",
        *sides(),
        *listen(audio),
        "--batch",
        3,
        "-o",
        tmp_path / "b.safetensors",
    )
    assert again.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    first, second = Permutations.load(matched / "perms.safetensors"), Permutations.load(again)
    assert all((first[name] == second[name]).all() for name in first)


def test_a_sweep_with_shares_per_group(matched: Path, tmp_path: Path) -> None:
    a, b = demo_models()
    files = ("--plan", matched / "plan.json", "--perms", matched / "perms.safetensors")
    run("merge", a, b, *files, "--weights", "1,0.5", "--group-weights", "ffn=0", "-o", tmp_path / "m")
    whole_a, half = (
        load_file(tmp_path / "m-1.00" / "model.safetensors"),
        load_file(tmp_path / "m-0.50" / "model.safetensors"),
    )
    of_a = load_file(a / "model.safetensors")
    ffn = [k for k in of_a if "feed_forward" in k and "output_dense.bias" not in k]
    assert ffn and all(torch.equal(whole_a[k], of_a[k]) for k in of_a if k not in ffn)
    assert all(torch.equal(whole_a[k], half[k]) and not torch.equal(half[k], of_a[k]) for k in ffn)


def test_merging_with_itself_gives_itself(audio: Path, tmp_path: Path) -> None:
    a, _ = demo_models()
    run("merge", a, a, *listen(audio), "--weights", "0.5,0.5", "-o", tmp_path / "m")
    merged, of_a = load_file(tmp_path / "m" / "model.safetensors"), load_file(a / "model.safetensors")
    assert all(torch.equal(merged[k], of_a[k]) for k in of_a)


def test_repair_gives_units_back_their_spread(matched: Path, audio: Path, tmp_path: Path) -> None:
    a, b = demo_models()
    files = ("--plan", matched / "plan.json", "--perms", matched / "perms.safetensors", "--weights", "0.5")
    run("merge", a, b, *files, "-o", tmp_path / "plain")
    run("merge", a, b, *files, "--repair", *listen(audio), "-o", tmp_path / "mended")
    plain, mended = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "mended"))
    name = "encoder.layers.0.feed_forward.intermediate_dense.weight"
    assert mended[name].float().norm() > 1.1 * plain[name].float().norm()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mended", "plain"]  # nothing left beside
    run("merge", a, b, *files, "--repair", "-o", tmp_path / "x", code=2)


def test_the_report_reads_permutations_and_merged_folders(
    matched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = demo_models()
    run(
        "merge",
        a,
        b,
        "--plan",
        matched / "plan.json",
        "--perms",
        matched / "perms.safetensors",
        "-o",
        tmp_path / "m",
    )
    capsys.readouterr()
    run("report", matched / "perms.safetensors", tmp_path / "m", "--json")
    one, other = json.loads(capsys.readouterr().out).values()
    assert one["groups"] == other["groups"] and one["selection"] == "cnn,heads,ffn2"


def test_a_plan_that_does_not_keep_the_function_writes_nothing(
    pair: tuple[Encoder, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was edited is told as such; one that inference would give, were it wrong, by what it does."""
    _, b = pair
    plan = plan_for(b, "ffn")
    assert "computes what encoder_b computes" in check_function(b, plan, random_permutations(plan)).text()
    broken = left_out(plan, 0)
    with pytest.raises(EditedPlan, match="are not those that are inferred"):
        check_function(b, broken, random_permutations(broken))
    monkeypatch.setattr("permgraph.symmetry.infer.infer", lambda *_: broken.spec)
    with pytest.raises(VerificationError, match="Nothing was written"):
        check_function(b, broken, random_permutations(broken))


def test_matching_without_audio_says_what_to_give(matched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("match", matched / "plan.json", *sides(), "-o", matched / "none.safetensors", code=3)
    assert "give calibration data with --audio" in capsys.readouterr().err
    assert not (matched / "none.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "pairs"),
    [("0.9,0.1", [(0.9, 0.1)]), ("0.75", [(0.75, 0.25)]), ("1,0.5,0", [(1, 0), (0.5, 0.5), (0, 1)])],
)
def test_weights_are_a_pair_or_a_sweep(text: str, pairs: list[tuple[float, float]]) -> None:
    assert parse_weights(text) == [pytest.approx(pair) for pair in pairs]


@pytest.mark.parametrize("text", ["", "a", "2", "0.5,-1"])
def test_wrong_weights_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--weights"):
        parse_weights(text)


def test_wrong_group_weights_are_refused(matched: Path) -> None:
    plan = Plan.load(matched / "plan.json")
    for text in ("ffn", "ffn=x", "ffn=2", "=1"):
        with pytest.raises(UsageError, match="--group-weights"):
            group_weights(plan, [text])


def test_permutations_are_refused_for_other_weights_and_other_plans(
    matched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = demo_models()
    plan, perms = matched / "plan.json", matched / "perms.safetensors"
    origin = Permutations.load(perms).origin
    assert origin.plan == Plan.load(plan).digest and origin.weights_a != origin.weights_b and origin.weights_a
    run("apply", plan, perms, b, "-o", tmp_path / "b")
    run("apply", plan, perms, a, "-o", tmp_path / "a", code=3)
    said = capsys.readouterr().err
    assert "matched on other weights as B" in said and "--other-weights" in said
    assert origin.weights_a[:12] in said and origin.weights_b[:12] in said
    run("apply", plan, perms, a, "-o", tmp_path / "a", "--other-weights")
    files = ("--plan", plan, "--perms", perms)
    for pair, whose in (((b, b), "A"), ((a, a), "B")):
        run("merge", *pair, *files, "-o", tmp_path / "m", code=3)
        assert f"matched on other weights as {whose}" in capsys.readouterr().err
    run("merge", b, a, *files, "-o", tmp_path / "m", "--other-weights")
    other = tmp_path / "other.json"
    plan_for(open_encoder(a), "ffn").save(other)
    for verb in (("apply", other, perms, b), ("merge", a, b, "--plan", other, "--perms", perms)):
        run(*verb, "-o", tmp_path / "x", code=3)
        said = capsys.readouterr().err
        assert origin.plan[:12] in said and Plan.load(other).digest[:12] in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "m", "other.json"]


def test_a_merged_folder_with_permutations_of_another_run_is_not_reported(
    matched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = demo_models()
    files = ("--plan", matched / "plan.json", "--perms", matched / "perms.safetensors")
    run("merge", a, b, *files, "-o", tmp_path / "m")
    run("report", tmp_path / "m")
    mine = Permutations.load(tmp_path / "m" / PERMUTATIONS)
    other = random_permutations(Plan.load(matched / "plan.json"), 5)
    other.save(tmp_path / "m" / PERMUTATIONS)
    run("report", tmp_path / "m", code=3)
    said = capsys.readouterr().err
    assert mine.digest[:12] in said and other.digest[:12] in said


def test_the_models_of_a_sweep_have_names_of_their_own() -> None:
    numbers = [0.9, 0.901, 0.902, 0.903, 1 / 3, 0.0, 1.0]
    names = [_written(n) for n in numbers]
    assert len(set(names)) == len(numbers) and names[:2] == ["0.90", "0.901"]
    with pytest.raises(UsageError, match=r"--weights 0\.9,0\.5,0\.9: 0\.9 is given twice"):
        parse_weights("0.9,0.5,0.9")
