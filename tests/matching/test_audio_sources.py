"""Audio in tars and in Lhotse's manifests is what the same audio is as files; nothing is executed or fetched."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from permgraph.errors import FileError
from permgraph.inputs.audio import AudioPairs

RATE = 16_000


def noise(seconds: float, seed: int, channels: int = 1) -> np.ndarray:
    wave = np.random.default_rng(seed).standard_normal((round(seconds * RATE), channels)) * 0.1
    return wave[:, 0] if channels == 1 else wave


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of two seconds, of several formats."""
    (tmp_path / "set").mkdir()
    for i, suffix in enumerate(("wav", "flac", "ogg", "mp3")):
        soundfile.write(tmp_path / "set" / f"{i:03}.{suffix}", noise(2.0, i), RATE)
    return tmp_path / "set"


def heard(*audio: Path | str, **options: Any) -> np.ndarray:
    return np.concatenate([p.a.numpy() for p in AudioPairs(audio, seconds=1.0, max_bad=0.5, **options)])


def tar_of(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
            text = tarfile.TarInfo(f"{path.stem}.json")  # as in a webdataset: what belongs together
            text.size = 2
            tar.addfile(text, io.BytesIO(b"{}"))
    return file


def test_a_tar_is_what_its_files_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    tar = tar_of(folder, tmp_path / "shards" / "0.tar")
    want = heard(folder)
    assert len(want) == 8
    for argument in (tar, tmp_path / "shards", f"{tmp_path}/shards/*.tar"):
        np.testing.assert_array_equal(heard(argument), want)
    assert AudioPairs([tar], seconds=1.0).clips[0].source.name.endswith("0.tar/000.wav")


def test_damaged_tars_are_refused_or_skipped(folder: Path, tmp_path: Path) -> None:
    tar = tar_of(folder, tmp_path / "0.tar")
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(FileError, match=r"1\.tar\.gz: not a tar that can be read in place.*decompressed"):
        AudioPairs([tmp_path / "1.tar.gz"], seconds=1.0)
    (tmp_path / "2.tar").write_bytes(tar.read_bytes()[: 1024 + 30_000])  # within the first file
    with pytest.raises(FileError, match=r"2\.tar"):
        heard(tmp_path / "2.tar")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(FileError, match=r"bad\.tar: not a tar"):
        AudioPairs([tmp_path / "bad.tar"], seconds=1.0)


def recording(path: Path | str, channels: int = 1, **more: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": list(range(channels)), "source": str(path)}
    return {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": 1, "duration": 1.0} | more


def cut(path: Path | str, start: float, seconds: float, **more: Any) -> dict[str, Any]:
    own = {
        "type": "MonoCut",
        "id": "c",
        "start": start,
        "duration": seconds,
        "channel": 0,
        "supervisions": [],
    }
    return own | {"recording": recording(path)} | more


def listed(file: Path, rows: list[Any]) -> Path:
    data = "\n".join(json.dumps(row) for row in rows).encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_cuts_are_the_stretches_they_name(folder: Path, tmp_path: Path, name: str) -> None:
    wave = folder / "000.wav"
    data = soundfile.read(wave, dtype="float32")[0]
    cuts = listed(tmp_path / name, [cut(wave, 0.25, 1.5), cut(wave, 0.9, 1.0), cut("set/000.wav", 0.0, 1.0)])
    batches = AudioPairs([cuts], seconds=1.0)
    found = np.concatenate([p.a.numpy() for p in batches])
    want = [data[round(t * RATE) : round(t * RATE) + RATE] for t in (0.0, 0.25, 0.9)]
    assert sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in want)
    assert not batches.report.duplicates


def test_recordings_are_whole_files(folder: Path, tmp_path: Path) -> None:
    rows = [recording(path) for path in sorted(folder.iterdir())]
    np.testing.assert_array_equal(heard(listed(tmp_path / "recordings.jsonl", rows)), heard(folder))


def test_the_channels_of_a_cut_are_picked(tmp_path: Path) -> None:
    both = noise(1.0, 0, channels=3)
    soundfile.write(tmp_path / "x.wav", both, RATE, subtype="FLOAT")
    rows = [
        cut("x.wav", 0.0, 1.0, recording=recording("x.wav", 3), channel=c) for c in (1, [0, 2], [0, 1, 2])
    ]
    found = [heard(listed(tmp_path / "c.jsonl", [row]))[0] for row in rows]
    for one, channels in zip(found, ([1], [0, 2], [0, 1, 2]), strict=True):
        np.testing.assert_allclose(one, both[:, channels].mean(1), atol=1e-6)
    two = recording("x.wav", 1)
    two["sources"] = [{"type": "file", "channels": [c], "source": f"{c}.wav"} for c in (0, 1)]
    for c in (0, 1):
        soundfile.write(tmp_path / f"{c}.wav", both[:, c], RATE, subtype="FLOAT")
    one = heard(listed(tmp_path / "c.jsonl", [cut("", 0.0, 1.0, recording=two, channel=1)]))[0]
    np.testing.assert_allclose(one, both[:, 1], atol=1e-6)


def test_what_is_no_stretch_of_a_file_is_skipped_with_the_reason(folder: Path, tmp_path: Path) -> None:
    canary, good = tmp_path / "ran", str(folder / "000.wav")

    def other(kind: str, source: str) -> dict[str, Any]:
        return recording("x", sources=[{"type": kind, "channels": [0], "source": source}])

    rows = {
        "audio from a command is neither run nor fetched": cut(
            "", 0, 1, recording=other("command", f"touch {canary}")
        ),
        "audio from a url is neither run nor fetched": cut(
            "", 0, 1, recording=other("url", "http://localhost/x.wav")
        ),
        "its recording is transformed": cut(
            "", 0, 1, recording=recording(good, transforms=[{"name": "Speed"}])
        ),
        "a MixedCut without a recording": {"type": "MixedCut", "tracks": [{"cut": cut(good, 0, 1)}]},
        "ends after its file": cut(good, 1.5, 1.0),
        "no such file": cut("gone.wav", 0.0, 1.0),
        "from nan s on": cut(good, float("nan"), 1.0),
        "its channels are in 0 files": cut(good, 0.0, 1.0, channel=1),
        "not a cut: no JSON object": [1],
    }
    for reason, row in rows.items():
        batches = AudioPairs(
            [listed(tmp_path / "c.jsonl", [row, cut(good, 0.0, 1.0)])], seconds=1.0, max_bad=0.5
        )
        assert next(iter(batches.report.bad.values())).startswith(reason) and batches.report.files == 2
        assert len(list(batches)) == 1
    assert not canary.exists()
    (tmp_path / "c.jsonl").write_text("{")
    with pytest.raises(FileError, match="cannot read these cuts"):
        AudioPairs([tmp_path / "c.jsonl"], seconds=1.0)
    with pytest.raises(FileError, match="--where keeps rows of a csv or tsv manifest"):
        AudioPairs([tmp_path / "c.jsonl"], seconds=1.0, where={"split": "train"})


def test_lhotse_reads_its_cuts_alike(folder: Path, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="Lhotse is not installed")
    recordings = [lhotse.Recording.from_file(path) for path in sorted(folder.iterdir())]
    lhotse.RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings.jsonl.gz")
    cuts = [r.to_cut().truncate(offset=0.3, duration=1.0) for r in recordings[:2]]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    found = heard(tmp_path / "cuts.jsonl.gz")
    np.testing.assert_allclose(found, np.concatenate([c.load_audio() for c in cuts]), atol=1e-6)
    np.testing.assert_array_equal(heard(tmp_path / "recordings.jsonl.gz"), heard(folder))


def test_a_webdataset_shard_is_read_alike(folder: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as shard:
        for path in sorted(folder.iterdir()):
            shard.write({"__key__": path.stem, path.suffix[1:]: path.read_bytes(), "json": {"label": 1}})
    np.testing.assert_array_equal(heard(tmp_path / "0.tar"), heard(folder))
