"""Audio as features and images, through the models' own feature extractors and image processors, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from networks.randomise import randomise
from PIL import Image
from safetensors.torch import load_file

from permgraph.calibration import Calibration, batches_for
from permgraph.errors import FileError, MatchError
from permgraph.inputs.audio import AudioPairs
from permgraph.inputs.features import feature_extractor
from permgraph.inputs.images import ImageBatches, image_processor
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.pipeline import plan_for
from permgraph.weights.apply import apply_checkpoint
from permgraph.weights.encoder import Encoder, open_encoder
from tests.command import run

RATE = 16_000
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
CONFIGS: dict[str, Any] = {
    "Whisper": lambda: transformers.WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=20,
        max_source_positions=50,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
    "AST": lambda: transformers.ASTConfig(
        **SIZES, num_mel_bins=32, max_length=98, patch_size=16, frequency_stride=16, time_stride=16
    ),
    "Wav2Vec2Bert": lambda: transformers.Wav2Vec2BertConfig(**SIZES, feature_projection_input_dim=40),
    "ViT": lambda: transformers.ViTConfig(**SIZES, image_size=16, patch_size=8),
    "ResNet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    ),
}
PROCESSORS: dict[str, Any] = {
    "Whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1),
    "AST": lambda: transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=98, mean=-2.0, std=3.0),
    "Wav2Vec2Bert": lambda: transformers.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20),
    "ViT": lambda: transformers.ViTImageProcessor(size={"height": 16, "width": 16}),
    "ResNet": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 24}, crop_pct=1.0),
}
AUDIO = ("Whisper", "AST", "Wav2Vec2Bert")


def saved(folder: Path, kind: str, processor: bool = True) -> Path:
    torch.manual_seed(0)
    net = randomise(getattr(transformers, f"{kind}Model")(CONFIGS[kind]()))
    net.save_pretrained(folder)  # type: ignore[operator]
    if processor:
        PROCESSORS[kind]().save_pretrained(folder)
    return folder


def sounds(folder: Path, seconds: float = 6.0) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    time = np.arange(round(seconds * RATE)) / RATE
    for i in range(6):
        tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.1 * time)) for f in rng.uniform(80, 6000, 6))
        wave = 0.05 * (np.asarray(tones) + rng.standard_normal(len(time))) * rng.uniform(0.3, 1)
        soundfile.write(folder / f"{i}.wav", wave, RATE)
    return folder


def pictures(folder: Path, count: int = 24) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        small.resize((40, 30 + 10 * (i % 2)), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return folder


def planted(folder: Path, kind: str) -> tuple[Path, Path, Path, Permutations]:
    """A network, and the same with its units in another order; the plan, and what brings them back."""
    a, b, plan_file = saved(folder / "a", kind), folder / "b", folder / "plan.json"
    plan = plan_for(open_encoder(a), "all")
    plan.save(plan_file)
    perms = random_permutations(plan, 3)
    apply_checkpoint(plan, perms, a, b)
    PROCESSORS[kind]().save_pretrained(b)
    return a, b, plan_file, perms.inverse(plan.spec)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k == "Wav2Vec2Bert" else k for k in CONFIGS]
)
def test_planted_units_are_recovered(tmp_path: Path, kind: str) -> None:
    a, b, plan, answer = planted(tmp_path, kind)
    data = (
        ("--audio", sounds(tmp_path / "data")) if kind in AUDIO else ("--images", pictures(tmp_path / "data"))
    )
    run("match", plan, "--a", a, "--b", b, *data, "-o", tmp_path / "p.safetensors")
    perms = Permutations.load(tmp_path / "p.safetensors")
    assert not [g for g in answer if not np.array_equal(perms[g], answer[g])]
    report = perms.report["calibration"]
    # the length that fills what the extractor reads: 98 frames of AST are 97 hops and one window
    assert report.get("seconds") == {"Whisper": 1.0, "AST": 0.995, "Wav2Vec2Bert": 5.0}.get(kind)


def test_images_merge_and_repair_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a network and itself in another order, the average is the network, but for the new statistics."""
    a, b, _, _ = planted(tmp_path, "ResNet")
    words = ("--groups", "all", "--images", pictures(tmp_path / "data"), "--weights", "0.5,0.5", "--repair")
    run("merge", a, b, *words, "-o", tmp_path / "m")
    assert "24 images" in (said := capsys.readouterr().err) and "BatchNorms" in said
    of_a, merged = (load_file(p / "model.safetensors") for p in (a, tmp_path / "m"))
    for key, tensor in of_a.items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(merged[key], tensor, rtol=1e-5, atol=1e-6)
    assert "clips of" not in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.parametrize("kind", AUDIO)
def test_features_are_those_of_the_models_own_extractor(tmp_path: Path, kind: str) -> None:
    encoder = open_encoder(saved(tmp_path / "m", kind))
    pairs = batches_for(encoder, encoder, Calibration((str(sounds(tmp_path / "s")),), seconds=1.0, batch=3))
    assert isinstance(pairs, AudioPairs)
    clips = [soundfile.read(tmp_path / "s" / "0.wav", dtype="float32")[0][:RATE]]
    want = PROCESSORS[kind]()(clips, sampling_rate=RATE, return_tensors="pt")
    first = next(iter(pairs))
    for side in (first.a, first.b):
        (name,) = side  # the mask of features without padding says nothing
        torch.testing.assert_close(side[name][:1], want[name])
        encoder.module()(**side)


@pytest.mark.parametrize("kind", AUDIO)
def test_without_a_file_the_configuration_describes_the_extractor_and_that_is_said(
    tmp_path: Path, kind: str
) -> None:
    encoder = open_encoder(saved(tmp_path / "m", kind, processor=False))
    found = extractor_of(encoder)
    assert "no file says what it receives" in found.assumed and type(found.extract).__name__ in found.assumed
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    encoder.module()(**found.batch([noise]))  # it fits


def extractor_of(encoder: Encoder) -> Any:
    return feature_extractor(encoder.folder, encoder.config, encoder.source.module, encoder.name)


def test_padding_is_said(tmp_path: Path) -> None:
    found = extractor_of(open_encoder(saved(tmp_path / "m", "Whisper")))
    assert found.seconds == 1.0 and found.note(1.0) == ""
    assert "75% of what is matched is padding; --seconds 1" in found.note(0.25)
    assert found.note(2.0).endswith("are cut")
    assert extractor_of(open_encoder(saved(tmp_path / "v", "Wav2Vec2Bert"))).note(3.0) == ""


def test_an_extractor_of_another_model_or_with_chance_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "Whisper")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with pytest.raises(MatchError, match="gives input_values, the network takes input_features"):
        extractor_of(open_encoder(folder))
    transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1, dither=0.1).save_pretrained(folder)
    with pytest.raises(MatchError, match="draws random values"):
        extractor_of(open_encoder(folder))
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(MatchError, match="its feature extractor cannot be built"):
        extractor_of(open_encoder(folder))
    with pytest.raises(MatchError, match="does not take raw audio, and no file says"):
        extractor_of(open_encoder(saved(tmp_path / "v", "ViT", processor=False)))


@pytest.mark.parametrize("kind", ["Whisper", "ViT"])
def test_no_code_of_a_folder_runs(tmp_path: Path, kind: str) -> None:
    folder, canary = saved(tmp_path / "m", kind), tmp_path / "ran"
    file = folder / "preprocessor_config.json"
    said = json.loads(file.read_text())
    said["auto_map"] = {
        "AutoFeatureExtractor": "evil.Evil",
        "AutoImageProcessor": ["evil.Evil", "evil.Evil"],
    }
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    for change in ({}, {"feature_extractor_type": "Evil", "image_processor_type": "Evil"}):
        file.write_text(json.dumps({**said, **change}))
        encoder = open_encoder(folder)
        make = extractor_of if kind == "Whisper" else processor_of
        if change:
            with pytest.raises(MatchError, match="cannot be built"):
                make(encoder)
        else:
            make(encoder)
        assert not canary.exists()


def test_two_extractors_of_unlike_rates_are_refused(tmp_path: Path) -> None:
    a, b = (saved(tmp_path / name, "Wav2Vec2Bert") for name in "ab")
    file = b / "preprocessor_config.json"
    file.write_text(file.read_text().replace("16000", "24000"))
    one, other = open_encoder(a), open_encoder(b)
    with pytest.raises(MatchError, match=r"work at 16,000 and 24,000 Hz"):
        batches_for(one, other, Calibration((str(sounds(tmp_path / "s")),), seconds=1.0))


def processor_of(encoder: Encoder) -> Any:
    return image_processor(encoder.folder, encoder.config, encoder.source.module, encoder.name)


def test_images_are_prepared_by_each_models_own_processor(tmp_path: Path) -> None:
    one, other = (open_encoder(saved(tmp_path / name, "ViT")) for name in "ab")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1] * 3).save_pretrained(
        tmp_path / "b"
    )
    data = ImageBatches([str(pictures(tmp_path / "p"))], processor_of(one), processor_of(other), 5, limit=10)
    batches = list(data)
    assert [len(b.a["pixel_values"]) for b in batches] == [5, 5] and data.notes == ("10 images",)
    want = PROCESSORS["ViT"]()(Image.open(data.files[0]), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batches[0].a["pixel_values"][:1], want)
    torch.testing.assert_close(batches[0].b["pixel_values"][:1], want + 0.8)  # (0.5 - 0.1) / 0.5


def test_images_of_several_shapes_never_share_a_batch(tmp_path: Path) -> None:
    """Both shapes of the folder come out as they are, and none is padded."""
    encoder = open_encoder(saved(tmp_path / "m", "ResNet"))
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ConvNextImageProcessor", "do_resize": False})
    )
    same = processor_of(encoder)
    batches = list(ImageBatches([str(pictures(tmp_path / "p"))], same, same, 5))
    shapes = sorted(tuple(b.a["pixel_values"].shape) for b in batches)
    assert {s[2:] for s in shapes} == {(30, 40), (40, 40)} and sum(s[0] for s in shapes) == 24


def test_the_default_for_images_is_said(tmp_path: Path) -> None:
    encoder = open_encoder(saved(tmp_path / "m", "ViT", processor=False))
    found = processor_of(encoder)
    assert "no file says how its images are prepared" in found.assumed
    pixels = found(Image.new("RGB", (50, 20), (255, 0, 255)))["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16)
    want = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(pixels[0, :, 3, 3], want)
    grey = found.__class__("m", type(found.prepare)((16, 16), 1), 1)(Image.new("L", (9, 9), 0))
    assert grey["pixel_values"].shape == (1, 1, 16, 16)
    with pytest.raises(MatchError, match="its first input is input_features"):
        processor_of(open_encoder(saved(tmp_path / "w", "Whisper")))


def test_bad_images_are_skipped_and_counted_up_to_a_bound(tmp_path: Path) -> None:
    same = processor_of(open_encoder(saved(tmp_path / "m", "ViT")))
    folder = pictures(tmp_path / "p", 9)
    cut = (folder / "03.png").read_bytes()
    (folder / "bad.png").write_bytes(cut[: len(cut) // 2])
    data = ImageBatches([str(folder)], same, same, max_bad=0.2)
    assert sum(len(b.a["pixel_values"]) for b in data) == 9
    assert data.notes[0] == "9 images" and "bad.png" in data.notes[1]
    with pytest.raises(FileError, match="1 of 10 images cannot be used"):
        list(ImageBatches([str(folder)], same, same, max_bad=0.05))
    for argument, why in (("none", "no such file or folder"), ("m", "no images")):
        with pytest.raises(FileError, match=why):
            ImageBatches([str(tmp_path / argument)], same, same)
