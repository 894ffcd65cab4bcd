"""Frames on disk: those of the encoder, clip by clip, and never read for anything else."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile

from permgraph.errors import FileError
from permgraph.evaluation import frames as f
from permgraph.evaluation.features import FrozenEncoder, encoder_features, statistics
from permgraph.evaluation.logmel import BANDS, logmel, logmel_frames
from permgraph.weights.encoder import open_encoder
from tests.evaluation import miniature as m


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("frames")
    m.encoder(where / "model")
    m.encoder(where / "other", seed=1)
    for i, seconds in enumerate((0.3, 0.13, 0.7)):
        m.sound(where / f"{i}.wav", 200 + 100 * i, seconds, seed=i)
    return where


def frozen(folder: Path, name: str = "model") -> FrozenEncoder:
    return FrozenEncoder(open_encoder(folder / name))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


def test_they_are_those_of_the_encoder_for_clips_of_any_length_in_any_order(
    folder: Path, tmp_path: Path
) -> None:
    encoder = frozen(folder)
    found = f.encoder_frames(encoder, files(folder), tmp_path)
    lengths = set()
    for path in reversed(files(folder)):
        (whole,) = encoder.of_file(path)
        np.testing.assert_array_equal(found.of(path), whole.swapaxes(0, 1))
        lengths.add(len(found.of(path)))
    assert len(lengths) == 3 and isinstance(found.array, np.memmap)
    means = encoder_features(encoder, files(folder), tmp_path)
    for path, row in zip(means.files, means.array, strict=True):
        np.testing.assert_allclose(statistics([found.of(path).swapaxes(0, 1)]), row, atol=1e-6)


def test_long_files_are_read_in_pieces_and_lie_in_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("permgraph.inputs.clips.LONGEST", 0.5)
    path = m.sound(tmp_path / "long.wav", seconds=1.2)
    parts = list(frozen(folder).of_file(path))
    assert len(parts) == 3
    whole = np.concatenate(parts, axis=1).swapaxes(0, 1)
    np.testing.assert_array_equal(f.encoder_frames(frozen(folder), [path], tmp_path).of(path), whole)


def test_logmel_is_one_layer(folder: Path, tmp_path: Path) -> None:
    path = files(folder)[1]
    found = logmel_frames(files(folder), tmp_path).of(path)
    expected = logmel(soundfile.read(path, dtype="float32")[0])
    assert found.shape == (len(expected), 1, BANDS)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_the_cache_is_read_again_and_never_for_anything_else(folder: Path, tmp_path: Path) -> None:
    def count(name: str = "model", paths: list[Path] | None = None) -> int:
        f.encoder_frames(frozen(folder, name), paths or files(folder), tmp_path)
        return len(list(tmp_path.glob("*.frames")))

    assert count() == 1
    before = next(tmp_path.glob("*.frames")).stat().st_mtime_ns
    assert count() == 1
    assert next(tmp_path.glob("*.frames")).stat().st_mtime_ns == before
    assert count("other") == 2  # other weights
    assert count(paths=files(folder)[::-1]) == 3  # another order
    encoder_features(frozen(folder), files(folder), tmp_path)
    assert count() == 3  # features of whole clips lie beside them


def test_damaged_frames_are_refused(folder: Path, tmp_path: Path) -> None:
    f.encoder_frames(frozen(folder), files(folder), tmp_path)
    (out,) = tmp_path.glob("*.frames")
    data, ends = (out / f.DATA).read_bytes(), (out / f.ENDS).read_text()
    known = json.loads(ends)
    broken: list[tuple[bytes, str]] = [
        (data[:-4], ends),
        (data, ends[:-5]),
        (data, "{}"),
        (data, "[]"),
        (data, json.dumps({**known, "ends": known["ends"][1:]})),
        (data, json.dumps({**known, "ends": []})),
    ]
    for content, text in broken:
        (out / f.DATA).write_bytes(content)
        (out / f.ENDS).write_text(text)
        with pytest.raises(FileError, match="damaged features"):
            f.encoder_frames(frozen(folder), files(folder), tmp_path)


def test_bad_audio_and_a_disk_that_is_too_small_are_refused_and_leave_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio at all")
    with pytest.raises(FileError, match=r"bad\.wav"):
        f.encoder_frames(frozen(folder), [*files(folder), tmp_path / "bad.wav"], tmp_path / "cache")
    usage = namedtuple("usage", "total used free")
    needed = f.encoder_frames(frozen(folder), files(folder), tmp_path / "fits").array.nbytes
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed // 2))
    with pytest.raises(FileError, match=r"need about 0\.0 GB, 0\.0 are free\. Give a folder on another disk"):
        f.encoder_frames(frozen(folder), files(folder), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.frames*"))
