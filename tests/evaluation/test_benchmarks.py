"""Exported encoders, loaded and called the way that each benchmark loads and calls one."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

import permgraph as pg
from permgraph.errors import FileError, UsageError
from permgraph.evaluation.features import FrozenEncoder
from permgraph.weights.encoder import open_encoder
from tests.test_cli import run

CLIPS = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (9_000, 6_500)]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
KINDS = {  # as HuBERT-base, and as HuBERT-large
    "speech": dict(rate=16_000, normalize=False, norm="group"),
    "music": dict(rate=24_000, normalize=True, norm="layer"),
}
NEEDED = {"xares", "mteb", "marble", "s3prl", "torchaudio"}  # modules that a benchmark brings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("encoders")
    for seed, (name, kind) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        config = HubertConfig(
            **SMALL,
            feat_extract_norm=kind["norm"],
            do_stable_layer_norm=kind["norm"] == "layer",
        )
        HubertModel(config).save_pretrained(where / name)
        audio = {"sampling_rate": kind["rate"], "do_normalize": kind["normalize"]}
        (where / name / "preprocessor_config.json").write_text(json.dumps(audio))
    return where


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder of its own to import from, and no trace of what was imported."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"out", "hubconf", *NEEDED} or name.endswith("_mteb"):
            del sys.modules[name]


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **values: Any) -> None:
    """A module that a benchmark brings, with the names that its contract promises."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        inner = ".".join(parts[:i])
        monkeypatch.setitem(sys.modules, inner, sys.modules.get(inner) or ModuleType(inner))
    for key, value in values.items():
        monkeypatch.setattr(sys.modules[name], key, value, raising=False)


def expected(encoder: Path, clip: Tensor) -> Tensor:
    """What `evaluate` judges: all layers of a clip, (layers, frames, width)."""
    frozen = FrozenEncoder(open_encoder(encoder))
    samples = clip.numpy()
    if frozen.preprocess.normalize:
        wide = samples.astype(np.float64)
        samples = ((wide - wide.mean()) / np.sqrt(wide.var() + 1e-7)).astype(np.float32)
    return torch.from_numpy(frozen.layers(samples))


def same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=2e-5)


def loaded(made: Any, *rest: str) -> ModuleType:
    return importlib.import_module(".".join([made.folder.name, made.file.stem]))


@pytest.mark.parametrize("kind", KINDS)
def test_x_ares_finds_one_encoder_and_its_check_passes(folder: Path, kind: str) -> None:
    """Its contract: one name that ends in Encoder; sampling_rate, output_dim, hop_size_in_ms; (B, T) → (B, T', D)."""
    module = loaded(pg.export(folder / kind, "xares", "out"))
    found = [name for name in dir(module) if name.endswith("Encoder")]
    assert found == [f"{kind.title()}Encoder"]
    encoder = getattr(module, found[0])().eval()
    assert isinstance(encoder, nn.Module)
    assert encoder.sampling_rate == KINDS[kind]["rate"] and encoder.output_dim == 16
    assert encoder.hop_size_in_ms == pytest.approx(1000 * 5 * 4 * 4 / KINDS[kind]["rate"])
    with torch.inference_mode():
        made = encoder(torch.randn(2, 50_000))
        assert made.ndim == 3 and made.shape[::2] == (2, 16)
        assert made.shape[1] == pytest.approx(
            50_000 / encoder.sampling_rate / encoder.hop_size_in_ms * 1000, abs=2
        )
        batch = torch.stack([clip[:6000] for clip in CLIPS])
        for row, clip in zip(encoder(batch), batch, strict=True):
            assert same(row, expected(folder / kind, clip)[-1])


def test_x_ares_own_check(folder: Path) -> None:
    checker = pytest.importorskip("xares.audio_encoder_checker", reason="xares is not installed")
    from xares.utils import attr_from_py_path

    pg.export(folder / "speech", "xares", "out")
    assert checker.check_audio_encoder(attr_from_py_path("out/speech_encoder.py", endswith="Encoder")())


@pytest.mark.parametrize("kind", KINDS)
def test_mteb_loads_a_model_that_embeds_clips(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its contract: a ModelMeta whose loader takes name, revision and device; encode(batches of {"audio": [{"array",
    "sampling_rate"}]}) → one row per clip."""

    class Meta:
        def __init__(self, **fields: Any) -> None:
            vars(self).update(fields)

    stub(monkeypatch, "mteb.models", ModelMeta=Meta)
    stub(monkeypatch, "mteb.models.abs_encoder", AbsEncoder=object)
    made = pg.export(folder / kind, "mteb", "out")
    monkeypatch.syspath_prepend(str(made.folder.resolve()))
    meta = importlib.import_module(f"{kind}_mteb").model
    weights = sum(p.numel() for p in open_encoder(folder / kind).source.module.parameters())
    assert (meta.name, meta.embed_dim, meta.n_parameters) == (f"permgraph/{kind}", 16, weights)
    assert meta.modalities == ["audio"]
    encoder = meta.loader(meta.name, revision=meta.revision, device="cpu")
    rate = KINDS[kind]["rate"]
    items = [{"array": clip.numpy(), "sampling_rate": rate} for clip in CLIPS]
    items.append({"array": np.stack([CLIPS[0], CLIPS[0]]), "sampling_rate": rate})
    rows = encoder.encode(
        [{"audio": items[:2]}, {"audio": items[2:]}], task_metadata=None, hf_split="test", hf_subset="default"
    )
    assert rows.shape == (3, 16)
    for row, clip in zip(rows, [*CLIPS, CLIPS[0]], strict=True):
        assert same(torch.from_numpy(row), expected(folder / kind, clip)[-1].mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_s3prl_takes_clips_of_several_lengths(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its contract: torch.hub finds an entry; a list of clips at 16 kHz → {"hidden_states": layers of (B, T, D)};
    get_downsample_rates."""
    rate = KINDS[kind]["rate"]
    stub(monkeypatch, "torchaudio.functional", resample=resample)
    made = pg.export(folder / kind, "s3prl", "out")
    upstream = torch.hub.load(str(made.folder), kind, source="local").eval()
    with torch.no_grad():
        out = upstream(CLIPS)
    hop = upstream.get_downsample_rates("hidden_states")
    assert hop == round(80 * 16_000 / rate)
    assert len(out["hidden_states"]) == 3 and out["last_hidden_state"] is out["hidden_states"][-1]
    for i, clip in enumerate(CLIPS):
        at = clip if rate == 16_000 else resample(clip, 16_000, rate)
        wanted = expected(folder / kind, at)
        frames = wanted.shape[1]
        assert abs(frames - len(clip) / hop) < 5
        mine = torch.stack([layer[i] for layer in out["hidden_states"]])
        assert same(mine[:, :frames], wanted) and not mine[:, frames:].any()
    module = loaded(made)  # as a package of s3prl, whose hub imports * of it
    assert module.__all__ == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_marble_gets_a_tuple_of_layers(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contract: a class by its path, without arguments; (B, T) → layers to index and to stack, (B, T', D) each."""

    class BaseEncoder(nn.Module):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()

    stub(monkeypatch, "marble.core.base_encoder", BaseEncoder=BaseEncoder)
    made = pg.export(folder / kind, "marble", "out")
    encoder = getattr(loaded(made), f"{kind.title()}Encoder")()
    assert (
        f"out.{kind}_marble.{kind.title()}Encoder" in made.usage
        and f"sample_rate: {encoder.sample_rate}" in made.usage
    )
    batch = torch.stack([clip[:6000] for clip in CLIPS])
    for inputs in (batch, batch[:, None]):
        layers = encoder.train()(inputs)
        assert isinstance(layers, tuple) and not any(p.requires_grad for p in encoder.parameters())
        stacked = torch.stack([layers[i] for i in (0, 2)], dim=1)
        for row, clip in zip(stacked, batch, strict=True):
            assert same(row, expected(folder / kind, clip)[[0, 2]])


@pytest.mark.parametrize("family", ["WavLM", "Data2VecAudio", "Wav2Vec2", "UniSpeechSat", "SEW"])
def test_every_family_of_raw_audio_is_exported_and_evaluated_alike(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **SMALL,
        num_feat_extract_layers=3,
    )
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path / "model")
    encoder = loaded(pg.export(tmp_path / "model", "xares", "out")).ModelEncoder()
    assert encoder.normalize is False
    with torch.no_grad():
        assert same(encoder.layers(CLIPS[0]), expected(tmp_path / "model", CLIPS[0]))


def test_a_clip_shorter_than_a_frame_gives_one(folder: Path) -> None:
    module = loaded(pg.export(folder / "speech", "xares", "out"))
    assert module.SpeechEncoder()(torch.randn(1, 3)).shape == (1, 1, 16)


def test_what_is_written_needs_no_permgraph_and_loads_in_transformers(folder: Path) -> None:
    made = pg.export(folder / "music", "xares", "out")
    assert "import permgraph" not in made.file.read_text() and "from permgraph" not in made.file.read_text()
    assert "Permgraph" not in made.file.read_text() and "FOLDER" not in made.file.read_text()
    model, told = HubertModel.from_pretrained(made.folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    source = open_encoder(folder / "music").module().state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.state_dict().items())


def test_the_command_line_and_its_mistakes(folder: Path, tmp_path: Path) -> None:
    said = run("export", folder / "speech", "--format", "xares", "-o", "out")
    assert said.code == 0 and "python -m xares.run out/speech_encoder.py" in said.out, said.err
    again = run("export", folder / "speech", "--format", "mteb", "-o", "out")
    assert again.code == 3 and "--force" in again.err
    assert run("export", folder / "speech", "--format", "mteb", "-o", "out", "--force").code == 0
    for words, code, told in (
        (("--format", "xare", "-o", "x"), 2, "Did you mean xares"),
        (("--format", "xares", "-o", "hubert-0.9"), 2, "letters, digits and underscores"),
        (("--format", "mteb", "-o", "no/where"), 3, "does not exist"),
        (("--format", "mteb", "-o", folder / "speech" / "x"), 3, "inside the input"),
        (("--format", "mteb", "-o", "y", "--class", "HubertForCTX"), 2, "Did you mean"),
    ):
        said = run("export", folder / "speech", *words)
        assert said.code == code and told in said.err, said.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    said = run("export", folder / "speech", "--format", "mteb", "-o", "mine", "--force")
    assert said.code == 3 and (tmp_path / "mine" / "notes.txt").exists()
    with pytest.raises((FileError, UsageError)):
        pg.export(tmp_path / "none", "mteb", "z")


def resample(clip: Tensor, rate: int, wanted: int) -> Tensor:
    """Linear: enough to see that it is called, and with what."""
    frames = round(len(clip) * wanted / rate)
    return torch.nn.functional.interpolate(clip[None, None], size=frames, mode="linear")[0, 0]


def test_long_clips_are_cut_as_evaluate_cuts_them(folder: Path, tmp_path: Path) -> None:
    """In pieces of half a minute; a rest too short for a frame is left out."""
    import soundfile

    rate = 16_000
    clip = torch.randn(30 * rate * 2 + 300, generator=torch.Generator().manual_seed(0)) * 0.1
    clip[30 * rate :] *= 0.01  # what is normalised or normed over the clip alone is another there
    soundfile.write(tmp_path / "long.wav", clip.numpy(), rate, subtype="FLOAT")
    made = pg.export(folder / "speech", "s3prl", "out")
    upstream = torch.hub.load(str(made.folder), "speech", source="local").eval()
    with torch.no_grad():
        layers = torch.stack(upstream([clip])["hidden_states"])[:, 0]
    frozen = FrozenEncoder(open_encoder(folder / "speech"))
    judged = torch.from_numpy(np.concatenate([*frozen.of_file(tmp_path / "long.wav")], axis=1))
    assert same(layers, judged)


def test_what_is_assumed_of_the_audio_is_told(folder: Path) -> None:
    (folder / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "bare" / name).write_bytes((folder / "music" / name).read_bytes())
    assert pg.export(folder / "music", "s3prl", "out").notes == ()
    assert any("assumed" in note for note in FrozenEncoder(open_encoder(folder / "bare")).notes)
    made = pg.export(folder / "bare", "s3prl", "out", force=True)
    assert len(made.notes) == 1 and "bare: no file says what it receives" in made.notes[0]
    assert "assumed: 16,000 Hz" in made.notes[0]
    told = run("export", str(folder / "bare"), "--format", "s3prl", "-o", "out", "--force")
    assert made.notes[0] in " ".join(told.err.split())
