"""Several models into one: from the command line to files, made again from the record, refused where it makes no sense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, PlanError, UsageError
from permgraph.weights.record import read_record
from tests.faults.conftest import pair  # noqa: F401  (a fixture)
from tests.faults.kit import bad, encoder, good, tree

MODELS = ("A", "B", "C")
AUDIO = ("--audio", "audio", "--seconds", "0.3")


@pytest.fixture(scope="module")
def several(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A, B, C and what was merged from them, by weights."""
    folder = tmp_path_factory.mktemp("several") / "place"
    shutil.copytree(pair, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        encoder("C", 2)
        good(
            "merge",
            *MODELS,
            "--matcher",
            "weights",
            "--align",
            "universe",
            "--weights",
            "0.5,0.3,0.2",
            "-o",
            "all",
        )
    return folder


@pytest.fixture
def place(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    shutil.copytree(several, folder)
    monkeypatch.chdir(folder)
    return folder


def states(*names: str) -> list[dict[str, Tensor]]:
    return [load_file(Path(name, "model.safetensors")) for name in names]


def test_the_result_is_the_average_of_all_permuted(place: Path) -> None:
    plan = pg.Plan.load("all/plan.json")
    perms = [pg.Permutations.load(f"all/permutations{end}.safetensors") for end in ("", "-c")]
    a, b, c = states(*MODELS)
    moved = [a, pg.apply(plan, perms[0], b), pg.apply(plan, perms[1], c)]
    expected = pg.merge_many(moved, (0.5, 0.3, 0.2), parametrized="direction")
    (found,) = states("all")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    at_hand = {k: 0.5 * moved[0][k] + 0.3 * moved[1][k] + 0.2 * moved[2][k] for k in found}
    plain = [k for k in found if "parametrizations" not in k]
    assert all(torch.allclose(found[k], at_hand[k], atol=1e-6) for k in plain)


def test_record_and_card_name_every_model(place: Path) -> None:
    record = read_record(Path("all/permgraph.json").read_text(), "all")
    assert record.weights == (0.5, 0.3, 0.2)
    assert len(record.others) == 1 and record.merged_in == (record.b, *record.others)
    assert record.merging is not None and len(set(record.merging.inputs)) == 3
    checks = (record.function_check or {})["models"]
    assert [row["checked"] for row in checks] == [True, True]
    card = Path("all/README.md").read_text()
    assert "# 0.5 · A + 0.3 · aligned B + 0.2 · aligned C" in card
    assert (
        "the permuted B computes what B computes" in card
        and "the permuted C computes what C computes" in card
    )
    assert "matched by all pairs at once" in card
    said = good("report", "all").out
    assert "all, B: " in said and "all, C: " in said


def test_a_merge_of_two_has_the_record_it_had(place: Path) -> None:
    """No field of several models is in it, and one that lacks it is read."""
    text = Path("merged/permgraph.json").read_text()
    assert "others" not in json.loads(text)
    record = read_record(text, "merged")
    assert record.others == () and record.text() == text


def test_it_is_made_again_byte_for_byte(place: Path) -> None:
    good("replay", "all", "--a", "A", "--b", "B", "--b", "C", "-o", "again", "--statement", "s.json")
    assert tree(place / "all") == tree(place / "again")
    assert pg.replay("all", "A", ["B", "C"], "third") == Path("third")
    assert json.loads(Path("s.json").read_text())["predicate"]["others"]


DIFFERENCES: dict[str, tuple[tuple[str, ...], str]] = {
    "one is missing": (("--b", "B"), "was merged from 3 models, and 2 are given"),
    "other order": (("--b", "C", "--b", "B"), "as B (fingerprint"),
    "another C": (("--b", "B", "--b", "A"), "as C (fingerprint"),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_other_models_are_not_what_was_merged(place: Path, what: str) -> None:
    others, words = DIFFERENCES[what]
    assert words in bad("replay", "all", "--a", "A", *others, "-o", "again")
    assert not Path("again").exists()


def test_other_permutations_of_c_are_found(place: Path) -> None:
    plan = pg.Plan.load("all/plan.json")
    pg.random_permutations(plan, 5).save("all/permutations-c.safetensors")
    assert "permutations-c.safetensors: not the permutations that all" in bad("report", "all")
    assert "not the permutations that all" in bad(
        "replay", "all", "--a", "A", "--b", "B", "--b", "C", "-o", "again"
    )
    with pytest.raises(PlanError):
        pg.report("all")


def test_what_was_merged_is_not_merged_in_again(place: Path) -> None:
    plan, perms = "all/plan.json", "all/permutations-c.safetensors"
    assert "was merged with this plan and these permutations already" in bad(
        "merge", "all", "C", "--plan", plan, "--perms", perms, "--other-weights", "-o", "twice"
    )


@pytest.mark.slow
def test_activations_of_all_pairs(place: Path) -> None:
    said = good("merge", *MODELS, *AUDIO, "--align", "many", "-o", "heard")
    assert "B to A:" in said.out and "C to A:" in said.out
    assert "each matched with the mean of all others, in turn" in said.out
    plan = pg.Plan.load("heard/plan.json")
    report = pg.Permutations.load("heard/permutations-c.safetensors").report
    assert report["many"]["models"] == 3 and report["many"]["first"] <= report["many"]["objective"]
    assert set(report["groups"]) == set(plan.selected)
    assert sum((0.5, 0.3, 0.2)) == pytest.approx(1)


@pytest.mark.slow
def test_each_with_the_first_has_the_permutations_of_two(place: Path) -> None:
    good("merge", *MODELS, *AUDIO, "-o", "three")
    for other, end in (("B", ""), ("C", "-c")):
        good("merge", "A", other, *AUDIO, "-o", f"two-{other}")
        of_two = pg.Permutations.load(f"two-{other}/permutations.safetensors")
        assert pg.Permutations.load(f"three/permutations{end}.safetensors") == of_two


@pytest.mark.slow
def test_a_function_that_would_change_is_not_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the third model fails, whatever that of the second says; and what was matched is kept."""
    from permgraph.errors import VerificationError
    from permgraph.pipeline import check_function as check

    def fails(encoder: Any, *rest: Any) -> Any:
        if encoder.name == "C":
            raise VerificationError("C: the permuted weights change the output.")
        return check(encoder, *rest)

    monkeypatch.setattr("permgraph.many.check_function", fails)
    said = bad("merge", *MODELS, "--matcher", "weights", "-o", "out", code=4)
    assert "C: the permuted weights change the output." in said and "out.kept-perms-c" in said
    assert not Path("out").exists() and Path("out.kept-perms-b.safetensors").is_file()


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "too few weights": (("--weights", "0.5,0.5"), 2, "2 for 3 models. Write one for each"),
    "weights that add up to more": (("--weights", "1,1,1"), 2, "add up to 3, not to 1. Divide each by that"),
    "a negative weight": (("--weights", "1.5,-0.5,0"), 2, "1.5 is not a weight between 0 and 1"),
    "no number": (("--weights", "0.5,x,0.5"), 2, "'x' is not a number"),
    "no way": (("--align", "mean"), 2, "align 'mean': one of first, many, universe"),
    "repair": ((*AUDIO, "--repair"), 2, "--repair: of more than two models it is not to be had"),
    "permutations": (("--plan", "plan.json", "--perms", "perms.safetensors"), 2, "--perms: of more than two"),
    "weights of groups": (("--group-weights", "ffn=0.5"), 2, "--group-weights: of more than two"),
    "a mode": (("--mode", "one-sided"), 2, "--mode one-sided: of more than two models"),
    "a checkpoint": ((*AUDIO, "--checkpoint", "c"), 2, "--checkpoint: of more than two"),
    "no data": ((), 3, "--matcher correlation matches activations: give calibration data"),
    "an output that is there": (("--matcher", "weights", "-o", "A"), 3, "A"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_of_several_is_refused(place: Path, what: str) -> None:
    options, code, words = REFUSED[what]
    before = tree(place)
    out = () if "-o" in options else ("-o", "out")
    said = bad("merge", *MODELS, *options, *out, code=code)
    assert words in said and len(said.splitlines()) == 1
    assert tree(place) == before


def test_models_that_cannot_be_paired_are_refused(place: Path) -> None:
    assert "A: named twice" in bad("merge", "A", "B", "A", "--matcher", "weights", "-o", "out", code=2)
    assert "two models are one pair" in bad("merge", "A", "B", "--align", "many", *AUDIO, "-o", "out", code=2)
    assert "D: no such file or folder" in bad("merge", "A", "B", "D", "--matcher", "weights", "-o", "out")
    encoder("D", 3, intermediate_size=32)
    assert "are not one architecture" in bad("merge", "A", "B", "D", "--matcher", "weights", "-o", "out")


@pytest.mark.slow
def test_values_that_are_not_finite_are_refused(place: Path) -> None:
    state = load_file("C/model.safetensors")
    state[min(state)].view(-1)[0] = float("nan")
    save_file(state, "C/model.safetensors", {"format": "pt"})
    assert "values are NaN or inf" in bad("merge", *MODELS, "--matcher", "weights", "-o", "out")
    assert not Path("out").exists()


def net(seed: int, make: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(make(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3))


def test_averages_of_states() -> None:
    several = [net(seed).double().state_dict() for seed in range(4)]
    weights = (0.1, 0.2, 0.3, 0.4)
    found = pg.merge_many(several, weights)
    for key, tensor in found.items():
        assert torch.allclose(
            tensor, sum(w * s[key] for w, s in zip(weights, several, strict=True)), atol=1e-15
        )  # type: ignore[arg-type]
    assert all(torch.equal(t, several[2][k]) for k, t in pg.merge_many(several, (0, 0, 1, 0)).items())
    two = [net(seed).state_dict() for seed in range(2)]
    of_two = pg.merge(two[0], two[1], (0.3, 0.7))
    assert all(torch.equal(t, of_two[k]) for k, t in pg.merge_many(two, (0.3, 0.7)).items())
    equal = pg.merge_many(several)
    assert all(torch.allclose(t, sum(s[k] for s in several) / 4, atol=1e-15) for k, t in equal.items())  # type: ignore[operator]


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_weights_that_are_computed_from_parts(norm: str) -> None:
    """What the network uses is averaged, whatever the parts: held against modules that compute it."""
    make: Any = getattr(torch.nn.utils.parametrizations, norm)
    models = [net(seed, make).eval() for seed in range(3)]
    if norm == "weight_norm":
        with torch.no_grad():
            for number, model in enumerate(models):
                model[0].parametrizations.weight.original1.mul_(10.0**number)  # type: ignore[index, union-attr, operator]
    found = pg.merge_many([m.state_dict() for m in models], (0.5, 0.3, 0.2))
    result = net(9, make).eval()
    result.load_state_dict(found)
    used = [m[0].weight.detach() for m in models]  # type: ignore[index, union-attr, operator]
    wanted = 0.5 * used[0] + 0.3 * used[1] + 0.2 * used[2]
    assert torch.allclose(result[0].weight, wanted, atol=1e-5)  # type: ignore[index, union-attr]


def test_states_that_cannot_be_averaged_are_refused() -> None:
    several = [net(seed).state_dict() for seed in range(3)]
    with pytest.raises(UsageError, match="3 finite numbers are needed, one for each model"):
        pg.merge_many(several, (0.5, 0.5))
    with pytest.raises(UsageError, match="give a list of two or more state dicts"):
        pg.merge_many(several[:1])
    several[2]["0.weight"] = torch.zeros(5, 4)
    with pytest.raises(FileError, match=r"0\.weight: \(6, 4\) in A, \(5, 4\) in C"):
        pg.merge_many(several)
    del several[2]["0.weight"]
    with pytest.raises(FileError, match=r"only in A: '?0\.weight"):
        pg.merge_many(several)
    counts = [{"order": torch.tensor(x), "w": torch.ones(2)} for x in ([0, 1], [0, 1], [1, 0])]
    with pytest.raises(FileError, match=r"2 of 2 torch\.int64 values differ in A and C"):
        pg.merge_many(counts)
    masks = [{"mask": torch.tensor(x)} for x in ([0.0, -torch.inf], [0.0, -torch.inf], [-torch.inf, 0.0])]
    assert torch.equal(pg.merge_many([masks[0], masks[1], masks[0]])["mask"], masks[0]["mask"])
    with pytest.raises(FileError, match="mask: infinite bounds, and other ones in A than in C"):
        pg.merge_many(masks)
    counts[2] = {"order": torch.tensor([0, 1]), "w": torch.tensor([1.0, float("inf")])}
    with pytest.raises(FileError, match="1 of 2 values are NaN or inf in C"):
        pg.merge_many(counts)
