"""Encoders: whatever the file names its tensors, the module computes what the saved model computed."""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from networks.randomise import noise, randomise, tokens
from networks.small import AUDIO, ENCODER, STABLE, VOCABULARY, config
from torch import nn

from permgraph.errors import FileError, TraceError, UsageError
from permgraph.frontend.sources import load_source
from permgraph.ir.names import canonical
from permgraph.ir.permutations import random_permutations
from permgraph.planning.compile import compile_plan
from permgraph.symmetry.infer import infer
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.checkpoint import open_checkpoint
from permgraph.weights.encoder import compare, open_encoder
from permgraph.weights.merge_files import merge_checkpoints
from permgraph.weights.renames import tables

# Written down from fairseq's HubertModel: transformers' module → fairseq's.
FAIRSEQ = {
    "feature_projection.layer_norm": "layer_norm",
    "feature_projection.projection": "post_extract_proj",
    "encoder.pos_conv_embed.conv": "encoder.pos_conv.0",
    "encoder.layer_norm": "encoder.layer_norm",
    "masked_spec_embed": "mask_emb",
}
LAYER = {
    **{f"attention.{p}_proj": f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")},
    "layer_norm": "self_attn_layer_norm",
    "feed_forward.intermediate_dense": "fc1",
    "feed_forward.output_dense": "fc2",
    "final_layer_norm": "final_layer_norm",
}


def fairseq_name(key: str, layer_norm: bool) -> str:
    """fairseq's name of a tensor of HubertModel; `layer_norm` is the kind of its front end."""
    key = canonical(key)
    if key in FAIRSEQ:
        return FAIRSEQ[key]
    module, _, tail = key.rpartition(".")
    parts = module.split(".")
    if parts[:2] == ["feature_extractor", "conv_layers"]:
        norm = "2.1" if layer_norm else "2"
        return ".".join([*parts[:3], "0" if parts[3] == "conv" else norm, tail])
    if parts[:2] == ["encoder", "layers"]:
        return ".".join([*parts[:3], LAYER[".".join(parts[3:])], tail])
    return f"{FAIRSEQ[module]}.{tail}"


def hubert(seed: int = 0, kind: str = "Model", **fields: Any) -> nn.Module:
    # a mask probability above 0, as published: it is what makes transformers keep masked_spec_embed
    made = config("Hubert", **{**AUDIO, "mask_time_prob": 0.05, "vocab_size": VOCABULARY, **fields})
    return randomise(getattr(transformers, f"Hubert{kind}")(made), seed)


def save(model: Any, folder: Path, **preprocessor: Any) -> Path:
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def save_fairseq(model: nn.Module, path: Path, layer_norm: bool = False, **settings: Any) -> Path:
    state = {fairseq_name(k, layer_norm): v.clone() for k, v in model.state_dict().items()}
    heads = {"final_proj.weight": torch.zeros(4, 24), "label_embs_concat": torch.zeros(9, 4)}
    torch.save(
        {"args": argparse.Namespace(arch="hubert", **settings), "model": state | heads, "cfg": None}, path
    )
    return path


def same_output(one: nn.Module, other: nn.Module, x: torch.Tensor | None = None) -> None:
    x = noise(2, 900) if x is None else x
    with torch.no_grad():
        torch.testing.assert_close(one(x)[0], other(x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name, fields, x",
    [
        ("Hubert", AUDIO, None),
        ("Hubert", AUDIO | STABLE, None),
        ("Wav2Vec2", AUDIO, None),
        ("WavLM", AUDIO | {"num_buckets": 8, "max_bucket_distance": 12}, None),
        ("Bert", ENCODER | {"vocab_size": VOCABULARY}, tokens(2, 9, vocabulary=VOCABULARY)),
    ],
)
def test_a_folder_computes_what_was_saved(
    tmp_path: Path, name: str, fields: dict[str, Any], x: torch.Tensor | None
) -> None:
    model = randomise(getattr(transformers, f"{name}Model")(config(name, **fields)))
    encoder = open_encoder(save(model, tmp_path / "m"))
    loaded = encoder.module()
    assert not loaded.training and encoder.name == "m" and encoder.left_out == ()
    same_output(loaded, model, x)
    assert encoder.sampling_rate == (None if name == "Bert" else 16_000)
    compare(encoder, encoder)


def test_a_head_is_left_out_and_listed(tmp_path: Path) -> None:
    model: Any = hubert(kind="ForCTC")
    encoder = open_encoder(save(model, tmp_path / "m"))
    same_output(encoder.module(), model.hubert)
    assert set(encoder.left_out) == {"lm_head.weight", "lm_head.bias"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_13_weights_of_16_bits_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = hubert().to(dtype)
    encoder = open_encoder(save(model, tmp_path / "m"))
    assert {i.dtype.torch for i in encoder.checkpoint.infos.values()} == {dtype}
    loaded = encoder.module()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    same_output(loaded, model.float())
    assert {p.dtype for p in encoder.module(dtype=torch.float64).parameters()} == {torch.float64}


def test_26_weight_norm_has_two_spellings(tmp_path: Path) -> None:
    model = hubert()
    folder = save(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({canonical(k): v for k, v in model.state_dict().items()}, folder / "pytorch_model.bin")
    encoder = open_encoder(folder)
    assert "encoder.pos_conv_embed.conv.weight_g" in encoder.checkpoint
    same_output(encoder.module(), model)


def test_the_first_bert_files_call_scale_and_shift_gamma_and_beta(tmp_path: Path) -> None:
    model = randomise(transformers.BertModel(config("Bert", **ENCODER, vocab_size=VOCABULARY)))
    folder = save(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = {}
    for key, tensor in model.state_dict().items():
        for new, name in old.items():
            key = key.replace(new, name)
        state[f"bert.{key}"] = tensor
    torch.save(state | {"cls.predictions.bias": torch.zeros(VOCABULARY)}, folder / "pytorch_model.bin")
    encoder = open_encoder(folder)
    same_output(encoder.module(), model, tokens(2, 9, vocabulary=VOCABULARY))
    assert encoder.left_out == ("cls.predictions.bias",)


def test_11_loading_is_strict(tmp_path: Path) -> None:
    model = hubert()
    folder = save(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    del state["feature_projection.layer_norm.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(
        FileError, match=r"1 of the model's \d+ .* missing: feature_projection\.layer_norm\.weight"
    ):
        open_encoder(folder).module()
    stray = {f"encoder.layers.{i}.gate.weight": torch.ones(3) for i in range(25)}
    torch.save(model.state_dict() | stray, folder / "pytorch_model.bin")
    with pytest.raises(
        FileError, match=r"25 tensors unknown to the model: .*layers\.19\.gate\.weight and 5 more"
    ):
        open_encoder(folder).module()
    edit_config(folder, intermediate_size=41)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(FileError, match=r"stored \(40, 24\), the model has \(41, 24\)"):
        open_encoder(folder).module()


def test_the_mask_embedding_may_be_absent_or_unexpected(tmp_path: Path) -> None:
    with_mask, without = hubert(), hubert(mask_time_prob=0.0)
    for number, (saved, other) in enumerate([(with_mask, without), (without, with_mask)]):
        folder = save(saved, tmp_path / str(number))
        edit_config(folder, mask_time_prob=other.config.mask_time_prob)
        same_output(open_encoder(folder).module(), saved)


def mert(folder: Path, model: nn.Module, marker: Path, **fields: Any) -> Path:
    """A folder as MERT's: its own model_type, code that must not run."""
    save(model, folder, sampling_rate=24_000, do_normalize=True)
    auto_map = {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"}
    edit_config(
        folder,
        **{"model_type": "mert_model", "auto_map": auto_map, "architectures": ["MERTModel"]},
        **{"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0, **fields},
    )
    for name in ("configuration_MERT", "modeling_MERT", "__init__"):
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    return folder


def test_25_mert_is_read_as_hubert_and_its_code_is_not_run(tmp_path: Path) -> None:
    model = hubert()
    encoder = open_encoder(mert(tmp_path / "mert", model, tmp_path / "was_run"))
    same_output(encoder.module(), model)
    assert encoder.config["model_type"] == "hubert" and "auto_map" not in encoder.config
    assert (encoder.sampling_rate, encoder.do_normalize) == (24_000, True)
    assert not (tmp_path / "was_run").exists()


def test_mert_notes_its_rate_in_the_config_too(tmp_path: Path) -> None:
    folder = mert(tmp_path / "mert", hubert(), tmp_path / "was_run", sample_rate=24_000)
    (folder / "preprocessor_config.json").unlink()
    encoder = open_encoder(folder)
    assert (encoder.sampling_rate, encoder.do_normalize) == (24_000, False)


@pytest.mark.parametrize("field", ["feature_extractor_cqt", "deepnorm"])
def test_23_other_merts_are_refused_with_the_reason(tmp_path: Path, field: str) -> None:
    folder = mert(tmp_path / "mert", hubert(), tmp_path / "was_run", **{field: True})
    with pytest.raises(TraceError, match=rf"{field} = true: it .*, which HuBERT does not"):
        open_encoder(folder)
    file = save_fairseq(hubert(), tmp_path / "mert.pt", **{field: True})
    with pytest.raises(
        TraceError, match=rf"mert\.pt: trained with {field} = true: it .*, which HuBERT does not"
    ):
        open_encoder(file, architecture=folder)


@pytest.mark.parametrize("stable", [False, True])
def test_7_a_fairseq_checkpoint_computes_what_was_saved(tmp_path: Path, stable: bool) -> None:
    model: Any = hubert(**(STABLE if stable else {}))
    file = save_fairseq(model, tmp_path / "x.pt", layer_norm=stable, layer_norm_first=stable)
    model.config.save_pretrained(tmp_path / "config")
    encoder = open_encoder(file, architecture=tmp_path / "config")
    same_output(encoder.module(), model)
    assert set(encoder.checkpoint) == {canonical(k) for k in model.state_dict()}
    assert set(encoder.left_out) == {"final_proj.weight", "label_embs_concat"}


def test_22_a_fairseq_checkpoint_in_pre_norm_is_not_read_as_post_norm(tmp_path: Path) -> None:
    model: Any = hubert()
    model.config.save_pretrained(tmp_path / "config")
    file = save_fairseq(model, tmp_path / "x.pt", layer_norm_first=True)
    with pytest.raises(FileError, match=r"layer_norm_first = True, .* do_stable_layer_norm = False"):
        open_encoder(file, architecture=tmp_path / "config")


@pytest.mark.parametrize("name", ["hubert", "hubert-large", "mert-v1-330m"])
def test_the_table_covers_a_published_model_one_to_one(name: str) -> None:
    module: Any = load_source(name).module
    state = module.state_dict()
    (table,) = (t for t in tables() if "mask_emb" in t.names and "encoder.pos_conv.0.bias" in t.when)
    layer_norm = module.config.feat_extract_norm == "layer"
    theirs = {fairseq_name(key, layer_norm): canonical(key) for key in state}
    assert len(theirs) == len(state) and set(table.when) <= set(theirs)
    assert {key: table.key(key) for key in theirs} == theirs
    assert table.key("final_proj.bias") is None
    assert table.key("encoder.layers.0.self_attn.grep_a") == "encoder.layers.0.self_attn.grep_a"


class Omega:
    """An object pickled as OmegaConf's are: its fields in `_content`, each in a node with `_val`."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def test_the_architecture_of_a_base_size_checkpoint_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load_source("hubert").module
    # one number behind every tensor: the file of 94 M weights stays small
    state = {fairseq_name(k, False): torch.zeros(()).expand(v.shape) for k, v in module.state_dict().items()}
    package = types.ModuleType("omegaconf")
    package.DictConfig = type("DictConfig", (Omega,), {"__module__": "omegaconf"})  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", package)
        node = package.DictConfig
        task = node(_content={"sample_rate": node(_val=24_000), "normalize": node(_val=True)})
        torch.save({"model": state, "cfg": node(_content={"task": task})}, tmp_path / "base.pt")
    encoder = open_encoder(tmp_path / "base.pt")
    assert encoder.architecture == "hubert" and encoder.config["hidden_size"] == 768
    assert (encoder.sampling_rate, encoder.do_normalize) == (24_000, True)


def test_a_file_of_unknown_shape_asks_for_its_architecture(tmp_path: Path) -> None:
    file = save_fairseq(hubert(), tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"fit none of hubert, hubert-large, .*Pass architecture="):
        open_encoder(file)
    with pytest.raises(UsageError, match=r"architecture='huber': give an alias \(.*or a folder"):
        open_encoder(file, architecture="huber")
    with pytest.raises(UsageError, match=r"a folder has its own config\.json"):
        open_encoder(save(hubert(), tmp_path / "m"), architecture="hubert")


def test_21_models_of_two_sizes_are_refused_with_the_differing_fields(tmp_path: Path) -> None:
    a = open_encoder(save(hubert(), tmp_path / "a"))
    wide = {"hidden_size": 36, "num_hidden_layers": 3, "conv_kernel": (10, 3, 3), "activation_dropout": 0.3}
    b = open_encoder(save(hubert(**wide), tmp_path / "b"))
    with pytest.raises(FileError) as caught:
        compare(a, b)
    text = str(caught.value)
    assert "field" in text and "A: a" in text and "B: b" in text and "dropout" not in text
    for field, values in {
        "hidden_size": "24 +36",
        "num_hidden_layers": "2 +3",
        "conv_kernel": r".*\[10, 3, 3\]",
    }.items():
        assert re.search(rf"{field} +{values}", text)


@pytest.mark.parametrize("field, value", [("do_stable_layer_norm", True), ("num_attention_heads", 4)])
def test_22_the_same_shapes_in_another_function_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    a = open_encoder(save(hubert(), tmp_path / "a"))
    b = open_encoder(save(hubert(**{field: value}), tmp_path / "b"))
    assert a.checkpoint.shapes == b.checkpoint.shapes
    with pytest.raises(FileError, match=rf"not one architecture[^|]*{field} "):
        compare(a, b)


def test_one_function_under_two_configurations_is_accepted(tmp_path: Path) -> None:
    a = open_encoder(save(hubert(), tmp_path / "a"))
    fields = AUDIO | {"mask_time_prob": 0.05, "hidden_dropout": 0.3, "num_negatives": 7}
    b = open_encoder(
        save(randomise(transformers.Wav2Vec2Model(config("Wav2Vec2", **fields))), tmp_path / "b")
    )
    assert a.config["model_type"] != b.config["model_type"]
    compare(a, b)


def test_24_two_sampling_rates_are_refused_unless_asked_for(tmp_path: Path) -> None:
    a = open_encoder(save(hubert(), tmp_path / "a"))
    b = open_encoder(mert(tmp_path / "b", hubert(1), tmp_path / "was_run"))
    with pytest.raises(FileError, match=r"16,000 Hz.*24,000 Hz.*--per-model-rate"):
        compare(a, b)
    compare(a, b, per_model_rate=True)


def test_a_folder_and_a_fairseq_file_merge_into_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    model_a: Any = hubert(0)
    model_b = hubert(1)
    a = open_encoder(save(model_a, tmp_path / "a"))
    b = open_encoder(save_fairseq(model_b, tmp_path / "b.pt"), architecture=tmp_path / "a")
    compare(a, b)
    plan = compile_plan(infer(a.trace), "all", "", "exact")
    perms = random_permutations(plan, seed=3)
    moved = apply_checkpoint(plan, perms, b.path, tmp_path / "moved.safetensors")
    whole = open_encoder(moved, architecture=tmp_path / "a").module(dtype=torch.float64)
    x = noise(2, 900).double()  # sums in another order differ by rounding, so in float64
    same_output(whole, model_b.double(), x)

    out = merge_checkpoints(a.path, b.path, tmp_path / "out", (0.0, 1.0), plan=plan, perms=perms)
    same_output(transformers.AutoModel.from_pretrained(out).double(), model_b, x)
    out = merge_checkpoints(a.path, b.path, tmp_path / "mean", (0.25, 0.75), parametrized="parts")
    merged = transformers.AutoModel.from_pretrained(out).state_dict()
    state_a, state_b = model_a.state_dict(), model_b.float().state_dict()
    for key, tensor in merged.items():
        torch.testing.assert_close(tensor, 0.25 * state_a[key] + 0.75 * state_b[key])


def test_a_merge_onto_mert_loads_without_its_code_when_given_the_encoders_config(tmp_path: Path) -> None:
    a = open_encoder(mert(tmp_path / "a", hubert(0), tmp_path / "was_run"))
    model_b = hubert(1)
    extra = {"config.json": json.dumps(a.config).encode()}
    out = merge_checkpoints(a.path, save(model_b, tmp_path / "b"), tmp_path / "out", (0.0, 1.0), extra=extra)
    same_output(transformers.AutoModel.from_pretrained(out, trust_remote_code=False), model_b)
    assert not list(out.glob("*.py")) and not (tmp_path / "was_run").exists()


def test_other_pickles_keep_their_names(tmp_path: Path) -> None:
    torch.save({"layer_norm.weight": torch.ones(3), "fc1.weight": torch.ones(2, 3)}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert set(checkpoint) == {"layer_norm.weight", "fc1.weight"} and checkpoint.left_out == ()


@pytest.mark.parametrize(
    "name, content",
    [
        ("preprocessor_config.json", {"sampling_rate": 24_000, "do_normalize": True}),
        ("processor_config.json", {"feature_extractor": {"sampling_rate": 24_000, "do_normalize": True}}),
        ("processor_config.json", {"sampling_rate": 24_000, "do_normalize": True}),
    ],
)
def test_a_processors_file_says_what_the_model_receives(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    folder = save(hubert(), tmp_path / "m")
    (folder / name).write_text(json.dumps(content))
    encoder = open_encoder(folder)
    assert (encoder.sampling_rate, encoder.do_normalize, encoder.audio.assumed) == (24_000, True, "")


@pytest.mark.parametrize("front", ["group", "layer"])
def test_what_no_file_says_is_assumed_and_said(tmp_path: Path, front: str) -> None:
    fields = STABLE | {"feat_extract_norm": "layer"} if front == "layer" else {}
    encoder = open_encoder(save(hubert(**fields), tmp_path / "m"))
    assert (encoder.sampling_rate, encoder.do_normalize) == (16_000, front == "layer")
    assert "assumed: 16,000 Hz" in encoder.audio.assumed
    (tmp_path / "m" / "preprocessor_config.json").write_text('{"sampling_rate": "fast"}')
    with pytest.raises(FileError, match="'fast' is not a sampling rate in Hz"):
        open_encoder(tmp_path / "m")
