"""Laws of the weighted average, in memory and on disk."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from permgraph.errors import FileError, PlanError, UsageError
from permgraph.ir.permutations import random_permutations
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.interpolate import merge
from permgraph.weights.merge_files import merge_checkpoints
from permgraph.weights.record import Applied

from .conftest import Maker
from .nets import NETS, mlp

State = dict[str, torch.Tensor]


def pair(dtype: torch.dtype = torch.float32) -> tuple[State, State]:
    a, b = mlp(0).state, mlp(1).state
    return {k: v.to(dtype) for k, v in a.items()}, {k: v.to(dtype) for k, v in b.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_13_the_sum_is_taken_wide_and_written_in_the_dtype_of_a(dtype: torch.dtype) -> None:
    a, b = pair(dtype)
    merged = merge(a, b, (0.7, 0.3))
    for key in a:
        exact = 0.7 * a[key].double() + 0.3 * b[key].double()
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        rounding = torch.finfo(dtype).eps / 2 + 4 * torch.finfo(wide).eps
        scale = a[key].double().abs() + b[key].double().abs()
        assert merged[key].dtype == dtype
        assert ((merged[key].double() - exact).abs() <= rounding * scale).all()


def test_weights_at_the_ends_give_back_the_models() -> None:
    a, b = pair(torch.bfloat16)
    assert all(torch.equal(merge(a, b, (1, 0))[k], a[k]) for k in a)
    assert all(torch.equal(merge(a, b, (0, 1))[k], b[k]) for k in a)


def test_merging_in_other_orders_is_the_same() -> None:
    a, b = pair()
    one, two = merge(a, b, (0.25, 0.5)), merge(b, a, (0.5, 0.25))
    assert all(torch.equal(one[k], two[k]) for k in a)  # powers of two: nothing is rounded before the sum


def test_20_integers_and_booleans_are_those_of_a() -> None:
    a, b = pair()
    a |= {"n": torch.tensor(3), "mask": torch.tensor([True, False])}
    b |= {"n": torch.tensor(5), "mask": torch.tensor([False, True])}
    with pytest.raises(FileError, match=r"mask: 2 of 2 torch\.bool values differ in A and B"):
        merge(a, b, (0.5, 0.5))
    merged = merge(a, b, (0.5, 0.5), dtype=torch.float16, integers_of_a=True)
    assert merged["n"] == 3 and merged["mask"].tolist() == [True, False]
    assert merged["fc1.weight"].dtype == torch.float16


def test_tensor_weights_give_some_tensors_other_weights() -> None:
    a, b = pair()
    merged = merge(a, b, (0.5, 0.5), tensor_weights={"fc1.*": (1, 0), "*.bias": (0, 1)})
    assert torch.equal(merged["fc1.weight"], a["fc1.weight"])
    assert torch.equal(merged["fc1.bias"], b["fc1.bias"])
    assert torch.equal(merged["fc2.weight"], 0.5 * a["fc2.weight"] + 0.5 * b["fc2.weight"])
    with pytest.raises(UsageError, match=r"weights for 'fc3\.\*': no tensor matches"):
        merge(a, b, tensor_weights={"fc3.*": (1, 0)})
    with pytest.raises(UsageError, match="two finite numbers"):
        merge(a, b, (math.nan, 1))


def test_11_26_the_tensors_must_be_the_same_the_spelling_aside() -> None:
    a, b = pair()
    spelt = {k.replace("fc1.weight", "fc1.parametrizations.weight.original1"): v for k, v in b.items()}
    a = {k.replace("fc1.weight", "fc1.weight_v"): v for k, v in a.items()}
    assert list(merge(a, spelt)) == list(a)
    with pytest.raises(
        FileError, match=r"2 without a partner; only in A: fc1\.weight_v; only in B: fc1\.weight\."
    ):
        merge(a, b)
    with pytest.raises(FileError, match=r"fc2\.bias: \(3,\) in A, \(4,\) in B"):
        merge(a, {**spelt, "fc2.bias": torch.zeros(4)})


@pytest.mark.parametrize("weights", [(0.9, 0.1), (1.0, 0.0)])
def test_infinite_bounds_and_masks_that_a_and_b_share_stay(weights: tuple[float, float]) -> None:
    a, b = pair(torch.float32)
    for state in (a, b):
        state |= {"top": torch.tensor(math.inf), "mask": torch.full((4, 4), -math.inf).triu(1)}
    merged = merge(a, b, weights)
    assert torch.equal(merged["top"], a["top"]) and torch.equal(merged["mask"], a["mask"])
    b["mask"] = b["mask"].T.contiguous()
    with pytest.raises(FileError, match="mask: infinite bounds, and other ones in A than in B"):
        merge(a, b, weights)
    with pytest.raises(FileError, match="top: infinite bounds, and other ones in A than in B"):
        merge(a, {**b, "mask": a["mask"], "top": torch.tensor(3.0)}, (0.9, 0.1))


def test_19_nan_and_overflow_are_refused_naming_the_tensor() -> None:
    a, b = pair(torch.float16)
    b["fc2.weight"][0, :2] = math.nan
    with pytest.raises(FileError, match=r"fc2\.weight: 2 of 72 values are NaN or inf in B"):
        merge(a, b)
    assert merge(a, b, allow_nonfinite=True)["fc2.weight"].isnan().sum() == 2
    b["fc2.weight"][:] = 60_000
    with pytest.raises(FileError, match=r"in the result \(torch\.float16 is too narrow\)"):
        merge(a, b, (1, 2))


def test_17_a_tensor_tied_in_both_stays_tied() -> None:
    a, b = pair()
    a["tied"], b["tied"] = a["fc1.weight"], b["fc1.weight"]
    merged = merge(a, b)
    assert merged["tied"] is merged["fc1.weight"]


def test_a_tie_of_one_model_only_loses_no_tensor_and_is_said() -> None:
    a, b = pair()
    a["tied"], b["tied"] = a["fc1.weight"], b["fc1.weight"] + 1
    with pytest.warns(UserWarning, match=r"fc1\.weight, tied are one tensor in A and several in B"):
        merged = merge(a, b, (0.5, 0.5))
    assert merged["tied"] is merged["fc1.weight"]  # A's network has one there: it keeps what it is given
    torch.testing.assert_close(merged["tied"], 0.5 * a["tied"] + 0.5 * (b["fc1.weight"] + 0.5))
    with pytest.raises(
        UsageError, match=r"fc1\.weight, tied are one tensor in A: give them the same weights"
    ):
        merge(a, b, tensor_weights={"tied": (1, 0)})
    a["tied"], b["tied"] = a["fc1.weight"] + 1, b["fc1.weight"]
    merged = merge(a, b, (0.5, 0.5))  # A has room for both
    torch.testing.assert_close(merged["tied"], merged["fc1.weight"] + 0.5)
    with pytest.raises(FileError, match=r"only in B: tied.*one of them ties to another"):
        merge({k: v for k, v in a.items() if k != "tied"}, b)


@pytest.mark.parametrize("kinds", [("single", "bin shards"), ("shards", "single"), ("bin", "shards")])
@pytest.mark.parametrize("name", NETS)
def test_on_disk_is_as_in_memory(
    make_folder: Maker, tmp_path: Path, kinds: tuple[str, str], name: str
) -> None:
    net = NETS[name]()
    a = {k: v.to(torch.bfloat16) for k, v in net.state.items()}
    b = {k: v.to(torch.float32) + 1 for k, v in net.state.items()}
    perms = random_permutations(net.plan, 4)
    want = merge(a, apply(net.plan, perms, b), (0.8, 0.2))
    path_a, path_b = make_folder(a, kinds[0], "a"), make_folder(b, kinds[1], "b")
    out = merge_checkpoints(path_a, path_b, tmp_path / "out", (0.8, 0.2), plan=net.plan, perms=perms)
    found = open_checkpoint(out)
    assert found.infos == open_checkpoint(path_a).infos
    assert all(torch.equal(found.read(k), want[k]) for k in want)
    assert found.record is not None and found.record.weights == (0.8, 0.2)
    assert found.record.b == Applied(net.plan.digest, perms.digest)
    plain = open_checkpoint(merge_checkpoints(path_a, path_b, tmp_path / "plain", (0.8, 0.2)))
    want = merge(a, b, (0.8, 0.2))
    assert all(torch.equal(plain.read(k), want[k]) for k in want)


def test_heads_and_prefixes_of_a_are_kept(tmp_path: Path) -> None:
    net = mlp()
    a = {f"hubert.{k}": v.float() for k, v in net.state.items()} | {"lm_head.weight": torch.randn(4, 3)}
    b = {k: v.float() + 1 for k, v in net.state.items()}
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    perms = random_permutations(net.plan, 0)
    out = tmp_path / "out.safetensors"
    merge_checkpoints(
        tmp_path / "a.safetensors", tmp_path / "b.safetensors", out, (0.5, 0.5), plan=net.plan, perms=perms
    )
    found, moved = load_file(out), apply(net.plan, perms, b)
    assert torch.equal(found["lm_head.weight"], a["lm_head.weight"])
    for key in b:
        assert torch.equal(found[f"hubert.{key}"], 0.5 * a[f"hubert.{key}"] + 0.5 * moved[key])


def test_45_b_that_is_already_aligned_is_not_aligned_again(make_folder: Maker, tmp_path: Path) -> None:
    net = mlp()
    perms = random_permutations(net.plan, 0)
    a, b = make_folder(net.state, name="a"), make_folder(net.state, name="b")
    aligned = apply_checkpoint(net.plan, perms, b, tmp_path / "aligned")
    with pytest.raises(PlanError, match="was already applied"):
        merge_checkpoints(a, aligned, tmp_path / "out", plan=net.plan, perms=perms)
    assert not (tmp_path / "out").exists()
    assert merge_checkpoints(a, aligned, tmp_path / "out").is_dir()
    with pytest.raises(UsageError, match="pass both or neither"):
        merge_checkpoints(a, aligned, tmp_path / "out2", plan=net.plan)
