"""`merge --method`: the command line and `pg.merge` give the same, the record holds it, and replay makes it again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import permgraph as pg
from permgraph import Permutations, Plan
from permgraph.weights.methods import METHODS, parse_parameters
from tests.faults.conftest import pair, place  # noqa: F401  (fixtures)
from tests.faults.kit import bad, good, tree

BEFORE = ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "first")
AGAIN = ("replay", "first", "--a", "A", "--b", "B", "-o", "again")
STANDS_IN = ("slerp", "task_arithmetic", "dare_linear")
State = Mapping[str, torch.Tensor]


def merge_state_dicts(
    models: Mapping[str, State], method: str, *, parameters: Mapping[str, Any], base: str
) -> dict[str, torch.Tensor]:
    """Written after the papers: task arithmetic, dropping differences by chance (DARE), and a straight line for an arc."""
    found = {}
    for key, origin in models[base].items():
        a, b = models["a"][key], models["b"][key]
        if base == "a":
            found[key] = a + (b - a) * parameters["t"]
            continue
        keep = torch.rand(a.shape) < parameters.get("density", 1.0)
        weight = parameters["weight"]
        found[key] = origin + keep * (weight["a"] * (a - origin) + weight["b"] * (b - origin))
    return found


@pytest.fixture(params=["mergekit", "its place taken"], autouse=True)
def kits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The real package where it is installed, and always a small one in its place: ours is what goes in and comes out."""
    if request.param == "mergekit":
        pytest.importorskip("mergekit.merge_methods", reason="the extra mergekit is not installed")
    else:
        package, methods = ModuleType("mergekit"), ModuleType("mergekit.merge_methods")
        package.merge_methods = methods  # type: ignore[attr-defined]
        methods.merge_state_dicts = merge_state_dicts  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mergekit", package)
        monkeypatch.setitem(sys.modules, "mergekit.merge_methods", methods)
        monkeypatch.setattr("permgraph.weights.merge_files.mergekit_version", lambda: "stand-in")
    return str(request.param)


@pytest.fixture
def base(place: Path) -> Path:  # noqa: F811
    """The network that both come from: here, one whose weights are half of A's."""
    shutil.copytree("A", "base")
    state = {
        key: tensor / 2 if tensor.is_floating_point() else tensor
        for key, tensor in load_file("base/model.safetensors").items()
    }
    save_file(state, "base/model.safetensors", {"format": "pt"})
    return Path("base")


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder, "model.safetensors"))


def aligned_b() -> dict[str, torch.Tensor]:
    return pg.apply(Plan.load("plan.json"), Permutations.load("perms.safetensors"), weights("B"))


def same(found: State, wanted: State) -> None:
    assert sorted(found) == sorted(wanted)
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.extra])
def test_files_and_state_dicts_give_the_same(place: Path, base: Path, kits: str, method: str) -> None:  # noqa: F811
    if kits != "mergekit" and method not in STANDS_IN:
        pytest.skip("the package in its place has no such method")
    needs = METHODS[method].base
    given = ("--base", str(base), "--parameter", "density=0.5") if needs else ()
    good(*BEFORE, "--weights", "0.7,0.3", "--method", method, *given, "--seed", "4")
    how: dict[str, Any] = {"base": weights(base), "parameters": {"density": 0.5}} if needs else {}
    how |= {"method": method, "seed": 4, "parametrized": "direction"}
    same(weights("first"), pg.merge(weights("A"), aligned_b(), (0.7, 0.3), **how))
    plain = pg.merge(weights("A"), weights("B"), (0.7, 0.3), **how)  # not what is not aligned
    assert any(not torch.equal(plain[key], tensor) for key, tensor in weights("first").items())
    good(*AGAIN, *given[:2])
    assert tree(place / "first") == tree(place / "again")
    told = json.loads(Path("first/permgraph.json").read_text())["merging"]["method"]
    assert (told["name"], told["seed"], bool(told["base"])) == (method, 4, needs)
    assert told["parameters"] == ({"density": 0.5} if needs else {})
    assert f"merged by {method}" in Path("first/README.md").read_text()


def test_task_arithmetic_is_what_it_says(place: Path, base: Path) -> None:  # noqa: F811
    """base + 0.6 (A - base) + 0.4 (B - base), which is the average where both weights add up to 1."""
    good(*BEFORE, "--weights", "0.6,0.4", "--method", "task_arithmetic", "--base", base)
    same(weights("first"), pg.merge(weights("A"), aligned_b(), (0.6, 0.4), parametrized="direction"))


def test_parts_of_computed_weights_are_averaged(place: Path, base: Path) -> None:  # noqa: F811
    good(*BEFORE, "--method", "task_arithmetic", "--base", base, "--parameter", "lambda=0.5")
    average = pg.merge(weights("A"), aligned_b(), parametrized="direction")
    parts = [key for key in average if "original0" in key or key.endswith(("weight_g", "weight_v"))]
    assert parts
    same({k: weights("first")[k] for k in parts}, {k: average[k] for k in parts})


def test_another_base_is_refused_by_replay(place: Path, base: Path) -> None:  # noqa: F811
    good(*BEFORE, "--method", "ties", "--base", base)
    assert "first: was merged by ties: give its base network with --base" in bad(*AGAIN)
    assert "A: not the base of that merge (fingerprint" in bad(*AGAIN, "--base", "A")
    assert not Path("again").exists()
    good(*BEFORE, "--force")
    assert "was merged by the average, which takes no base" in bad(*AGAIN, "--base", base)


def test_what_cannot_be_is_told_before_anything_is_read(place: Path, base: Path) -> None:  # noqa: F811
    said = {
        "--method tise": "no merge method 'tise'. Did you mean ties",
        "--method ties": "method 'ties' merges differences from a base network, in A's order",
        "--method slerp --base base": "method 'slerp' takes no base",
        "--base base": "method 'average' takes neither base nor parameters",
        "--parameter density=0.5": "method 'average' takes neither base nor parameters",
        "--method ties --base bose": "bose: no such file or folder",
        "--method ties --base base --parameter density": "--parameter density: write NAME=VALUE",
        "--method ties --base base --parameter density=nan": "'ties': nan is not a finite number",
        "--method slerp --parameter t=0.2": "parameter 't' of method 'slerp' is what weights=… (--weights) says",
        "--method slerp --group-weights ffn=0.5": "--method slerp: --group-weights are of the average",
    }
    for words, text in said.items():
        assert text in bad(*BEFORE, *words.split(), code=3 if "bose" in words else 2), words
        assert not Path("first").exists()
    several = ("merge", "A", "B", "C", "--matcher", "weights", "-o", "first", "--method", "slerp")
    assert "--method slerp: of more than two models it is not to be had" in bad(*several, code=2)


def test_a_base_that_lacks_a_tensor_is_refused(place: Path, base: Path) -> None:  # noqa: F811
    state = weights(base)
    del state[min(key for key in state if key.endswith("out_proj.weight"))]
    save_file(state, base / "model.safetensors", {"format": "pt"})
    assert "out_proj.weight" in bad(*BEFORE, "--method", "ties", "--base", base)
    assert not Path("first").exists()


def test_tensors_of_zeros_are_merged(kits: str) -> None:
    """A bias that was never trained: slerp has no angle there."""
    a, b = ({"w": torch.full((3, 2), x), "b": torch.zeros(3)} for x in (1.0, 2.0))
    found = pg.merge(a, b, (0.5, 0.5), method="slerp")
    assert torch.equal(found["b"], torch.zeros(3)) and torch.isfinite(found["w"]).all()


def test_values_are_read_as_numbers_and_words() -> None:
    found = parse_parameters(["density=0.5", "k = 3", "normalize=False", "way=sum"])
    assert found == {"density": 0.5, "k": 3, "normalize": False, "way": "sum"}
