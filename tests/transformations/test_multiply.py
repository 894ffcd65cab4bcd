"""Values of factors: planted ones are recovered, from weights and from activations, and files keep what they were."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import pretrained
from networks.randomise import randomise
from networks.traced import network, spec, trace
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import permgraph as pg
from permgraph.errors import FileError, PlanError, UsageError
from permgraph.matching.calibration import calibrate
from permgraph.transformations.values import Multiplied
from tests.faults.conftest import pair  # noqa: F401  (a fixture)
from tests.faults.kit import bad, good, tree

State = dict[str, Tensor]


def planted(
    name: str, kinds: list[str], seed: int = 0
) -> tuple[pg.Plan, State, State, tuple[Multiplied, ...]]:
    """A, and B that computes the same with other weights."""
    found = pg.find_factors(trace(name), spec(name), kinds)
    state = {k: v.double() if v.is_floating_point() else v for k, v in network(name)[0].state_dict().items()}
    done = pg.random_factors(spec(name), found, seed)
    return pg.plan(spec(name)), state, pg.multiply(spec(name), done, state), done


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rnn_tanh", "signs"),
        ("lstm", "signs"),
        ("mlp", "scales"),
        ("glu", "scales"),
        ("hubert_layer", "rotations"),
        ("qkv_hd3", "rotations"),
    ],
)
def test_planted_values_are_recovered(name: str, kind: str) -> None:
    plan, a, b, done = planted(name, [kind])
    fitted = pg.fit_factors(plan, [one.factor for one in done], a, b)
    assert fitted.before > 0.1
    assert fitted.after < 1e-6
    back = pg.multiply(plan.spec, fitted.done, b)
    assert all(torch.allclose(back[k].double(), a[k].double(), atol=1e-6) for k in a)


def test_scales_of_a_deep_network_come_near() -> None:
    """Group after group: what one row has depends on the scales of what it reads, so planted ones are approached."""
    plan, a, b, done = planted("flatten_head", ["scales"])
    fitted = pg.fit_factors(plan, [one.factor for one in done], a, b)
    assert fitted.after < 0.01 * fitted.before


def test_planted_values_and_permutations() -> None:
    """B's units in another order and multiplied: brought back by both."""
    plan, a, b, done = planted("hubert_layer", ["rotations"])
    perms = pg.random_permutations(plan, 3)
    other = pg.unapply(plan, perms, b)  # `perms` bring its units to A's
    fitted = pg.fit_factors(plan, [one.factor for one in done], a, other, perms)
    back = pg.multiply(plan.spec, fitted.done, pg.apply(plan, perms, other))
    assert all(torch.allclose(back[k].double(), a[k].double(), atol=1e-6) for k in a)


def test_without_need_nothing_is_multiplied() -> None:
    plan, a, _, done = planted("rnn_tanh", ["signs"])
    fitted = pg.fit_factors(plan, [one.factor for one in done], a, a)
    assert all((one.values == 1).all() for one in fitted.done)


def recurrent(seed: int) -> nn.Module:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(5, 7, num_layers=2, bidirectional=True, batch_first=True)
            self.out = nn.Linear(14, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0])  # type: ignore[no-any-return]

    return randomise(Tagger(), seed)


def test_signs_are_read_off_activations() -> None:
    """Where the weights say nothing of the sign, the hidden states do: every unit of B is B's, negated by coin."""
    a, x = recurrent(0), torch.randn(4, 30, 5)
    traced = pg.trace(a, (x,))
    plan = pg.plan(pg.infer(traced))
    found = pg.find_factors(traced, plan.spec, ["signs"])
    assert all(factor.seen for factor in found)
    done = pg.random_factors(plan.spec, found, 5)
    b = recurrent(0)
    b.load_state_dict(pg.multiply(plan.spec, done, a.state_dict()))
    moments = calibrate(plan, a, b, [x])
    fitted = pg.fit_factors(plan, found, a.state_dict(), b.state_dict(), None, moments)
    for drawn, one in zip(done, fitted.done, strict=True):
        np.testing.assert_array_equal(drawn.values, one.values)


def test_rotations_are_read_off_activations() -> None:
    """Values of each head are turned; so are the activations, by which alone they are turned back."""
    module, inputs = network("hubert_layer")
    plan = pg.plan(spec("hubert_layer"), groups="heads")
    found = [
        f
        for f in pg.find_factors(trace("hubert_layer"), plan.spec, ["rotations"])
        if f.group in plan.selected
    ]
    assert found
    assert all(factor.seen for factor in found)
    done = pg.random_factors(plan.spec, found, 2)
    other = copy.deepcopy(module)
    other.load_state_dict(pg.multiply(plan.spec, done, module.state_dict()))
    batches = [tuple(torch.randn_like(x) for x in inputs) for _ in range(40)]
    moments = pg.calibrate(plan, module, other.eval(), batches)
    fitted = pg.fit_factors(plan, found, module.state_dict(), other.state_dict(), None, moments)
    assert fitted.after < 0.02
    assert fitted.before > 0.3


def test_moments_of_another_plan_are_refused() -> None:
    plan, a, b, done = planted("rnn_tanh", ["signs"])
    other = pg.plan(spec("rnn_tanh"), exclude=plan.groups[0].name) if len(plan.groups) > 1 else None
    if other is None:
        pytest.skip("one group")
    module, inputs = network("rnn_tanh")
    moments = pg.calibrate(other, module, module, [inputs])
    with pytest.raises(pg.PermgraphError, match="another plan"):
        pg.fit_factors(plan, [one.factor for one in done], a, b, None, moments)


@pytest.mark.skipif(not (pretrained.DATA / "weights").is_dir(), reason="../shared/data is not here")
def test_onset_detectors_may_be_negated() -> None:
    """Six groups of tanh units, of all layers and directions; the matching of real networks pairs many that do the opposite."""
    net = pretrained.load("onsets_brnn_1")
    traced = pg.trace(net, pretrained.example("onsets_brnn_1"))
    groups = pg.infer(traced)
    found = pg.find_factors(traced, groups)
    assert [f.kind for f in found] == ["signs"] * 6
    check = pg.verify_factors(
        net, pretrained.example("onsets_brnn_1"), groups, pg.random_factors(groups, found)
    )
    assert check.kept
    assert not check.blind


# -- the command line ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with the models A and B, plans, and permutations by weights."""
    folder = tmp_path_factory.mktemp("prepared") / "place"
    shutil.copytree(pair, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        good("plan", "A", "--groups", "heads,qk,ffn2", "-o", "p.json", "--force")
        good("plan", "A", "--groups", "heads", "--mode", "one-sided", "-o", "o.json", "--force")
        weights = ("--matcher", "weights", "-o", "w.safetensors", "--force")
        good("match", "p.json", "--a", "A", "--b", "B", *weights)
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    folder = tmp_path / "place"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder


def stored(folder: str) -> State:
    return load_file(Path(folder) / "model.safetensors")


def test_a_folder_is_multiplied_and_merged(place: Path) -> None:
    text = good("multiply", "p.json", "--a", "A", "--b", "B", "--perms", "w.safetensors", "-o", "B2").out
    assert "before" in text
    before, after = stored("B"), stored("B2")
    assert before.keys() == after.keys()
    assert all(before[k].dtype == after[k].dtype for k in before)
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all("attention" in k for k in changed)
    assert json.loads((place / "B2" / "permgraph.json").read_text())["made_by"] == "multiply"
    good("merge", "A", "B2", "--plan", "p.json", "--matcher", "weights", "-o", "mine")
    good("replay", "mine", "--a", "A", "--b", "B2", "-o", "again")
    files = [(place / folder / "model.safetensors").read_bytes() for folder in ("mine", "again")]
    assert files[0] == files[1]


def test_what_was_applied_before_is_remembered(place: Path) -> None:
    """Permutations that lie in the weights are not applied to them once more."""
    good("apply", "p.json", "w.safetensors", "B", "-o", "B1")
    good("multiply", "p.json", "--a", "A", "--b", "B1", "-o", "B2")
    assert "applied" in bad("apply", "p.json", "w.safetensors", "B2", "-o", "B3", "--other-weights")


def test_the_function_of_what_is_written_stays(place: Path) -> None:
    from transformers import AutoModel

    good("multiply", "p.json", "--a", "A", "--b", "B", "--perms", "w.safetensors", "-o", "B2")
    one, other = (AutoModel.from_pretrained(folder).double().eval() for folder in ("B", "B2"))
    x = torch.randn(1, 8000, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(one(x).last_hidden_state, other(x).last_hidden_state, atol=1e-5)


def test_factors_are_shown(place: Path) -> None:
    assert "rotations" in good("factors", "A").out
    rows = json.loads(good("factors", "A", "--json", "--kinds", "scales").out)["factors"]
    assert {row["kind"] for row in rows} == {"scales"}
    assert {-1, 1} == {e for row in rows for p in row["places"] for e in p["exponents"]}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["factors", "A", "--kinds", "sign"], UsageError, "signs, scales, rotations"),
        (["multiply", "p.json", "--a", "A", "--b", "B", "-o", "B"], FileError, "B"),
        (["multiply", "p.json", "--a", "A", "--b", "nowhere", "-o", "B2"], FileError, "nowhere"),
        (["multiply", "o.json", "--a", "A", "--b", "B", "-o", "B2"], PlanError, "mode"),
    ],
)
def test_mistakes_are_told(place: Path, words: list[str], error: type[Exception], text: str) -> None:
    before = tree(place)
    assert text in bad(*words, code=2 if error is UsageError else 3)
    assert tree(place) == before


def test_weights_that_are_not_finite_are_refused(place: Path) -> None:
    broken = stored("B")
    name = next(k for k in broken if k.endswith("v_proj.weight"))
    broken[name][0, 0] = float("nan")
    save_file(broken, place / "B" / "model.safetensors", {"format": "pt"})
    assert name in bad("multiply", "p.json", "--a", "A", "--b", "B", "-o", "B2")
    assert not (place / "B2").exists()
