"""What a user types as MODEL: aliases, folders, hub ids, factories, and every way to get it wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from permgraph.errors import TraceError, UsageError
from permgraph.frontend.sources import aliases, is_alias, load_source

# in millions, as the papers, model cards and torchaudio give them
PUBLISHED = {
    "hubert": 94.4,
    "hubert-large": 315.4,
    "hubert-xlarge": 962.5,
    "mert": 94.4,
    "mert-v1-95m": 94.4,
    "mert-v1-330m": 315.4,
    "wav2vec2": 94.4,
    "wav2vec2-large": 315.4,
    "wavlm": 94.4,
    "data2vec-audio": 93.2,
    "unispeech-sat": 94.4,
    "sew": 40.7,
    "w2v-bert": 580.5,
    "whisper-tiny": 8.2,
    "whisper-base": 20.6,
    "whisper-small": 88.2,
    "whisper-medium": 307.2,
    "whisper-large": 636.8,
    "whisper-large-v2": 636.8,
    "whisper-large-v3": 637.0,
    "ast": 86.2,
}

MERT = {
    "model_type": "mert_model",
    "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": [10, 14],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "attention_relax": -1.0,
}
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40}
FOLDERS: dict[str, dict[str, Any]] = {
    "bert": SMALL | {"vocab_size": 31},
    "gpt2": {"n_embd": 24, "n_layer": 1, "n_head": 3, "vocab_size": 31},
    "llama": SMALL | {"vocab_size": 31},
    "t5": {"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 1, "num_heads": 3, "vocab_size": 31},
    "vit": SMALL | {"image_size": 32, "patch_size": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"},
    "audio-spectrogram-transformer": SMALL | {"max_length": 40, "num_mel_bins": 20, "patch_size": 8},
    "whisper": {
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "num_mel_bins": 20,
        "max_source_positions": 11,
    },
    "wav2vec2": {k: v for k, v in MERT.items() if k not in ("auto_map", "model_type")},
    "wav2vec2-bert": SMALL | {"feature_projection_input_dim": 20, "conv_depthwise_kernel_size": 5},
}


def folder(path: Path, config: Any) -> str:
    path.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (path / "config.json").write_text(text)
    return str(path)


def runs(model: str) -> Any:
    """The outputs of `model`'s source on its own example, exported, on the meta device."""
    source = load_source(model)
    assert not source.module.training
    program = torch.export.export(source.module, source.args, source.kwargs, strict=False)
    return program.module()(*source.args, **source.kwargs)


def test_every_alias_of_the_documentation_exists_and_no_other() -> None:
    assert set(aliases()) == set(PUBLISHED)
    assert is_alias("hubert") and not is_alias("huber")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_alias_has_the_published_number_of_parameters_and_no_weights(name: str) -> None:
    module = load_source(name).module
    count = sum(p.numel() for p in module.parameters())
    assert count == aliases()[name].parameters
    assert count / 1e6 == pytest.approx(PUBLISHED[name], abs=0.06)
    assert {p.device.type for p in module.parameters()} == {"meta"}


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "name", sorted(set(PUBLISHED) - {"hubert-xlarge", "whisper-large", "whisper-large-v2"})
)
def test_alias_runs_on_its_example_and_returns_its_representation_only(name: str) -> None:
    source = load_source(name)
    outputs = source.module(*source.args)
    assert set(outputs) <= {"last_hidden_state", "pooler_output"}
    assert outputs["last_hidden_state"].device.type == "meta"


def test_large_hubert_is_pre_norm_and_mert_large_keeps_the_group_norm() -> None:
    large, mert = (load_source(n).module.config for n in ("hubert-large", "mert-v1-330m"))
    assert (large.feat_extract_norm, large.do_stable_layer_norm, large.conv_bias) == ("layer", True, True)
    assert (mert.feat_extract_norm, mert.do_stable_layer_norm, mert.conv_bias) == ("group", True, False)


def test_aliases_are_read_without_torch() -> None:
    code = "import sys; from permgraph.frontend.sources import aliases, is_alias; assert is_alias('mert');"
    code += "assert not {'torch', 'transformers', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_folder_with_a_config_alone_runs(kind: str, tmp_path: Path) -> None:
    outputs = runs(folder(tmp_path, FOLDERS[kind] | {"model_type": kind}))
    assert outputs["last_hidden_state"].shape[0] == 1


@pytest.mark.parametrize("kind", ["whisper", "t5"])
def test_only_the_encoder_of_an_encoder_decoder_is_traced(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    name = folder(tmp_path, FOLDERS[kind] | {"model_type": kind})
    source = load_source(name)
    whole = AutoModel.from_config(AutoConfig.from_pretrained(name)).state_dict()
    assert source.prefix == "encoder."
    assert {source.prefix + key for key in source.module.state_dict()} <= set(whole)


def test_mert_folder_is_the_hubert_it_is(tmp_path: Path) -> None:
    as_mert = load_source(folder(tmp_path / "mert", MERT)).module
    as_hubert = load_source(folder(tmp_path / "hubert", MERT | {"model_type": "hubert"})).module
    assert type(as_mert).__name__ == "HubertModel"
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (as_mert, as_hubert)]
    assert shapes[0] == shapes[1] and shapes[0]


@pytest.mark.parametrize("key", ["feature_extractor_cqt", "deepnorm"])
def test_fault_23_other_mert_is_refused_with_the_reason(key: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=f"this MERT has {key} = true: it .* HuBERT does not"):
        load_source(folder(tmp_path, MERT | {key: True}))


@pytest.mark.parametrize("kind", ["mert_model", "hubert", "never_heard_of"])
def test_p1_no_code_of_a_folder_is_run(kind: str, tmp_path: Path) -> None:
    """Whatever config.json asks for: its own model code, or a kernel from the hub."""
    marker = tmp_path / "was_run"
    code = f"open({str(marker)!r}, 'w').close()\nraise SystemExit\n"
    config = MERT | {"model_type": kind}
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config |= {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    name = folder(tmp_path / "model", config)
    for module in ("evil", "configuration_MERT", "modeling_MERT", "__init__"):
        (tmp_path / "model" / f"{module}.py").write_text(code)
    if kind == "never_heard_of":
        with pytest.raises(TraceError, match=r"needs Python code from its folder .* never runs.*factory"):
            load_source(name)
    else:
        runs(name)
    assert not marker.exists()


def test_typo_lists_the_nearest_aliases() -> None:
    with pytest.raises(UsageError, match=r"huber: no such model\. Did you mean hubert.*Aliases: ast, "):
        load_source("huber")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json: cannot read this configuration: Expecting property name"),
        ("[" * 100_000, r"config\.json: cannot read this configuration"),
        ([1], r"config\.json: expected a JSON object, found a list\."),
        ({}, r"no model_type"),
        (
            {"model_type": "huber"},
            r"model_type 'huber' is not one that transformers has\. Did you mean hubert",
        ),
        ({"model_type": "hubert", "hidden_size": "wide"}, r"not a valid hubert configuration: .*str"),
        ({"model_type": "hubert", "hidden_size": 7}, r"HubertModel cannot be built from it: "),
        ({"model_type": "encodec"}, r"no example input is known for EncodecModel\(input_values, …\)"),
    ],
)
def test_damaged_folder_is_a_clear_error(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=message):
        load_source(folder(tmp_path, content))


def test_folder_without_config_and_other_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json in it"):
        load_source(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.touch()
    with pytest.raises(UsageError, match=r"a file\. Give the folder with its config\.json"):
        load_source(str(weights))
    with pytest.raises(UsageError, match=r"no such model"):
        load_source(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"net\.py: name the function .* net\.py:factory"):
        load_source("net.py")


def test_fault_27_offline_hub_is_one_line_and_names_the_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: str) -> str:
        raise ConnectionError("a\nlong\nstory")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    for hub_id, hint in {"facebook/hubert-base-ls960": "alias hubert", "some/thing": "give a folder"}.items():
        with pytest.raises(TraceError, match=f"{hub_id}: .*Hugging Face hub.*{hint}") as caught:
            load_source(hub_id)
        assert "\n" not in str(caught.value)


def test_hub_id_reads_only_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def download(*args: str) -> str:
        asked.append(args)
        return str(Path(folder(tmp_path, MERT)) / "config.json")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert type(load_source("m-a-p/MERT-v0-public").module).__name__ == "HubertModel"
    assert asked == [("m-a-p/MERT-v0-public", "config.json")]


NET = """
import torch, beside
from torch import nn
made = nn.Linear(3, 2)
def factory(): return made, {inputs}
def raising(): return 1 / 0
def wrong(): return made
def nothing(): pass
def leaving(): raise SystemExit(0)
def strange(): return made, 7
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "net.py").write_text(NET.replace("{inputs}", "(torch.ones(1, 3),)"))
    return tmp_path / "net.py"


@pytest.mark.parametrize("inputs", ["(torch.ones(1, 3),)", "torch.ones(1, 3)", "{'input': torch.ones(1, 3)}"])
def test_factory_of_a_file_is_used_as_returned(inputs: str, net: Path) -> None:
    net.write_text(NET.replace("{inputs}", inputs))
    before = list(sys.path)
    source = load_source(f"{net}:factory")
    assert source.module(*source.args, **source.kwargs).shape == (1, 2)
    assert source.module.training  # untouched
    assert sys.path == before


def test_factory_of_a_module(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = net.parent / "some_package_of_mine"
    package.mkdir()
    (package / "nets.py").write_text(net.read_text())
    monkeypatch.chdir(net.parent)
    source = load_source("some_package_of_mine.nets:factory")
    assert isinstance(source.module, torch.nn.Linear)


@pytest.mark.parametrize(
    ("typed", "kind", "message"),
    [
        ("{net}:factry", UsageError, r"no function 'factry' in it\. Did you mean factory"),
        ("{net}:raising", TraceError, r"the factory raised ZeroDivisionError: .* \(net\.py:6\)"),
        ("{net}:wrong", TraceError, r"returned Linear; it must return \(nn\.Module, example_inputs\)"),
        ("{net}:nothing", TraceError, r"returned None"),
        ("{net}:leaving", TraceError, r"raised SystemExit"),
        ("{net}:strange", TraceError, r"example inputs are int; give a tuple"),
        ("{net}:", UsageError, r"expected file\.py:function"),
        ("absent.py:factory", UsageError, r"no such file: absent\.py"),
        ("absent_package.nets:factory", UsageError, r"no module named 'absent_package'"),
    ],
)
def test_factory_mistakes(typed: str, kind: type[Exception], message: str, net: Path) -> None:
    with pytest.raises(kind, match=message):
        load_source(typed.format(net=net))


def test_file_that_does_not_run_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(TraceError, match=r"running the file raised ModuleNotFoundError: .*\(net\.py:1\)"):
        load_source(f"{tmp_path / 'net.py'}:factory")
