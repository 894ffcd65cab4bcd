"""Blocks of rows: whatever their size, what is written is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from permgraph.errors import FileError, PlanError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Origin
from permgraph.weights import rows
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.dtypes import DTYPES, count_nonfinite, dtype_of, narrow, widen
from permgraph.weights.merge_files import merge_checkpoints
from permgraph.weights.rows import blocks_of, runs_of
from permgraph.weights.source import Source, covered
from permgraph.weights.tensors import held_by

from .conftest import Maker
from .nets import NETS, Net


def of(net: Net) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return {k: v.float() for k, v in net.state.items()}, {k: v.float() + 1 for k, v in net.state.items()}


@pytest.mark.parametrize("whole", [0, 2**20])
@pytest.mark.parametrize("name", NETS)
def test_small_blocks_write_what_whole_tensors_do(
    name: str, whole: int, make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = NETS[name]()
    a, b = of(net)
    perms, (one, other) = (
        random_permutations(net.plan, 1),
        (make_folder(a, name="a"), make_folder(b, name="b")),
    )
    found = []
    for block in (2**20, 40):
        monkeypatch.setattr(rows, "BLOCK", block)
        monkeypatch.setattr(rows, "WHOLE", whole)
        moved = apply_checkpoint(net.plan, perms, other, tmp_path / f"moved{block}")
        merged = merge_checkpoints(one, other, tmp_path / f"merged{block}", plan=net.plan, perms=perms)
        found.append([load_file(folder / "model.safetensors") for folder in (moved, merged)])
    want = apply(net.plan, perms, b)
    assert all(torch.equal(found[1][0][key], want[key]) for key in want)
    for key, tensor in found[0][1].items():  # lengths of directions are summed block by block
        torch.testing.assert_close(found[1][1][key], tensor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_is_counted_once_and_whole(
    name: str, make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 40)
    monkeypatch.setattr(rows, "WHOLE", 0)
    net = NETS[name]()
    _, b = of(net)
    path = make_folder(b)
    known = Fingerprint(net.plan.spec)
    for key, tensor in b.items():
        known.add(key, tensor)
    origin = Origin(net.plan.digest, net.plan.fingerprint, "", known.text)
    perms = Permutations(random_permutations(net.plan, 1).arrays, {}, origin)
    apply_checkpoint(net.plan, perms, path, tmp_path / "out")
    key = max(b, key=lambda key: b[key].numel())
    b[key].view(-1)[-1] += 1
    with pytest.raises(PlanError, match="matched on other weights as B"):
        apply_checkpoint(net.plan, perms, make_folder(b, name="changed"), tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_value_that_is_not_finite_is_found_in_any_block(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 40)
    net = NETS["mlp"]()
    a, b = of(net)
    b["fc1.weight"][-1, -1] = torch.nan
    b["fc1.weight"][0, 0] = torch.inf
    perms, folders = random_permutations(net.plan, 1), (make_folder(a, name="a"), make_folder(b, name="b"))
    with pytest.raises(FileError, match=r"fc1\.weight: 2 of \d+ values are NaN or inf in"):
        apply_checkpoint(net.plan, perms, folders[1], tmp_path / "out")
    with pytest.raises(FileError, match=r"fc1\.weight: 2 of \d+ values are NaN or inf in B"):
        merge_checkpoints(*folders, tmp_path / "out", plan=net.plan, perms=perms)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_numbers_are_widened_and_rounded_as_torch_does(dtype: torch.dtype) -> None:
    values = torch.cat(
        [torch.randn(1000) * 10.0 ** torch.arange(-20, 20).repeat(25), torch.tensor([0.0, -0.0])]
    )
    values = torch.cat([values, torch.tensor([torch.inf, -torch.inf, torch.nan, 3.4e38, 65520.0])])
    kind = dtype_of(dtype)
    assert kind is not None
    want = values.to(dtype)
    held = narrow(values.numpy(), kind)
    wide = want.to(torch.float64 if dtype == torch.float64 else torch.float32).numpy()
    assert np.array_equal(widen(held, kind), wide, equal_nan=True)
    assert np.array_equal(widen(held_by(want)[0], kind), wide, equal_nan=True)
    assert count_nonfinite(held, kind) == int((~torch.isfinite(want)).sum())


@pytest.mark.parametrize("code", [code for code in DTYPES if code.startswith("F8")])
def test_float8_that_is_not_finite_is_told(code: str) -> None:
    held = np.arange(256, dtype="u1")
    numbers = torch.from_numpy(held).view(DTYPES[code].torch).float()
    assert count_nonfinite(held, DTYPES[code]) == int((~torch.isfinite(numbers)).sum())


def test_blocks_and_runs_cover_every_row_once() -> None:
    for shape in [(), (0,), (7,), (5, 3), (4, 0), (9, 100)]:
        parts = list(blocks_of(shape, 4, 50))
        covered_rows = [i for p in parts for i in (range(p.start, p.stop) if isinstance(p, slice) else [])]
        assert parts == [None] or covered_rows == list(range(shape[0]))
    order = np.array([3, 4, 5, 0, 9, 8, 1, 2])
    runs = list(runs_of(order))
    assert [first + i for _, first, count in runs for i in range(count)] == order.tolist()
    assert [place for place, _, _ in runs] == [0, 3, 4, 5, 6]
    assert list(runs_of(order[:0])) == []


def test_a_checkpoint_that_lacks_a_tensor_is_not_taken_as_known(make_folder: Maker) -> None:
    from permgraph.weights.checkpoint import open_checkpoint

    net = NETS["mlp"]()
    a, _ = of(net)
    assert covered(net.plan.spec, open_checkpoint(make_folder(a)))
    lacking = {k: v for k, v in a.items() if k != "fc1.bias"}
    assert not covered(net.plan.spec, open_checkpoint(make_folder(lacking, name="b")))
    assert Source(open_checkpoint(make_folder(a, name="c")), {}).weights is None
