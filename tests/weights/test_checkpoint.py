"""Checkpoints: what is written is read; what is damaged, unsafe or strange is refused with the reason."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from permgraph.errors import FileError
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.conversion import info_of
from permgraph.weights.dtypes import DTYPES
from permgraph.weights.safetensors_io import SafetensorsFile, write_safetensors
from permgraph.weights.tensors import held_by

from .conftest import Maker

STATE = {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4), "count": torch.tensor(3)}


def raw_file(path: Path, header: dict[str, Any] | str, data: bytes = b"") -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int, end: int, shape: tuple[int, ...] = (4,), dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("kind", ["single", "shards", "bin", "bin shards"])
def test_a_folder_gives_back_its_tensors(make_folder: Maker, kind: str) -> None:
    checkpoint = open_checkpoint(make_folder(STATE, kind))
    assert set(checkpoint) == set(STATE) and checkpoint.config == {"model_type": "made"}
    assert checkpoint.shapes == {k: tuple(v.shape) for k, v in STATE.items()}
    for key, tensor in STATE.items():
        found = checkpoint.read(key)
        assert found.dtype == tensor.dtype and torch.equal(found, tensor)
        assert checkpoint.home[key].path.parent == checkpoint.path


def test_13_20_every_dtype_and_odd_shape_survives_our_writer_and_the_library(tmp_path: Path) -> None:
    bits = torch.arange(64, dtype=torch.uint8) % 2
    state = {f"x{i}": bits.view(dtype.torch).clone() for i, dtype in enumerate(DTYPES.values())}
    state |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5), "strided": torch.randn(4, 6)[:, ::2]}
    infos = {k: info_of(v) for k, v in state.items()}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, infos, lambda k: iter([held_by(state[k])[0]]), {"format": "pt"})
    ours, theirs = SafetensorsFile(path), load_file(path)
    assert ours.infos == infos and set(theirs) == set(state)
    for key, tensor in state.items():
        for found in (ours.read(key), theirs[key]):
            assert found.dtype == tensor.dtype and found.shape == tensor.shape
            assert torch.equal(
                found.reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8)
            )


def test_1_every_truncation_is_named_incomplete(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for size in (0, 5, 8, 50, len(whole) - 1):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"cut\.safetensors: incomplete, expected [\d,]+ bytes"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    "header, size, words",
    [
        ({"a": entry(0, 4)}, 5, "1 bytes after the last tensor"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, 6, "overlap"),
        ({"a": entry(4, 8)}, 8, "hole"),
        ({"a": entry(0, 4, (5,))}, 4, "needs 5 bytes, the header gives 4"),
        ({"a": entry(0, 4, (-2, -2))}, 4, "damaged header at 'a'"),
        ({"a": {"dtype": "U8"}}, 4, "damaged header at 'a'"),
        ({"a": entry(0, 4, (8,), "F4")}, 4, "packed or unknown"),
        ('{"a": %s, "a": %s}' % ((json.dumps(entry(0, 4)),) * 2), 4, "key 'a' appears twice"),
        ("[1, 2]", 0, "not an object"),
        ("[" * 100_000, 0, "damaged header"),
        ("{oops", 0, "damaged header"),
    ],
)
def test_2_4_16_a_lying_header_is_refused(tmp_path: Path, header: Any, size: int, words: str) -> None:
    with pytest.raises(FileError, match=words):
        open_checkpoint(raw_file(tmp_path / "x.safetensors", header, bytes(size)))


def test_5_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40))
    with pytest.raises(FileError, match="header would take 1,099,511,627,776 bytes"):
        open_checkpoint(path)


def test_3_a_flipped_bit_is_seen_in_a_file_we_wrote(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    infos = {k: info_of(v) for k, v in STATE.items()}
    write_safetensors(path, infos, lambda k: iter([held_by(STATE[k])[0]]), {})
    open_checkpoint(path).verify()
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(FileError, match="has changed since it was written"):
        open_checkpoint(path).verify()


def test_3_the_sha_256_of_older_files_is_checked(tmp_path: Path) -> None:
    path, data = tmp_path / "x.safetensors", bytes(range(4))
    header = {"__metadata__": {"data_sha256": hashlib.sha256(data).hexdigest()}, "a": entry(0, 4)}
    open_checkpoint(raw_file(path, header, data)).verify()
    with pytest.raises(FileError, match="checksum data_sha256 differs"):
        open_checkpoint(raw_file(path, header, data[:3] + b"\x07")).verify()


def test_3_a_header_that_was_changed_is_seen(tmp_path: Path) -> None:
    """Also where the digest of the data is taken out, which would hide that these have changed."""
    path = tmp_path / "x.safetensors"
    infos = {k: info_of(v) for k, v in STATE.items()}
    write_safetensors(path, infos, lambda k: iter([held_by(STATE[k])[0]]), {})
    whole = path.read_bytes()
    assert whole.count(b"data_xxh3_128") == 1
    path.write_bytes(whole.replace(b"data_xxh3_128", b"data_xxh3_129"))
    with pytest.raises(FileError, match="header has changed"):
        open_checkpoint(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_6_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.bin"
    state = {"w": torch.ones(2), "x": Evil()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    with pytest.raises(
        FileError, match=rf"evil\.bin: refused, nothing was run: .*{os.system.__module__}\.system"
    ):
        open_checkpoint(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_7_a_training_checkpoint_loads_through_inert_stubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    module = types.ModuleType("omegaconf.dictconfig")
    made = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    module.DictConfig = made  # type: ignore[attr-defined]
    config = made()
    config.content = {"lr": 1e-3}
    saved = {
        "args": argparse.Namespace(arch="hubert", units={1, 2}),
        "cfg": config,
        "model": {"w": torch.arange(3.0)},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    path = tmp_path / "checkpoint_best.pt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        patch.setitem(sys.modules, "omegaconf.dictconfig", module)
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(path)
    assert list(checkpoint) == ["w"] and torch.equal(checkpoint.read("w"), torch.arange(3.0))
    assert "omegaconf" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_8_a_truncated_pickle_is_refused_with_its_name(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.randn(100)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(
            FileError, match=r"pytorch_model\.bin: (incomplete|not a PyTorch|refused or damaged)"
        ):
            open_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a\\b.safetensors", "C:x.safetensors", ".."]
)
def test_9_a_shard_outside_the_folder_is_refused(make_folder: Maker, name: str) -> None:
    folder = make_folder(STATE, "shards")
    save_file(STATE, folder.parent / "x.safetensors")
    index = {"weight_map": dict.fromkeys(STATE, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileError, match="not a plain file name; refusing to follow it"):
        open_checkpoint(folder)


def test_9_a_link_that_leaves_the_folder_is_refused_but_the_hub_cache_is_read(make_folder: Maker) -> None:
    folder = make_folder(STATE)
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(FileError, match="a link that leaves the folder"):
        open_checkpoint(folder)
    blobs, snapshots = folder.parent / "blobs", folder.parent / "snapshots"
    blobs.mkdir()
    snapshots.mkdir()
    outside.rename(blobs / "0123")
    folder = folder.rename(snapshots / "abc")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    assert set(open_checkpoint(folder)) == set(STATE)


def test_10_an_index_and_shards_that_disagree_are_refused(make_folder: Maker) -> None:
    folder = make_folder(STATE, "shards")
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())["weight_map"]
    one, two = sorted(set(good.values()))
    cases = [
        ({**good, "new": "model-9.safetensors"}, r"model-9\.safetensors named here, not in the folder"),
        ({**good, "new": one}, r"'new' \(model-1-of-2\.safetensors\) absent from the shard"),
        ({k: v for k, v in good.items() if k != "count"}, r"'count' .* in a shard that the index does not"),
    ]
    for weight_map, words in cases:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(FileError, match=words):
            open_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": good}))
    save_file({**load_file(folder / two), "a.weight": STATE["a.weight"]}, folder / two)
    save_file({**load_file(folder / one), "a.weight": STATE["a.weight"]}, folder / one)
    with pytest.raises(FileError, match=r"'a\.weight' .* in a shard that the index does not give"):
        open_checkpoint(folder)


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match=r"no weights: none of model\.safetensors.*It holds config\.json"):
        open_checkpoint(tmp_path)
    with pytest.raises(FileError, match="no such file or folder"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(FileError, match=r"expected a \.safetensors"):
        open_checkpoint(tmp_path / "config.json")
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"holds no tensors.*its keys are 'epoch'"):
        open_checkpoint(tmp_path / "x.pt")
