"""Methods of mergekit on an aligned pair, against what their papers say, spelt out; and the menu that lists them."""

from __future__ import annotations

import builtins
import copy
import json
from typing import Any

import pytest
import torch
from networks.traced import network, spec
from torch import Tensor

import permgraph as pg
from permgraph.errors import FileError, MatchError, UsageError
from permgraph.matching.matchers import MATCHERS
from permgraph.reporting.menu import menu, menu_text
from permgraph.weights.methods import METHODS
from tests.command import run

State = dict[str, Tensor]
HALF = (0.5, 0.5)


@pytest.fixture
def kits() -> Any:
    return pytest.importorskip("mergekit.merge_methods", reason="the extra mergekit is not installed")


def drawn(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(6, 5, generator=generator), "b": torch.randn(6, generator=generator)}


A, B, BASE = drawn(0), drawn(1), drawn(2)


def same(found: State, wanted: State) -> None:
    assert list(found) == list(wanted)
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.base])
def test_a_planted_copy_is_itself_once_it_is_aligned(kits: Any, method: str) -> None:
    state = {k: t.clone() for k, t in network("mlp")[0].state_dict().items()}
    plan = pg.plan(spec("mlp"))
    scrambled = pg.apply(plan, pg.random_permutations(plan, 1), state)
    perms = pg.match(plan, (state, scrambled), "weights")
    same(pg.merge(state, pg.apply(plan, perms, scrambled), HALF, method=method), state)
    with pytest.raises(AssertionError):  # not so before
        same(pg.merge(state, scrambled, HALF, method=method), state)


def test_slerp_is_the_arc(kits: Any) -> None:
    wanted = {}
    for key in A:
        a, b = A[key].flatten().double(), B[key].flatten().double()
        angle = torch.arccos(a @ b / (a.norm() * b.norm()))
        mixed = (torch.sin(0.7 * angle) * a + torch.sin(0.3 * angle) * b) / torch.sin(angle)
        wanted[key] = mixed.reshape(A[key].shape).float()
    same(pg.merge(A, B, (0.7, 0.3), method="slerp"), wanted)


def test_task_arithmetic_and_ties_are_those_of_their_papers(kits: Any) -> None:
    differences = {key: torch.stack([A[key] - BASE[key], B[key] - BASE[key]]) for key in A}
    share = torch.tensor([0.7, 0.3])
    arithmetic, elected = {}, {}
    for key, both in differences.items():
        weight = share.reshape(2, *[1] * A[key].ndim).expand_as(both)
        arithmetic[key] = BASE[key] + (weight * both).sum(0)
        agree = torch.sign(both) == torch.sign((weight * both).sum(0))
        elected[key] = BASE[key] + (weight * both * agree).sum(0) / (weight * agree).sum(0)
    same(pg.merge(A, B, (0.7, 0.3), method="task_arithmetic", base=BASE), arithmetic)
    whole = {"density": 1.0}
    same(pg.merge(A, B, (0.7, 0.3), method="ties", base=BASE, parameters=whole), elected)
    same(pg.merge(A, B, (0.7, 0.3), method="dare_linear", base=BASE, parameters=whole), arithmetic)
    none = {key: torch.zeros_like(tensor) for key, tensor in A.items()}
    same(pg.merge(A, B, (0.7, 0.3), method="task_arithmetic", base=none), pg.merge(A, B, (0.7, 0.3)))


def test_what_is_drawn_is_drawn_from_the_seed(kits: Any) -> None:
    state = torch.random.get_rng_state()
    one, again, other = (
        pg.merge(A, B, HALF, method="dare_ties", base=BASE, parameters={"density": 0.5}, seed=seed)
        for seed in (3, 3, 4)
    )
    same(one, again)
    assert not torch.equal(one["w"], other["w"]) and torch.equal(state, torch.random.get_rng_state())


def test_buffers_types_and_ties_stay(kits: Any) -> None:
    def half(state: State, mean: float) -> State:
        w = state["w"].half()
        more = {"n.running_mean": torch.full((3,), mean), "n.num_batches_tracked": torch.tensor(5)}
        return {"w": w, "tied": w, **more}

    found = pg.merge(half(A, 1.0), half(B, 3.0), HALF, method="slerp")
    assert found["w"].dtype == torch.float16 and found["tied"].data_ptr() == found["w"].data_ptr()
    assert found["n.running_mean"].tolist() == [2.0] * 3 and found["n.num_batches_tracked"] == 5


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.extra])
def test_every_shape_goes_through_every_method(kits: Any, method: str) -> None:
    """Also rows of one number, which della would rank, and one number alone."""
    shapes = {
        "scalar": (),
        "one": (1,),
        "bias": (6,),
        "column": (6, 1),
        "first": (6, 1, 5),
        "conv": (6, 4, 3, 3),
    }

    def state(seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    how: dict[str, Any] = {}
    if METHODS[method].base:
        how = {"base": state(2), "parameters": {"density": 0.6}}
    found = pg.merge(state(0), state(1), (0.6, 0.4), method=method, **how)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_weights_computed_from_parts_are_averaged(kits: Any) -> None:
    def state(seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        shapes = {"c.weight_g": (4, 1), "c.weight_v": (4, 3), "d.weight": (4, 3)}
        return {name: torch.randn(shape, generator=generator).abs() for name, shape in shapes.items()}

    found, average = (pg.merge(state(0), state(1), HALF, method=m) for m in ("slerp", "average"))
    assert [key for key in found if not torch.equal(found[key], average[key])] == ["d.weight"]
    parts = pg.merge(state(0), state(1), HALF, method="slerp", parametrized="parts")
    assert not torch.equal(parts["c.weight_v"], average["c.weight_v"])


def test_the_rows_are_those_of_mergekit(kits: Any) -> None:
    """And want a base where it does."""
    for name in (name for name, row in METHODS.items() if row.extra):
        method = kits.get(name)
        if METHODS[name].base:
            method.validate_inputs(["base", "a", "b"], "base")
        else:
            method.validate_inputs(["a", "b"], "a")


def test_what_a_method_lacks_is_said(kits: Any) -> None:
    with pytest.raises(
        UsageError, match=r"no merge method 'tie'. Did you mean ties, dare_ties\? There are: average, slerp"
    ):
        pg.merge(A, B, HALF, method="tie")
    with pytest.raises(
        UsageError,
        match="method 'ties' merges differences from a base network, in A's order: give it as base=",
    ):
        pg.merge(A, B, HALF, method="ties")
    with pytest.raises(UsageError, match="method 'slerp' takes no base"):
        pg.merge(A, B, HALF, method="slerp", base=BASE)
    for more in ({"base": BASE}, {"parameters": {"density": 0.5}}):
        with pytest.raises(UsageError, match="method 'average' takes neither base nor parameters"):
            pg.merge(A, B, HALF, **more)
    with pytest.raises(UsageError, match=r"method 'ties': mergekit says .*densty"):
        pg.merge(A, B, HALF, method="ties", base=BASE, parameters={"densty": 0.5})
    with pytest.raises(UsageError, match=r"weights of single tensors .* belong to 'average'"):
        pg.merge(A, B, HALF, method="slerp", tensor_weights={"w": (1, 0)})
    with pytest.raises(FileError, match="only in A"):
        pg.merge(A, {"w": B["w"]}, HALF, method="slerp")


def test_what_matched_badly_is_left_to_a() -> None:
    """A planted pair: hidden layer 0 of B is that of A in another order, hidden layer 1 is drawn anew."""
    module, inputs = network("mlp")
    plan = pg.plan(spec("mlp"))
    other = copy.deepcopy(module)
    with torch.no_grad():
        second = other.get_parameter("2.weight")
        second.copy_(torch.randn(second.shape, generator=torch.Generator().manual_seed(7)))
    other.load_state_dict(pg.apply(plan, pg.random_permutations(plan, 4), other.state_dict()))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(200, inputs[0].shape[-1], generator=generator) for _ in range(3)]
    perms = pg.match(plan, pg.calibrate(plan, module, other, batches))
    rows = perms.report["groups"]
    assert rows["ffn.0"]["correlation"] > 0.999 > 0.9 > rows["ffn.1"]["correlation"]
    found = pg.matched_weights(plan, perms, (0.4, 0.6))
    both = (rows["ffn.0"]["correlation"] + rows["ffn.1"]["correlation"]) / 2
    for key, r in (
        ("0.weight", rows["ffn.0"]["correlation"]),
        ("2.weight", both),
        ("4.weight", rows["ffn.1"]["correlation"]),
    ):
        assert found[key] == pytest.approx((1 - 0.6 * r, 0.6 * r))
    aligned = pg.apply(plan, perms, other.state_dict())
    merged = pg.merge(module.state_dict(), aligned, (0.4, 0.6), tensor_weights=found)
    torch.testing.assert_close(merged["0.weight"], module.state_dict()["0.weight"], rtol=1e-4, atol=1e-5)
    with pytest.raises(MatchError, match=r"no correlation was measured of ffn\.0"):
        pg.matched_weights(plan, pg.random_permutations(plan))


def test_without_mergekit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("mergekit"):
            raise ImportError("No module named 'mergekit'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        UsageError, match=r"needs mergekit 0.1.5 or newer: pip install 'permgraph\[mergekit\]'"
    ):
        pg.merge(A, B, HALF, method="slerp")


def test_the_menu_lists_every_row_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    run("methods")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    papers = {name: row.paper for name, row in MATCHERS.items()} | {
        name: row.paper for name, row in METHODS.items()
    }
    for name, paper in papers.items():
        assert paper.startswith("https://")
        at = next(i for i, line in enumerate(shown.splitlines()) if line.split()[:1] == [name])
        assert paper in " ".join(shown.splitlines()[at : at + 4])
    run("methods", "--json")
    assert json.loads(capsys.readouterr().out) == menu()
    assert max(map(len, menu_text(60).splitlines())) <= 62
