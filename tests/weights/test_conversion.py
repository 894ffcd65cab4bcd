"""Folders whose stored keys are not the module's: read as the module, written under the keys they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from networks.randomise import randomise
from torch import nn

from permgraph.errors import FileError
from permgraph.frontend.capture import capture
from permgraph.frontend.sources import load_source
from permgraph.ir.permutations import random_permutations
from permgraph.planning.compile import compile_plan
from permgraph.symmetry.infer import infer
from permgraph.verification.checkpoints import check_encoder
from permgraph.weights.apply import apply, apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.conversion import Conversion, Unit
from permgraph.weights.dtypes import DTYPES
from permgraph.weights.encoder import open_encoder
from permgraph.weights.merge_files import merge_checkpoints
from permgraph.weights.safetensors_io import Info
from permgraph.weights.transformers_names import _Fused

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
IMAGE = {"image_size": 16, "patch_size": 8}
TEXT = {"vocab_size": 30, "num_key_value_heads": 1}
KINDS: dict[str, dict[str, Any]] = {
    "ViTModel": IMAGE,  # renamed
    "ViTForImageClassification": IMAGE,  # renamed, under a prefix, without a pooler
    "MixtralForCausalLM": {**TEXT, "num_local_experts": 11},  # fused: experts 2 and 10 must not change places
    "Dinov2Model": {**IMAGE, "use_swiglu_ffn": True},
}


def network(kind: str, seed: int = 0) -> Any:
    config = (
        kind.replace("ForImageClassification", "Model")
        .replace("ForCausalLM", "Model")
        .replace("Model", "Config")
    )
    return randomise(getattr(transformers, kind)(getattr(transformers, config)(**SIZES, **KINDS[kind])), seed)


def inputs(net: nn.Module) -> dict[str, torch.Tensor]:
    if "Mixtral" in type(net).__name__:
        return {"input_ids": torch.arange(2, 9)[None]}
    return {"pixel_values": torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_read_and_permuted_as_the_module_it_was_saved_from(tmp_path: Path, kind: str) -> None:
    net = network(kind)
    net.save_pretrained(tmp_path / "a", max_shard_size="20KB")
    folder, state = open_checkpoint(tmp_path / "a"), net.state_dict()
    assert len(folder.shards) > 1 and set(folder.stored) != set(state) == set(folder)
    assert all(torch.equal(folder.read(key), state[key]) for key in state)
    plan = compile_plan(infer(capture(net, (), inputs(net))))
    perms = random_permutations(plan, 1)
    apply_checkpoint(plan, perms, tmp_path / "a", tmp_path / "b")
    moved = apply(plan, perms, state)
    assert open_checkpoint(tmp_path / "b").stored == folder.stored
    back = type(net).from_pretrained(tmp_path / "b").state_dict()
    assert all(torch.equal(back[key], moved[key]) for key in moved)
    assert not all(torch.equal(state[key], moved[key]) for key in moved)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [k for k in KINDS if "Causal" not in k])
def test_the_traced_encoder_fits_and_keeps_its_function(tmp_path: Path, kind: str) -> None:
    network(kind).save_pretrained(tmp_path / "a")
    encoder = open_encoder(tmp_path / "a")
    plan = compile_plan(infer(encoder.trace))
    assert check_encoder(encoder, plan, random_permutations(plan, 2)).check
    heads = {key for key in encoder.checkpoint if key.startswith("classifier")}
    assert set(encoder.left_out) == heads


def test_two_models_merge_under_the_keys_of_a(tmp_path: Path) -> None:
    a, b = network("MixtralForCausalLM", 0), network("MixtralForCausalLM", 1)
    for net, name in ((a, "a"), (b, "b")):
        net.save_pretrained(tmp_path / name)
    merge_checkpoints(tmp_path / "a", tmp_path / "b", tmp_path / "m", (0.25, 0.75), dtype=torch.float64)
    assert set(open_checkpoint(tmp_path / "m").stored) == set(open_checkpoint(tmp_path / "a").stored)
    merged = type(a).from_pretrained(tmp_path / "m", dtype=torch.float32).state_dict()
    for key, tensor in a.state_dict().items():
        torch.testing.assert_close(merged[key], 0.25 * tensor + 0.75 * b.state_dict()[key])


class Forgetful:
    """Gives the first half twice."""

    def forward(self, stored: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(stored[0].chunk(2))

    def backward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.cat([tensors[0], tensors[0]])]


def test_parts_of_one_tensor_are_converted_once_and_asked_for_once() -> None:
    asked: list[str] = []
    state = {"x": torch.arange(4.0), "a": torch.ones(2), "b": torch.zeros(2)}

    def read(key: str) -> torch.Tensor:
        asked.append(key)
        return state[key]

    conversion = Conversion([Unit(("x",), ("a", "b"), Forgetful())])
    assert conversion.infos({"x": Info((4,), DTYPES["F32"])})["b"].shape == (2,)
    reader = conversion.reader(read)
    assert torch.equal(reader("b"), torch.tensor([2.0, 3.0])) and torch.equal(
        reader("a"), torch.tensor([0.0, 1.0])
    )
    assert asked == ["x"]
    conversion.writer(read)("x")
    assert asked == ["x", "a", "b"]
    with pytest.raises(FileError, match=r"x: its parts a, b would have different dtypes"):
        different = {"a": Info((2,), DTYPES["F32"]), "b": Info((2,), DTYPES["F16"])}
        conversion.stored_infos({"x": Info((4,), DTYPES["F32"])}, different)


def test_a_conversion_that_cannot_be_undone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network("MixtralForCausalLM")
    net.save_pretrained(tmp_path / "a")
    plan = compile_plan(infer(capture(net, (), inputs(net))))
    perms = random_permutations(plan, 1)
    honest = _Fused._revert
    monkeypatch.setattr(_Fused, "_revert", lambda self, tensors: honest(self, tensors)[::-1])
    with pytest.raises(FileError, match=r"cannot be undone: values do not come back where they were"):
        apply_checkpoint(plan, perms, tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_parts_in_two_dtypes_are_refused(tmp_path: Path) -> None:
    net = network("MixtralForCausalLM")
    net.model.layers[0].mlp.experts.half()
    net.save_pretrained(tmp_path / "a")
    assert open_checkpoint(tmp_path / "a").infos  # one dtype per fused tensor is enough
    from safetensors.torch import load_file, save_file

    file = tmp_path / "a" / "model.safetensors"
    state = load_file(file)
    key = next(k for k in state if "layers.0." in k and ".experts.3.w1" in k)
    save_file({**state, key: state[key].float()}, file)
    with pytest.raises(FileError, match=r"are parts of .*gate_up_proj in different dtypes"):
        open_checkpoint(tmp_path / "a")


def test_a_model_folder_wins_over_an_alias_of_its_name_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network("ViTModel").save_pretrained(tmp_path / "hubert")
    (tmp_path / "hubert" / "modeling_vit.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    config = tmp_path / "hubert" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "modeling_vit.ViTModel"}})
    )
    monkeypatch.chdir(tmp_path)
    assert type(load_source("hubert").module).__name__ == "ViTModel"
    assert set(open_encoder("hubert").stored.values()) == set(load_source("hubert").module.state_dict())
    (tmp_path / "mert").mkdir()  # results, not a model
    assert type(load_source("mert").module).__name__ == "HubertModel"
    assert not (tmp_path / "was_run").exists()


def test_infinity_in_a_config_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    from permgraph.frontend.hugging_face import _read

    file = tmp_path / "config.json"
    file.write_text(
        '{"limit": [0.0, {"__float__": "Infinity"}], "inner": {"low": {"__float__": "-Infinity"}}}'
    )
    assert _read(file) == {"limit": [0.0, float("inf")], "inner": {"low": -float("inf")}}
