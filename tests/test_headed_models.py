"""Folders of models with a head: the base model without further notice, the whole class with `--class`, at every verb."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import transformers
from networks.randomise import randomise
from safetensors.torch import load_file, save_file

import permgraph as pg
from permgraph.frontend.sources import load_source
from permgraph.weights.encoder import open_encoder
from tests.evaluation import miniature as m
from tests.test_cli import Said, run

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
WAVES = {
    **{"conv_dim": (10, 14), "conv_kernel": (10, 3), "conv_stride": (5, 2), "vocab_size": 19},
    **{"num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4},
}
GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 37, "n_positions": 32}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
CONFIGS: dict[str, Any] = {
    "HubertForCTC": transformers.HubertConfig(**SIZES, **WAVES),
    "BertForSequenceClassification": transformers.BertConfig(**SIZES, vocab_size=31, num_labels=5),
    "GPT2LMHeadModel": transformers.GPT2Config(**GPT2),  # the head is the table of embeddings
    "ViTForImageClassification": transformers.ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=7),
}
BATCHES = """
import torch
draw = torch.Generator().manual_seed(0)
def waves():
    for _ in range(3): yield {"input_values": torch.randn(2, 400, generator=draw)}
def tokens():
    for _ in range(3): yield {"input_ids": torch.randint(0, 31, (2, 12), generator=draw)}
def images():
    for _ in range(3): yield {"pixel_values": torch.randn(2, 3, 32, 32, generator=draw)}
"""
INPUTS: dict[str, dict[str, torch.Tensor]] = {
    "waves": {"input_values": torch.linspace(-1, 1, 700)[None].sin()},
    "tokens": {"input_ids": torch.arange(2, 14)[None]},
    "images": {"pixel_values": torch.linspace(-9, 9, 3 * 32 * 32).sin().view(1, 3, 32, 32)},
}
FED = {"Hubert": "waves", "Bert": "tokens", "GPT2": "tokens", "ViT": "images"}


def network(kind: str, seed: int) -> Any:
    torch.manual_seed(0)
    return randomise(getattr(transformers, kind)(CONFIGS[kind]), seed)


def fed(kind: str) -> str:
    return next(name for start, name in FED.items() if kind.startswith(start))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    for kind in CONFIGS:
        for name, seed in (("A", 1), ("B", 2)):
            network(kind, seed).save_pretrained(folder / kind / name)
        (folder / kind / "data.py").write_text(BATCHES, encoding="utf-8")
    return folder


@pytest.fixture
def there(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder of the test's own: no output of another one is there."""
    own = tmp_path_factory.mktemp("own") / kind
    monkeypatch.chdir(copytree(place / kind, own, ignore=lambda *_: {"plan.json", "perms.safetensors"}))


def typed(*args: object) -> Said:
    said = run(*args)
    assert said.code == 0, said.err
    return said


def logits(kind: str, folder: str) -> torch.Tensor:
    """What transformers makes of the folder, in float64, under the class that was saved."""
    made, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in INPUTS[fed(kind)].items()}
    with torch.no_grad():
        result: torch.Tensor = made.eval().double()(**inputs).logits
    return result


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow if k != "HubertForCTC" else ()) for k in CONFIGS],
)
@pytest.mark.usefixtures("there")
def test_a_head_model_is_traced_planned_matched_and_merged_whole(kind: str) -> None:
    said = typed("trace", "A", "--class", kind)
    assert f"traced as {kind}." in said.out and "residual" in said.out
    assert typed("trace", "A", "--class", "config", "-o", "c.json").out == said.out
    typed("plan", "-g", "all")
    plan = pg.Plan.load("plan.json")
    assert any(group.role == "residual" for group in plan.groups)
    assert typed("verify", "A", "--plan", "plan.json", "--json")
    pg.random_permutations(plan, seed=1).save("random.safetensors")
    said = typed("apply", "plan.json", "random.safetensors", "A", "-o", "permuted")
    assert "computes what A computes" in said.err
    before, after = logits(kind, "A"), logits(kind, "permuted")
    assert float((before - after).abs().max() / before.abs().max()) < 1e-9
    assert load_file("permuted/model.safetensors").keys() == load_file("A/model.safetensors").keys()
    data = f"data.py:{fed(kind)}"
    said = typed("match", "plan.json", "--a", "A", "--b", "B", "--data", data)
    assert f"A: traced as {kind}" in said.err
    typed("merge", "A", "B", "--plan", "plan.json", "--perms", "perms.safetensors", "-o", "merged")
    assert logits(kind, "merged").shape == before.shape
    assert f"traced as {kind}" in Path("merged/README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k.startswith("GPT2") else k for k in CONFIGS]
)
@pytest.mark.usefixtures("there")
def test_a_model_is_recovered_from_its_own_permuted_copy(kind: str, tmp_path: Path) -> None:
    """Planted: B is A, re-ordered with its residual stream. Merged in one command it is A again, head included."""
    plan = pg.plan(pg.infer(pg.trace("A", model_class=kind)), "all", "heads.*/qk")
    plan.save(tmp_path / "plan.json")
    pg.random_permutations(plan, seed=3).save(tmp_path / "p.safetensors")
    typed("apply", tmp_path / "plan.json", tmp_path / "p.safetensors", "A", "-o", tmp_path / "B")
    data = f"data.py:{fed(kind)}"
    typed("merge", "A", tmp_path / "B", "--class", kind, "--data", data, "-o", tmp_path / "merged")
    assert float((logits(kind, "A") - logits(kind, str(tmp_path / "merged"))).abs().max()) < 1e-4
    without = ("merge", "A", tmp_path / "B", "--class", kind, "-g", "none", "-o", tmp_path / "averaged")
    typed(*without)
    assert float((logits(kind, "A") - logits(kind, str(tmp_path / "averaged"))).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", ["HubertForCTC", "BertForSequenceClassification"])
@pytest.mark.usefixtures("there")
def test_without_a_class_the_base_model_is_traced_and_that_is_said(kind: str, tmp_path: Path) -> None:
    said = typed("trace", "A", "-o", tmp_path / "t.json")
    assert f"the head that {kind} has is left out (--class config traces it whole)" in " ".join(
        said.out.split()
    )
    assert "residual" not in said.out
    said = typed("plan", "A", "-g", "ffn", "-o", tmp_path / "p.json")
    assert "traced as " in said.err
    typed("verify", "A", "--plan", tmp_path / "p.json")


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel"])
def test_a_tied_head_is_one_tensor_when_the_weights_are_read(place: Path, kind: str) -> None:
    encoder = open_encoder(place / kind / "A", model_class=kind)
    module: Any = encoder.module()
    assert module.lm_head.weight is module.transformer.wte.weight
    assert "lm_head.weight" not in encoder.checkpoint
    inputs = INPUTS["tokens"]
    with torch.no_grad():
        assert torch.equal(module(**inputs).logits, network(kind, 1)(**inputs).logits)


@pytest.mark.parametrize("kind", ["HubertForCTC"])
@pytest.mark.usefixtures("there")
def test_every_verb_refuses_a_class_that_is_none(tmp_path: Path, kind: str) -> None:
    typed("plan", "A", "-o", tmp_path / "p.json", "-g", "ffn")
    pg.random_permutations(pg.Plan.load(tmp_path / "p.json")).save(tmp_path / "p.safetensors")
    for verb in (
        "trace A -o t.json",
        "plan A -o p.json",
        "why A lm_head.weight[0]",
        "tree A",
        "draw A -o x.svg",
        "view A -o x.html",
        "verify A",
        f"match {tmp_path}/p.json --a A --b B --data data.py:waves",
        "merge A B -o m --data data.py:waves",
    ):
        said = run(*verb.split(), "--class", "HubertForCTS")
        assert said.code == 2, said
        assert "--class HubertForCTS: transformers has no such class for model_type 'hubert'" in said.err
        assert "Did you mean HubertForCTC" in said.err and said.err.count("\n") == 1
    assert not {"t.json", "p.json", "x.svg", "x.html", "m"} & {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    "model, name, message",
    [
        ("A", "BertModel", "no such class for model_type 'hubert'. Did you mean HubertModel"),
        ("A", "HubertPreTrainedModel", "no such class"),
        ("A", "torch.nn.Linear", "no such class"),
        ("A", "os", "no such class"),
        ("hubert", "config", "an alias names no class"),
        ("net.py:make", "HubertForCTC", "no model folder, hub id or alias"),
    ],
)
@pytest.mark.parametrize("kind", ["HubertForCTC"])
@pytest.mark.usefixtures("there")
def test_only_classes_of_transformers_are_built(model: str, name: str, message: str, kind: str) -> None:
    with pytest.raises(pg.PermgraphError) as error:
        pg.trace(model, model_class=name)
    assert message in str(error.value) and f"--class {name}" in str(error.value)


@pytest.mark.parametrize("kind", ["HubertForCTC"])
def test_code_of_a_folder_is_never_run(place: Path, kind: str, tmp_path: Path) -> None:
    """A class of the folder's own, and one that is named by a path, are unknown."""
    folder, marker = tmp_path / "m", tmp_path / "was_run"
    folder.mkdir()
    config = json.loads((place / kind / "A" / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["Own"],
        "auto_map": {"AutoModel": "modeling.Own", "AutoModelForCTC": "modeling.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n", encoding="utf-8")
    for name in ("config", "Own", "modeling.Own"):
        with pytest.raises(pg.PermgraphError, match="--class"):
            load_source(str(folder), model_class=name)
    assert load_source(str(folder), model_class="HubertForCTC").note == "traced as HubertForCTC"
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["HubertForCTC"])
@pytest.mark.usefixtures("there")
def test_what_does_not_belong_to_a_class_is_refused(tmp_path: Path, kind: str) -> None:
    typed("trace", "A", "--class", kind, "-o", tmp_path / "t.json")
    said = run("plan", tmp_path / "t.json", "--class", kind)
    assert said.code == 2 and "is traced already" in said.err
    network(kind, 1).hubert.save_pretrained(tmp_path / "base")
    said = run(
        "merge", tmp_path / "base", "B", "--class", kind, "--data", "data.py:waves", "-o", tmp_path / "m"
    )
    assert said.code == 3 and "lm_head.weight" in said.err and "are missing" in said.err
    said = run("trace", tmp_path / "base", "-o", tmp_path / "b.json")
    assert "traced as HubertModel." in said.out and "left out" not in said.out
    typed("plan", "A", "-g", "ffn", "-o", tmp_path / "p.json")
    match = ("match", tmp_path / "p.json", "--a", "A", "--b", "B", "--data", "data.py:waves")
    said = run(*match, "--class", kind, "-o", tmp_path / "x.safetensors")
    assert said.code == 3 and "Leave --class out" in said.err
    save_file(load_file("A/model.safetensors"), tmp_path / "x.safetensors")
    said = run(
        "merge", "A", tmp_path / "x.safetensors", "--class", kind, "--data", "data.py:waves", "-o", "m"
    )
    assert said.code == 2 and "is a single file, not a model folder" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViTForImageClassification"])
@pytest.mark.usefixtures("there")
def test_heads_with_other_labels_are_not_averaged(tmp_path: Path, kind: str) -> None:
    other = network(kind, 2)
    other.config.id2label = {i: f"bird {i}" for i in range(7)}
    other.save_pretrained(tmp_path / "B")
    arguments = ("merge", "A", tmp_path / "B", "--data", "data.py:images", "-o")
    said = run(*arguments, tmp_path / "m", "--class", "config")
    assert said.code == 3 and "name their outputs differently" in said.err and "id2label" in said.err
    typed(*arguments, tmp_path / "m")


@pytest.mark.parametrize("name", ["HubertForCTC", "HubertModel"])
def test_an_alias_takes_a_class_too(name: str) -> None:
    source = load_source("hubert", model_class=name)
    assert type(source.module).__name__ == name and source.note == f"traced as {name}"


def test_an_encoder_decoder_is_traced_whole_with_its_decoder(tmp_path: Path) -> None:
    sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 41}
    sizes |= {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("attention_heads", 4), ("ffn_dim", 40))
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(
        **sizes, **ids, max_source_positions=20, max_target_positions=30, num_mel_bins=10
    )
    randomise(transformers.WhisperForConditionalGeneration(config)).save_pretrained(tmp_path / "w")
    assert (
        pg.trace(str(tmp_path / "w")).notes[0].startswith("traced as the encoder of WhisperModel: what else")
    )
    spec = pg.infer(pg.trace(str(tmp_path / "w"), model_class="config"))
    assert any(p.tensor.startswith("model.decoder.") for group in spec.groups for p in group.places)
    said = run("verify", tmp_path / "w", "--class", "WhisperForConditionalGeneration")
    assert said.code == 0 and "kept" in said.out


@pytest.mark.parametrize("kind", ["HubertForCTC"])
@pytest.mark.usefixtures("there")
def test_lint_and_evaluate_read_the_class_that_is_named(kind: str, tmp_path: Path) -> None:
    head = '[[group]]\nname = "head"\nsize = 19\nplaces = ["lm_head.weight[0]", "lm_head.bias[0]"]\n'
    (tmp_path / "head.toml").write_text(head, encoding="utf-8")
    lint = ("lint", tmp_path / "head.toml", "A", "--json")
    without, whole = run(*lint), run(*lint, "--class", kind)
    assert [f["kind"] for f in json.loads(without.out)["findings"]] != [
        f["kind"] for f in json.loads(whole.out)["findings"]
    ]
    assert "lm_head.weight" in without.out and without.code == whole.code == 4
    typed("trace", "A")
    said = run("lint", tmp_path / "head.toml", "permgraph.trace.json", "--class", kind)
    assert said.code == 2 and "traced already" in said.err

    data = tmp_path / "data"
    m.tones(data, {"train": 8, "valid": 4, "test": 6})
    task = m.task(data, head="ridge")
    base, made = (pg.evaluate(["A"], [task], data, model_class=x) for x in ("", kind))
    assert [p.predicted for p in base.predictions] == [p.predicted for p in made.predictions]
    assert f"A: traced as {kind}." in made.notes
    said = run("evaluate", "A", "-t", task, "--data", data, "--class", "HubertForCTCs", "-o", tmp_path / "o")
    assert said.code == 2 and "Did you mean HubertForCTC" in said.err
