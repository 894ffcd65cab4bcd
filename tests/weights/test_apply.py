"""Laws of `apply`: it keeps the function, it is undone bit for bit, it composes, and a gap breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from permgraph.errors import FileError, PlanError
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Positions
from permgraph.planning.gather import Gather, apply_gathers
from permgraph.weights.apply import apply, apply_checkpoint, unapply

from .nets import NETS, Net, attention, grouped_conv, mlp, shifted


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Net:
    return NETS[request.param]()


def difference(net: Net, state: dict[str, torch.Tensor]) -> float:
    before, after = net.function(net.state), net.function(state)
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.parametrize("seed", range(4))
def test_a_permuted_network_computes_the_same_function(net: Net, seed: int) -> None:
    perms = random_permutations(net.plan, seed)
    moved = apply(net.plan, perms, net.state)
    assert any(not torch.equal(moved[k], net.state[k]) for k in net.state)
    assert difference(net, moved) < 1e-12


def test_every_selection_of_groups_keeps_the_function(net: Net) -> None:
    perms = random_permutations(net.plan, 5)
    for group in net.spec.groups:
        plan = Plan(net.spec, (group.name,))
        assert difference(net, apply(plan, perms.only(plan.selected), net.state)) < 1e-12


def test_a_plan_with_one_place_removed_changes_the_function(net: Net) -> None:
    perms = shifted(net.spec)
    assert difference(net, apply(net.plan, perms, net.state)) < 1e-12
    for gap in net.spec.places:
        spec = replace(net.spec, places=tuple(p for p in net.spec.places if p != gap))
        with pytest.raises(PlanError, match="is missing: it holds units of"):
            apply(Plan(spec, net.plan.selected), perms, net.state)
        forgotten = Plan(spec.completed(), net.plan.selected)  # nothing in it tells
        assert difference(net, apply(forgotten, perms, net.state)) > 1e-3, gap


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(3))
def test_47_unapply_undoes_apply_bit_for_bit(net: Net, dtype: torch.dtype, seed: int) -> None:
    state = {k: v.to(dtype) for k, v in net.state.items()}
    perms = random_permutations(net.plan, seed)
    back = unapply(net.plan, perms, apply(net.plan, perms, state))
    again = apply(net.plan, perms, unapply(net.plan, perms, state))
    for key, tensor in state.items():
        assert back[key].dtype == dtype
        assert torch.equal(back[key], tensor) and torch.equal(again[key], tensor)


def test_a_part_of_permutations_is_applied_and_undone_without_the_rest() -> None:
    net = attention(rep=3)
    plan = Plan(net.spec, ("heads.0/qk",))  # the order of the heads is not selected
    perms = random_permutations(net.plan, 1).only(plan.selected)
    back = unapply(plan, perms, apply(plan, perms, net.state))
    assert all(torch.equal(back[k], net.state[k]) for k in net.state)


def test_permutations_of_another_plan_are_refused_and_both_are_named(net: Net) -> None:
    plan, perms = Plan(net.spec, (net.spec.groups[0].name,)), random_permutations(net.plan, 1)
    for verb in (apply, unapply):
        with pytest.raises(PlanError, match="were made for the plan") as error:
            verb(plan, perms, net.state)
        assert net.plan.digest[:12] in str(error.value) and plan.digest[:12] in str(error.value)
    with pytest.raises(PlanError, match=r"the plan \(.*\) does not move it"):
        apply(plan, Permutations(perms.arrays), net.state)


def test_the_inverse_of_the_inverse_is_the_permutation(net: Net) -> None:
    perms = random_permutations(net.plan, 3)
    twice = perms.inverse(net.spec).inverse(net.spec)
    assert all(np.array_equal(perms[name], twice[name]) for name in perms)


def test_two_permutations_compose(net: Net) -> None:
    """Slot s of the second receives unit t of the first's result, which came from the first's unit there."""
    one, two = random_permutations(net.plan, 1), random_permutations(net.plan, 2)
    both = {}
    for group in net.spec.groups:
        array = np.empty_like(two[group.name])
        for slot in np.ndindex(array.shape):
            chain = net.spec.ancestors(group)
            middle = tuple(two[g.name][slot[: d + 1]] for d, g in enumerate(chain))
            array[slot] = one[group.name][middle][two[group.name][slot]]
        both[group.name] = array
    stepwise = apply(net.plan, two, apply(net.plan, one, net.state))
    at_once = apply(net.plan, Permutations(both), net.state)
    assert all(torch.equal(stepwise[k], at_once[k]) for k in net.state)


def test_numpy_arrays_and_torch_tensors_are_permuted_alike(net: Net) -> None:
    perms = random_permutations(net.plan, 2)
    arrays = {k: v.numpy() for k, v in net.state.items()}
    moved, tensors = apply(net.plan, perms, arrays), apply(net.plan, perms, net.state)
    assert all(np.array_equal(moved[k], tensors[k].numpy()) for k in moved)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int64])
def test_13_16_other_dtypes_are_moved_as_they_are(dtype: torch.dtype) -> None:
    net = mlp()
    perms = random_permutations(net.plan, 0)
    state = {k: v.to(dtype) for k, v in net.state.items()}
    moved = apply(net.plan, perms, state)
    wide = apply(net.plan, perms, {k: v.to(torch.complex128) for k, v in state.items()})
    for key in state:
        assert moved[key].dtype == dtype
        assert torch.equal(moved[key].to(torch.complex128), wide[key])


def test_the_input_is_neither_modified_nor_shared() -> None:
    net = mlp()
    before = {k: v.clone() for k, v in net.state.items()}
    moved = apply(net.plan, random_permutations(net.plan, 0), net.state)
    for tensor in moved.values():
        tensor.zero_()
    assert all(torch.equal(net.state[k], before[k]) for k in before)


def test_18_a_view_that_is_not_contiguous_is_permuted_like_its_copy() -> None:
    net = mlp()
    perms = random_permutations(net.plan, 0)
    views = {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in net.state.items()}
    moved, views_moved = apply(net.plan, perms, net.state), apply(net.plan, perms, views)
    assert all(torch.equal(moved[k], views_moved[k]) for k in moved)


def test_17_a_tied_tensor_is_permuted_once_and_stays_tied() -> None:
    net = mlp()
    spec = replace(net.spec, aliases={"fc1.weight": ("tied.weight", "other.weight")})
    plan, perms = Plan(spec, net.plan.selected), Permutations(random_permutations(net.plan, 0).arrays)
    want = apply(net.plan, perms, net.state)["fc1.weight"]
    state = {**net.state, "tied.weight": net.state["fc1.weight"].view(24, 5)}
    moved = apply(plan, perms, state)
    assert torch.equal(moved["tied.weight"], want) and torch.equal(moved["fc1.weight"], want)
    assert moved["tied.weight"].data_ptr() == moved["fc1.weight"].data_ptr()
    only_alias = {("other.weight" if k == "fc1.weight" else k): v for k, v in net.state.items()}
    moved = apply(plan, perms, only_alias)
    assert list(moved) == list(only_alias) and torch.equal(moved["other.weight"], want)


def test_41_what_is_no_permutation_is_refused() -> None:
    net = mlp()
    good = random_permutations(net.plan, 0)
    for bad, words in [
        (np.array([0, 0]), "every index must appear exactly once"),
        (np.array([0, -1]), "every index must appear exactly once"),
        (np.array([1.0, 0.0]), "must be integers"),
        (np.array([0, 1, 2]), "the group needs"),
    ]:
        with pytest.raises(PlanError, match=words):
            apply(net.plan, Permutations({**good.arrays, "ffn.0": bad}), net.state)
        with pytest.raises(PlanError, match=words):
            unapply(net.plan, Permutations({**good.arrays, "ffn.0": bad}), net.state)


def test_places_that_contradict_each_other_or_lie_outside_are_refused() -> None:
    net = mlp()
    first = net.spec.places[0]
    second = replace(first, layout=("ffn.0",), positions=Positions.of(np.array([[0], [1]])))
    outside = replace(first, positions=replace(first.positions, offset=20))
    for place, words in [(second, "overlap"), (outside, "positions from 20 up to 43 on axis 0")]:
        spec = replace(net.spec, places=(*net.spec.places, place)).completed()
        with pytest.raises(PlanError, match=words):
            apply(Plan(spec, net.plan.selected), shifted(spec), net.state)


def test_an_output_that_moves_is_not_given_to_a_head_the_plan_does_not_know() -> None:
    net = mlp()
    out = replace(net.spec.places[0], tensor="output:0")
    plan = Plan(replace(net.spec, places=(*net.spec.places, out)).completed(), net.plan.selected)
    state = {f"body.{k}": v for k, v in net.state.items()} | {"head.weight": torch.zeros(2, 24)}
    with pytest.raises(PlanError, match=r"output, which head\.weight may read"):
        apply(plan, shifted(net.spec), state)
    assert apply(net.plan, shifted(net.spec), state)["head.weight"].shape == (2, 24)


@pytest.mark.parametrize("axis, rows_axis", [(1, 0), (0, 1), (2, 0), (0, 2)])
def test_a_gather_per_row_is_the_loop_over_rows(axis: int, rows_axis: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 4, 5))
    index = rng.permuted(np.tile(np.arange(array.shape[axis]), (array.shape[rows_axis], 1)), axis=1)
    moved = apply_gathers(array, [Gather("w", axis, index, rows_axis)])
    for row in range(array.shape[rows_axis]):
        where = axis - (rows_axis < axis)
        want = array.take(row, axis=rows_axis).take(index[row], axis=where)
        assert np.array_equal(moved.take(row, axis=rows_axis), want)


def test_15_quantised_weights_are_refused_by_their_dtype_and_not_by_a_name() -> None:
    net = grouped_conv()
    perms = shifted(net.spec)
    with pytest.raises(FileError, match=r"quantised \('conv1.weight' is torch.int8\)"):
        apply(net.plan, perms, {**net.state, "conv1.weight": torch.zeros(6, 2, 1, dtype=torch.int8)})
    scales = {**net.state, "head.scales": torch.rand(6), "head.weight_scale": torch.rand(6, 1)}
    done = apply(net.plan, perms, scales, ignore_unexpected=["head.*"])
    assert torch.equal(done["head.scales"], scales["head.scales"])


BOUNDS = {
    "head.input_max": torch.tensor(torch.inf),
    "head.input_min": torch.tensor(-torch.inf, dtype=torch.bfloat16),
    "head.mask": torch.full((5, 5), -torch.inf).triu(1),
}


def test_infinite_bounds_and_masks_are_carried_and_no_other_infinity(tmp_path: Path) -> None:
    """Those of Gemma 4's clipped layers and of causal attention, as modules keep them in their buffers."""
    net = grouped_conv()
    perms, path = shifted(net.spec), tmp_path / "model.safetensors"
    held = {**net.state, **BOUNDS}
    done = apply(net.plan, perms, held, ignore_unexpected=["head.*"])
    assert all(torch.equal(done[k], v) for k, v in BOUNDS.items())
    save_file(held, path)
    out = apply_checkpoint(net.plan, perms, path, tmp_path / "out.safetensors", ignore_unexpected=["head.*"])
    assert all(torch.equal(load_file(out)[k], v) for k, v in BOUNDS.items())
    for wrong in (
        torch.tensor(torch.nan),
        torch.tensor([torch.inf]),
        torch.full((3,), torch.inf),
        BOUNDS["head.mask"] + 1,
    ):
        with pytest.raises(FileError, match=r"head\.mask: \d+ of \d+ values are NaN or inf"):
            apply(net.plan, perms, {**held, "head.mask": wrong}, ignore_unexpected=["head.*"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    net = grouped_conv()
    perms = shifted(net.spec)
    state = {k: v.clone() for k, v in net.state.items()}
    state["conv1.weight"][1, 0, 0] = value
    with pytest.raises(FileError, match=r"conv1.weight: 1 of 12 values are NaN or inf"):
        apply(net.plan, perms, state)
    arrays = {k: v.numpy() for k, v in state.items()}
    with pytest.raises(FileError, match=r"conv1.weight: 1 of 12 values are NaN or inf"):
        apply(net.plan, perms, arrays)
    done = apply(net.plan, perms, state, allow_nonfinite=True)
    back = unapply(net.plan, perms, done, allow_nonfinite=True)
    assert all(torch.equal(back[k].nan_to_num(7), v.nan_to_num(7)) for k, v in state.items())
