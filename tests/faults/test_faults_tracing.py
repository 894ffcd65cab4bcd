"""Cases 28-37: networks that are hard to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import permgraph as pg
from permgraph.axes.rules import RULES
from permgraph.errors import MatchError
from permgraph.verification.function_check import left_out
from tests.faults.kit import apply, bad, good, tree
from tests.test_cli import FACTORY

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """4 → 6 → 6 → 3; what happens in the middle is given."""

    def __init__(self, middle: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.up, self.down, self.middle = nn.Linear(4, 6), nn.Linear(6, 3), middle
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.middle(self, torch.relu(self.up(x))))


def free(net: nn.Module, x: torch.Tensor = X) -> list[int]:
    """The sizes of the groups, which keep the function."""
    spec = pg.infer(pg.trace(net, (x,)))
    assert pg.verify(net, (x,), spec) < 1e-9
    return sorted(group.size for group in spec.groups)


# 28
def test_an_op_without_a_rule_pins_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(RULES, "cdist", raising=False)
    Path("net.py").write_text(FACTORY, encoding="utf-8")
    assert "aten.cdist" in good("trace", "net.py:distances", "-o", "t.json").out
    said = bad("trace", "net.py:distances", "-o", "s.json", "--strict")
    assert "1 calls of ops without a rule" in said and "net.py:" in said


# 29
def test_a_branch_that_values_decide_is_told() -> None:
    def branch(net: Net, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 1e9 else x

    trace = pg.trace(Net(branch), (X,))
    assert any("run" in note for note in trace.notes), trace.notes


# 30
def test_another_path_at_another_length_is_refused() -> None:
    def longer(net: Net, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[1] < 5 else x.flip(-1)

    net = Net(longer)
    plan = pg.plan(pg.infer(pg.trace(net, (X[None],))))
    with pytest.raises(MatchError, match="another path at this length"):
        pg.calibrate(plan, net, Net(longer), [X[None], torch.randn(1, 8, 4)])


# 31
def test_a_split_that_mixes_channels_pins_them() -> None:
    assert free(Net(lambda net, x: x.view(-1, 3, 2).cumsum(1).flatten(1))) == [2]
    assert free(Net(lambda net, x: x.view(-1, 2, 3).softmax(-1).flatten(1))) == [2, 3]
    assert free(Net(lambda net, x: torch.cat([x[:, :2].cumsum(-1), x[:, 2:]], -1))) == [4]


# 32
def test_grouped_transposed_and_shuffled_convolutions_move_as_blocks() -> None:
    class Convolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2)
            self.three, self.four = nn.ConvTranspose2d(8, 8, 3, groups=4), nn.Conv2d(8, 8, 3, groups=8)
            self.five = nn.Conv2d(2, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.four(self.three(self.two(self.one(x)).relu()).relu()).relu()
            return self.five(F.pixel_shuffle(x, 2)).mean((2, 3))

    assert free(Convolved(), torch.randn(1, 3, 8, 8))


# 33
def test_what_is_used_twice_has_the_ties_of_both_uses() -> None:
    twice = Net(lambda net, x: net.inner(torch.relu(net.inner(x))), inner=nn.Linear(6, 6))
    assert free(twice) == [6]
    shared = Net(lambda net, x: net.inner(x), inner=nn.Linear(6, 6))
    shared.inner.weight = nn.Parameter(torch.randn(6, 6))
    shared.other = nn.Linear(6, 6)
    shared.other.weight = shared.inner.weight
    assert free(shared) == [6, 6]


# 34
def test_statistics_and_weight_norms_move_with_their_channels() -> None:
    net = Net(
        lambda net, x: net.norm(net.inner(x)),
        norm=nn.BatchNorm1d(6),
        inner=nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
    ).eval()
    plan = pg.plan(pg.infer(pg.trace(net, (X,))))
    assert free(net) == [6, 6]
    assert {"norm.running_mean", "norm.running_var", "norm.weight"} <= {s.tensor for s in plan.steps}
    assert sum("parametrizations" in s.tensor for s in plan.steps) >= 2


# 35
def test_dropout_is_off_and_what_draws_in_evaluation_is_told() -> None:
    assert not pg.trace(Net(lambda net, x: net.drop(x), drop=nn.Dropout(0.5)), (X,)).notes
    drawing = pg.trace(Net(lambda net, x: F.dropout(x, 0.5, training=True)), (X,))
    told = [*drawing.notes, *pg.infer(drawing).notes]
    assert any("random" in note for note in told), told


# 36
def test_a_wrong_inference_of_ours_writes_nothing_and_names_the_group(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pg.Plan.load("plan.json")
    number = next(i for i, s in enumerate(whole.steps) if s.tensor.endswith("intermediate_dense.bias"))
    wrong = left_out(whole, number)
    wrong.save("plan.json")
    pg.random_permutations(wrong).save("perms.safetensors")
    monkeypatch.setattr("permgraph.symmetry.infer.infer", lambda *_: wrong.spec)
    before = tree(place)
    for command in (
        apply(),
        ("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "m"),
    ):
        said = bad(*command, code=4)
        assert "Nothing was written" in said and "Moving ffn.0 alone changes the function" in said
    assert tree(place) == before


# 37
def test_the_residual_is_held_by_the_output_unless_that_may_move(place: Path) -> None:
    assert "pinned by the output" in bad("plan", "t.json", "-g", "residual", "-o", "r.json", code=2)
    good("plan", "t.json", "-g", "residual", "--free-output", "-o", "r.json")
    pg.random_permutations(pg.Plan.load("r.json")).save("r.st")
    assert "1 tensors unknown to the plan: lm_head.weight" in _with_head(place)


def _with_head(place: Path) -> str:
    from safetensors.torch import load_file, save_file

    path = place / "B" / "model.safetensors"
    save_file(load_file(path) | {"lm_head.weight": torch.ones(4, 16)}, path, metadata={"format": "pt"})
    return bad("apply", "r.json", "r.st", "B", "-o", "out")
