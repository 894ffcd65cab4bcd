"""Files of training libraries: whatever their name, their wrappers and their copies, the model in them is found."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import judge
from networks.training_files import FILES, File, model
from safetensors.torch import save_file
from torch import nn

from permgraph.errors import FileError
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.encoder import open_encoder
from permgraph.weights.interpolate import merge

from .nets import mlp, shifted

STATE = {"fc1.weight": torch.randn(4, 3), "fc1.bias": torch.randn(4)}


def same(checkpoint: Any, state: dict[str, torch.Tensor] = STATE) -> None:
    assert set(checkpoint) == set(state)
    assert all(torch.equal(checkpoint.read(k), v) for k, v in state.items())


@pytest.mark.parametrize("name", ["last.ckpt", "model.th", "weights", "checkpoint.safetensors", "model.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_content_decides_and_not_the_suffix(tmp_path: Path, name: str, zipped: bool) -> None:
    content = {"state_dict": STATE, "epoch": 1, "hyper_parameters": {"sample_rate": 24_000}}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    same(open_checkpoint(tmp_path / name))
    save_file(STATE, tmp_path / "x.safetensors")
    shutil.copy(tmp_path / "x.safetensors", tmp_path / name)
    same(open_checkpoint(tmp_path / name))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_weight", "module"])
def test_the_model_is_found_among_what_training_keeps(tmp_path: Path, key: str) -> None:
    others = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "epoch": 3, "best": torch.tensor(0.1)}
    torch.save({**others, key: STATE}, tmp_path / "x.pt")
    same(open_checkpoint(tmp_path / "x.pt"))
    torch.save({**others, "model": {key: STATE}}, tmp_path / "nested.pt")
    same(open_checkpoint(tmp_path / "nested.pt"))


def averages() -> dict[str, dict[str, Any]]:
    twice = {k: 2 * v for k, v in STATE.items()}
    return {
        "timm": {"state_dict": STATE, "state_dict_ema": twice},
        "ema": {"model": STATE, "ema": {"module": twice}},
        "fairseq": {"model": STATE, "extra_state": {"ema": twice}},
        "data2vec": {"model": {**STATE, "_ema": twice}},
        "prefixed": {"state_dict": {**STATE, **{f"ema_model.{k}": v for k, v in twice.items()}}},
    }


@pytest.mark.parametrize("library", averages())
def test_the_running_average_is_there_when_asked_for_and_only_then(tmp_path: Path, library: str) -> None:
    torch.save(averages()[library], tmp_path / "x.pt")
    same(open_checkpoint(tmp_path / "x.pt"))
    same(open_checkpoint(tmp_path / "x.pt", "ema"), {k: 2 * v for k, v in STATE.items()})


def test_a_state_by_name_or_the_names_there_are(tmp_path: Path) -> None:
    torch.save({"model": STATE, "teacher": {"net": {"w": torch.ones(2)}}}, tmp_path / "x.pt")
    same(open_checkpoint(tmp_path / "x.pt", "teacher.net"), {"w": torch.ones(2)})
    with pytest.raises(FileError, match=r"no state 'ema' with tensors in it; it holds model, teacher"):
        open_checkpoint(tmp_path / "x.pt", "ema")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda k: f"module.{k}",
        lambda k: f"_orig_mod.{k}",
        lambda k: k.replace("fc1", "fc1._checkpoint_wrapped_module"),
        lambda k: f"_fsdp_wrapped_module.{k.replace('fc1', 'fc1._orig_mod')}",
        lambda k: k.replace("fc2", "fc2.module"),
        lambda k: f"model.module.{k}",
        lambda k: f"_forward_module.model._orig_mod.{k}",
    ],
)
def test_wrappers_anywhere_in_a_key_do_not_count_and_are_kept(wrapped: Any) -> None:
    net = mlp()
    perms = shifted(net.spec)
    want = apply(net.plan, perms, net.state)
    done = apply(net.plan, perms, {wrapped(k): v for k, v in net.state.items()})
    assert list(done) == [wrapped(k) for k in net.state]
    assert all(torch.equal(done[wrapped(k)], v) for k, v in want.items())


def test_one_tensor_under_two_names_is_refused_where_one_must_be_chosen() -> None:
    net = mlp()
    twice = net.state | {f"_orig_mod.{k}": v + 1 for k, v in net.state.items()}
    with pytest.raises(
        FileError, match=r"B: fc1\.weight and _orig_mod\.fc1\.weight are one tensor under two names"
    ):
        merge(net.state, twice)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.library}: {f.what}")
def test_the_encoder_in_a_file_computes_what_was_saved_before_and_after(tmp_path: Path, file: File) -> None:
    assert judge(file, tmp_path).holds


def test_the_object_that_none_of_them_runs_does_run_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    FILES[0].write(model("Hubert"), tmp_path / "x.pt", tmp_path / "mark")
    assert not (tmp_path / "mark").exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "mark").exists()


def test_s3prls_converted_checkpoint_tells_its_audio(tmp_path: Path) -> None:
    file = next(f for f in FILES if f.library == "s3prl")
    net = model(file.kind)
    net.config.save_pretrained(tmp_path / "config")
    file.write(net, tmp_path / "s.pt")
    encoder = open_encoder(tmp_path / "s.pt", architecture=tmp_path / "config")
    assert len(encoder.stored) == len(net.state_dict()) and "s3prl" not in sys.modules
    assert (encoder.sampling_rate, encoder.do_normalize) == (24_000, True)


def lying(count: int) -> bytes:
    """An old file whose only tensor announces `count` numbers, and holds four."""
    stream = io.BytesIO()
    torch.save({"w": torch.arange(4.0)}, stream, _use_new_zipfile_serialization=False)
    data = stream.getvalue()
    assert data.count(b"K\x04") >= 2  # of the storage, and in the shape
    return data.replace(b"K\x04", b"J" + struct.pack("<i", count))


@pytest.mark.parametrize("count", [5, 2**31 - 1])
def test_no_memory_is_asked_for_that_the_file_does_not_fill(tmp_path: Path, count: int) -> None:
    (tmp_path / "x.pt").write_bytes(lying(count))
    with pytest.raises(FileError, match=r"nothing was run: storage .* is not there, or of another size"):
        open_checkpoint(tmp_path / "x.pt")
    torch.save({"w": torch.zeros(1).expand(2**33)}, tmp_path / "wide.pt")
    with pytest.raises(FileError, match=r"'w': a tensor of 34,359,738,368 bytes in a file of"):
        open_checkpoint(tmp_path / "wide.pt")


class Calls:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "bomb",
    [
        Calls(bytearray, 2**40),
        Calls(torch.FloatTensor, 2**40),
        Calls(torch.UntypedStorage, 2**40),
    ],
)
def test_a_call_that_would_allocate_is_not_made(tmp_path: Path, bomb: Calls) -> None:
    with open(tmp_path / "x.pt", "wb") as stream:
        pickled = pickle.dumps({"w": torch.ones(2), "x": bomb}, protocol=2)
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
    with pytest.raises(FileError, match=r"nothing was run|holds no tensors"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(FileError, match="is compressed or too large"):
        open_checkpoint(tmp_path / "y.pt")


def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps(()))  # as torch.jit.save writes it
    with pytest.raises(FileError, match="TorchScript archive, a program"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 6)[1:, ::2],
        torch.randn(3, 2).T,
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.empty(0, 3),
        torch.tensor(2.5),
        torch.randn(1).expand(3, 4),
        nn.Parameter(torch.randn(2)),
        torch.ones(3, dtype=torch.uint16),
        torch.randn(2, dtype=torch.complex64),
    ],
)
def test_views_and_dtypes_are_read_as_torch_reads_them(
    tmp_path: Path, tensor: torch.Tensor, zipped: bool
) -> None:
    torch.save({"w": tensor, "v": tensor}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    if tensor.dtype == torch.uint16 and not zipped:
        theirs = {"w": tensor, "v": tensor}  # torch itself does not read it back from an old file
    else:
        theirs = torch.load(tmp_path / "x.pt", weights_only=True)
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    for key, want in theirs.items():
        found = checkpoint.read(key)
        assert found.dtype == want.dtype and found.shape == want.shape and torch.equal(found, want)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.randn(2, dtype=torch.complex64).conj()])
def test_a_tensor_of_a_kind_that_is_not_read_is_not_dropped_silently(
    tmp_path: Path, tensor: torch.Tensor
) -> None:
    torch.save({"w": tensor, "v": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"kind that is not read|conjugated|refused"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_mert_folder_gives_a_config_that_needs_no_code(tmp_path: Path) -> None:
    import json

    from permgraph.frontend.hugging_face import plain_config

    net = mlp()
    (tmp_path / "m").mkdir()
    save_file(net.state, tmp_path / "m" / "model.safetensors")
    data = {
        "model_type": "mert_model",
        "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
        "hidden_size": 8,
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(data))
    (tmp_path / "m" / "modeling_MERT.py").write_text("raise SystemExit")
    out = apply_checkpoint(net.plan, shifted(net.spec), tmp_path / "m", tmp_path / "out")
    written = json.loads((out / "config.json").read_text())
    assert written == {"model_type": "hubert", "architectures": ["HubertModel"], "hidden_size": 8}
    assert plain_config({**data, "deepnorm": True}) == b"" == plain_config({"model_type": "bert"})
