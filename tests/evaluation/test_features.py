"""Features: those of the encoder, at its own sampling rate, unpadded, and never read for anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import HubertModel

from permgraph.atomic_write import locked
from permgraph.errors import FileError, UsageError
from permgraph.evaluation import features as f
from permgraph.evaluation.heads import HEADS
from permgraph.evaluation.logmel import BANDS, logmel, logmel_features, mel_bank
from permgraph.weights.encoder import open_encoder
from tests.evaluation import miniature as m


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("features")
    m.encoder(where / "model")
    m.encoder(where / "other", seed=1)
    for i, seconds in enumerate((0.3, 0.31, 0.7)):
        m.sound(where / f"{i}.wav", 200 + 100 * i, seconds, seed=i)
    return where


def frozen(folder: Path, name: str = "model") -> f.FrozenEncoder:
    return f.FrozenEncoder(open_encoder(folder / name))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


def reference(folder: Path, audio: np.ndarray, name: str = "model") -> np.ndarray:
    model = HubertModel.from_pretrained(folder / name).eval()
    with torch.no_grad():
        out = model(torch.from_numpy(audio.astype(np.float32))[None], output_hidden_states=True)
    return np.stack([torch.cat([h[0].mean(0), h[0].std(0, correction=0)]).numpy() for h in out.hidden_states])


def test_they_are_the_means_and_deviations_of_every_layer_of_transformers_own_model(
    folder: Path, tmp_path: Path
) -> None:
    found = f.encoder_features(frozen(folder), files(folder), tmp_path)
    assert found.array.shape == (3, 3, 64)
    for path, row in zip(found.files, found.array, strict=True):
        np.testing.assert_allclose(row, reference(folder, soundfile.read(path)[0]), atol=1e-5)


def test_a_clip_is_not_changed_by_its_neighbours(folder: Path, tmp_path: Path) -> None:
    alone = f.encoder_features(frozen(folder), files(folder)[:1], tmp_path).array
    among = f.encoder_features(frozen(folder), files(folder), tmp_path).array
    np.testing.assert_array_equal(alone[0], among[0])


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_audio_of_another_rate_is_resampled(folder: Path, tmp_path: Path, rate: int) -> None:
    path = m.sound(tmp_path / "a.wav", 440, rate=rate)
    found = f.encoder_features(frozen(folder), [path], tmp_path).array[0]
    audio = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(found, reference(folder, soxr.resample(audio, rate, m.RATE)), atol=1e-4)
    assert np.abs(found - reference(folder, audio)).max() > 1e-3  # read as if it were 16 kHz


def test_rate_and_normalisation_are_the_encoders_own(folder: Path, tmp_path: Path) -> None:
    m.encoder(tmp_path / "model", rate=8_000, normalize=True)
    path = files(folder)[0]
    found = f.encoder_features(f.FrozenEncoder(open_encoder(tmp_path / "model")), [path], tmp_path).array[0]
    audio = soxr.resample(soundfile.read(path, dtype="float32")[0], m.RATE, 8_000)
    normal = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    np.testing.assert_allclose(found, reference(folder, normal), atol=1e-4)


def test_the_cache_is_read_again_and_never_for_anything_else(folder: Path, tmp_path: Path) -> None:
    def count(name: str = "model", paths: list[Path] | None = None) -> int:
        f.encoder_features(frozen(folder, name), paths or files(folder), tmp_path / "cache")
        return len(list((tmp_path / "cache").glob("*.npy")))

    assert count() == 1
    before = next((tmp_path / "cache").glob("*.npy")).stat().st_mtime_ns
    assert count() == 1
    assert next((tmp_path / "cache").glob("*.npy")).stat().st_mtime_ns == before
    assert count("other") == 2  # other weights
    assert count(paths=files(folder)[::-1]) == 3  # another order
    copies = [m.sound(tmp_path / "audio" / path.name, 500, 0.3) for path in files(folder)]
    assert count(paths=copies) == 4  # other audio


def test_what_a_killed_run_left_beside_the_cache_is_removed_unless_another_run_writes(
    folder: Path, tmp_path: Path
) -> None:
    f.encoder_features(frozen(folder), files(folder), tmp_path)
    (cached,) = tmp_path.iterdir()
    lock, partial = tmp_path / f".{cached.name}.lock", tmp_path / f"{cached.name}.partial-1"
    partial.touch()
    with locked(cached, "this test"):
        f.encoder_features(frozen(folder), files(folder), tmp_path)
        assert partial.exists()
    lock.touch()
    f.encoder_features(frozen(folder), files(folder), tmp_path)
    assert list(tmp_path.iterdir()) == [cached]


def test_audio_that_changes_in_its_middle_is_computed_anew(folder: Path, tmp_path: Path) -> None:
    path = m.sound(tmp_path / "long.wav", seconds=6)
    first = f.encoder_features(frozen(folder), [path], tmp_path).array.copy()
    audio, rate = soundfile.read(path)
    audio[len(audio) // 2 : len(audio) // 2 + 1000] = 0
    soundfile.write(path, audio, rate)
    assert np.abs(f.encoder_features(frozen(folder), [path], tmp_path).array - first).max() > 0


def test_damaged_features_are_refused(folder: Path, tmp_path: Path) -> None:
    f.encoder_features(frozen(folder), files(folder), tmp_path)
    (array,) = tmp_path.glob("*.npy")
    np.save(array, np.zeros((2, 3, 32), np.float32))
    with pytest.raises(FileError, match="damaged features"):
        f.encoder_features(frozen(folder), files(folder), tmp_path)
    array.write_bytes(b"nothing")
    with pytest.raises(FileError, match="damaged features"):
        f.encoder_features(frozen(folder), files(folder), tmp_path)


def test_bad_and_short_audio_is_refused_by_name_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio at all")
    short = m.sound(tmp_path / "short.wav", seconds=0.03)
    soundfile.write(short, soundfile.read(short)[0][:200], m.RATE)
    for name, reason in (("bad.wav", "bad.wav"), ("short.wav", r"short\.wav: 200 samples .* too short")):
        with pytest.raises(FileError, match=reason):
            f.encoder_features(frozen(folder), [*files(folder), tmp_path / name], tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_the_receptive_field_is_one_frame(folder: Path) -> None:
    field = f.receptive_field(m.SMALL.to_dict())
    model = frozen(folder)
    assert model.layers(np.ones(field, np.float32)).shape[1] == 1
    with pytest.raises(RuntimeError):
        model.layers(np.ones(field - 1, np.float32))


def test_long_files_are_read_in_pieces_and_all_frames_count_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("permgraph.inputs.clips.LONGEST", 0.5)
    path = m.sound(tmp_path / "long.wav", seconds=1.2)
    model = frozen(folder)
    parts = list(model.of_file(path))
    assert len(parts) == 3 and parts[-1].shape[1] < parts[0].shape[1]
    frames = np.concatenate(parts, axis=1)
    whole = np.concatenate([frames.mean(axis=1), frames.std(axis=1)], axis=1)
    found = f.encoder_features(model, [path], tmp_path).array[0]
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_model_without_raw_audio_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="not raw audio"):
        f.FrozenEncoder(open_encoder(tmp_path / "bert"))


def test_logmel_sees_a_tone_in_its_band() -> None:
    for pitch in (200, 1000, 5000):
        t = np.arange(m.RATE) / m.RATE
        energies = logmel(np.sin(2 * np.pi * pitch * t).astype(np.float32))
        assert energies.shape == (98, BANDS)
        band = energies.mean(axis=0).argmax()
        weights = mel_bank()[band]
        centre = np.fft.rfftfreq(512, 1 / m.RATE) @ weights / weights.sum()
        assert abs(centre - pitch) < 150


def test_logmel_is_a_layer_of_means_and_deviations(folder: Path, tmp_path: Path) -> None:
    found = logmel_features(files(folder), tmp_path).array
    assert found.shape == (3, 1, 2 * BANDS)
    frames = logmel(soundfile.read(files(folder)[0], dtype="float32")[0])
    np.testing.assert_allclose(found[0, 0, :BANDS], frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[0, 0, BANDS:], frames.std(axis=0), rtol=1e-4)


def test_means_can_be_read_without_deviations(folder: Path, tmp_path: Path) -> None:
    found = f.encoder_features(frozen(folder), files(folder), tmp_path)
    means = found.rows(files(folder)[1:], deviations=False)
    np.testing.assert_array_equal(means, found.array[1:, :, :32])
    assert [name for name, head in HEADS.items() if not head.deviations] == ["linear", "two-layer"]
