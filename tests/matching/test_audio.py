"""Calibration audio survives what people have on their disks. The numbers are those of the faults file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from oracles.memory import forget_peak, peak

from permgraph.errors import FileError
from permgraph.inputs.audio import AudioPairs, Preprocess
from permgraph.inputs.audio_report import SourceReport, used_text
from permgraph.inputs.sources import shown

RATE = 16_000


def tone(seconds=1.0, rate=RATE, hertz=440.0, channels=1, level=0.5):
    time = np.arange(round(seconds * rate)) / rate
    wave = level * np.sin(2 * np.pi * hertz * time)
    return np.stack([wave] * channels, axis=1) if channels > 1 else wave


def put(path: Path, data=None, rate=RATE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), tone() if data is None else data, rate, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Nine good files of one second, of every kind."""
    for i, suffix in enumerate(["wav", "flac", "ogg", "mp3", "wav", "flac", "aiff", "wav", "flac"]):
        put(tmp_path / "set" / f"{i}" / f"clip{i}.{suffix}", tone(1.2, hertz=200 + 50 * i))
    return tmp_path / "set"


def pairs(*audio, **options) -> AudioPairs:
    return AudioPairs(audio, **({"seconds": 1.0} | options))


def everything(batches: AudioPairs) -> list[np.ndarray]:
    return [np.concatenate([x.numpy() for x in side]) for side in zip(*batches, strict=True)]


def test_every_format_is_read_in_equal_clips(folder):
    batches = pairs(folder, batch=4)
    shapes = [(a.shape, b.shape, a.dtype) for a, b in batches]
    assert shapes == [((n, RATE), (n, RATE), torch.float32) for n in (4, 4, 1)]
    assert batches.report.clips == 9 and batches.report.seconds == 9.0
    assert batches.report.sources == {str(folder): SourceReport(9, 9, 9.0)}


def test_folder_glob_manifest_and_files_in_any_order_are_the_same(folder):
    rows = [p for p in sorted(folder.rglob("*.*"))]
    manifest = folder / "list.csv"
    manifest.write_text("path,split\n" + "".join(f"{p.relative_to(folder)},train\n" for p in rows[::-1]))
    (folder / "list.tsv").write_text("split\tpath\n" + "".join(f"a\t{p.relative_to(folder)}\n" for p in rows))
    want = everything(pairs(folder))
    asked = ([f"{folder}/**/*"], [manifest], [folder / "list.tsv"], rows[::-1], [*rows[4:], *rows[:4]])
    for audio in asked:
        for one, other in zip(want, everything(pairs(*audio)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_where_keeps_rows_of_a_manifest(folder):
    rows = sorted(folder.rglob("*.*"))
    manifest = folder / "list.csv"
    manifest.write_text(
        "path,split\n" + "".join(f"{p},{'test' if i else 'train'}\n" for i, p in enumerate(rows))
    )
    assert pairs(manifest, where={"split": "train"}).report.files == 1
    assert pairs(manifest, where={"split": "test"}).report.files == 8
    with pytest.raises(FileError, match=r"no column 'splt'. Did you mean split(.|\n)*It has: path, split"):
        pairs(manifest, where={"splt": "train"})
    with pytest.raises(FileError, match=r"no audio files where \{'split': 'valid'\}"):
        pairs(manifest, where={"split": "valid"})


def test_each_model_hears_the_same_moment_at_its_own_rate_and_scale(tmp_path):
    """A click at 0.25 s of every clip is at 0.25 s for both, also in windows inside the file."""
    rate = 44_100
    wave = tone(3.0, rate, level=0.01)
    for second in range(3):
        wave[round((second + 0.25) * rate)] = 1.0
    put(tmp_path / "clicks.wav", wave, rate)
    batches = pairs(tmp_path, a=Preprocess(16_000, True), b=Preprocess(24_000))
    ((a, b),) = list(batches)
    assert a.shape == (3, 16_000) and b.shape == (3, 24_000)
    assert (np.abs(a.numpy().argmax(1) / 16_000 - 0.25) < 2e-4).all()
    assert (np.abs(b.numpy().argmax(1) / 24_000 - 0.25) < 2e-4).all()
    assert a.mean(1).abs().max() < 1e-6 and (a.std(1) - 1).abs().max() < 1e-3
    assert batches.report.resampled == {44_100: 1}


def test_a_tone_keeps_its_pitch_at_every_rate(tmp_path):
    put(tmp_path / "a.wav", tone(1.0, 11_025, hertz=1000.0), 11_025)
    ((a, b),) = list(pairs(tmp_path, b=Preprocess(24_000)))
    for x in (a, b):
        assert np.abs(np.fft.rfft(x[0].numpy())).argmax() == 1000


def test_normalisation_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    wave = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1 + 0.05
    put(tmp_path / "a.wav", wave, subtype="FLOAT")
    ((a, b),) = list(pairs(tmp_path, a=Preprocess(RATE, True)))
    want = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)(wave, sampling_rate=RATE)["input_values"][
        0
    ]
    np.testing.assert_allclose(a[0].numpy(), want, atol=1e-5)
    np.testing.assert_allclose(b[0].numpy(), wave, atol=1e-7)


def test_48_nothing_to_use(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no audio files"):
        pairs(tmp_path / "empty")
    with pytest.raises(FileError, match="no such file or folder"):
        pairs(tmp_path / "none")
    with pytest.raises(FileError, match="no audio files"):
        pairs(f"{tmp_path}/*.wav")
    with pytest.raises(FileError, match="no audio was given"):
        pairs()
    (tmp_path / "m.csv").write_text("file\na.wav\n")
    with pytest.raises(FileError, match="no column 'path'"):
        pairs(tmp_path / "m.csv")
    put(tmp_path / "x" / "short.wav", tone(0.5))
    with pytest.raises(
        FileError, match=r"1 of 1 audio files cannot be used[\s\S]*shorter than a clip of 1 s"
    ):
        pairs(tmp_path / "x")
    with pytest.raises(FileError, match=r"none of 1 audio files can be used: 0 bad, 1 shorter than 1 s"):
        pairs(tmp_path / "x", max_bad=1)
    put(tmp_path / "y" / "silent.wav", np.zeros(RATE))
    with pytest.raises(FileError, match=r"1 clips without a usable sound\. It gives nothing"):
        pairs(tmp_path / "y")
    with pytest.raises(FileError, match="1 silent clips"):
        list(pairs(tmp_path / "y", allow_empty=True))


def broken(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said of each."""
    good = folder / "0" / "clip0.wav"
    noise = np.random.default_rng(0).standard_normal(RATE) * 0.1
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("this is not audio\n" * 50)
    (folder / "cut.wav").write_bytes(good.read_bytes()[:9000])
    whole = put(folder / "whole.flac", noise).read_bytes()
    (folder / "whole.flac").unlink()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    nan = noise.astype(np.float32)
    nan[777] = np.nan
    put(folder / "nan.wav", nan, subtype="FLOAT")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    return {
        "empty.wav": "empty file",
        "text.mp3": "",
        "cut.wav": "truncated: 9,000 of",
        "cut.flac": "",
        "nan.wav": "holds NaN",
        "gone.wav": "broken link",
    }


def test_49_53_56_bad_files_are_skipped_and_listed(folder):
    reasons = broken(folder)
    batches = pairs(folder, max_bad=0.5)
    first = everything(batches)
    assert len(first[0]) == 9 and np.isfinite(first[0]).all()
    assert {Path(p).name for p in batches.report.bad} == set(reasons)
    for path, why in batches.report.bad.items():
        assert why and reasons[Path(path).name] in why
    assert len(batches.report.notes()) >= 6
    again = everything(batches)  # the counts start afresh
    np.testing.assert_array_equal(first[0], again[0])
    assert batches.report.clips == 9


def test_49_too_many_bad_files_end_the_run(folder):
    (folder / "empty.wav").write_bytes(b"")
    with pytest.raises(FileError, match=r"1 of 10 audio files cannot be used(.|\n)*empty.wav: empty file"):
        pairs(folder)
    nan = np.full(RATE, np.nan, dtype=np.float32)
    (folder / "empty.wav").unlink()
    put(folder / "nan.wav", nan, subtype="FLOAT")
    with pytest.raises(FileError, match=r"nan\.wav: holds NaN"):  # its header is fine
        pairs(folder)


def test_50_short_files_are_counted_not_padded(folder):
    put(folder / "short.wav", tone(0.99))
    with pytest.raises(FileError, match=r"1 of 10 audio files cannot be used, more than --max-bad 0.01"):
        pairs(folder)
    batches = pairs(folder, max_bad=0.1)
    assert len(everything(batches)[0]) == 9
    assert [Path(p).name for p in batches.report.short] == ["short.wav"]


def test_every_source_says_what_was_used_of_it_and_what_was_dropped(folder, tmp_path):
    other = tmp_path / "other"
    put(other / "good.wav", tone(3))
    put(other / "short.wav", tone(0.5))
    put(other / "silent.wav", np.zeros(2 * RATE))
    (other / "broken.wav").write_bytes(b"RIFF")
    batches = pairs(folder, other, max_bad=0.5)
    used = batches.report.sources[str(other)]
    assert used.dropped == {"files too short": 1, "unusable files": 1}
    for _ in range(2):  # every pass counts anew
        list(batches)
        used = batches.report.sources[str(other)]
        assert (used.files, used.clips, used.seconds) == (4, 3, 3.0)
        assert used.dropped == {"files too short": 1, "unusable files": 1, "silent clips": 2}
        assert sum(s.clips for s in batches.report.sources.values()) == batches.report.clips == 12
    assert used_text(str(other), asdict(used)) in batches.report.notes()


def test_a_source_that_gives_nothing_is_refused_unless_allowed(folder, tmp_path):
    empty = tmp_path / "none"
    put(empty / "silent.wav", np.zeros(2 * RATE))
    with pytest.raises(FileError, match=r"none: 1 files.*2 clips without a usable sound.*--allow-empty"):
        pairs(folder, empty)
    assert len(everything(pairs(folder, empty, allow_empty=True))[0]) == 9
    with pytest.raises(FileError, match="of --clips"):  # nothing of it is among the clips chosen
        pairs(folder, put(tmp_path / "z" / "one.wav", tone(1)).parent, limit=1)
    put(empty / "sound.wav", tone(1))
    assert len(everything(pairs(folder, empty))[0]) == 10


def test_52_channels_are_averaged_and_silence_left_out(tmp_path):
    left, right = tone(hertz=300), tone(hertz=500)
    put(tmp_path / "stereo.wav", np.stack([left, right], 1), subtype="FLOAT")
    put(tmp_path / "surround.flac", tone(channels=6))
    put(tmp_path / "silent.wav", np.full(RATE, 0.25))  # a constant is silence too
    batches = pairs(tmp_path)
    ((a, _),) = list(batches)
    np.testing.assert_allclose(a[0].numpy(), (left + right) / 2, atol=1e-6)
    assert (batches.report.mixed_down, batches.report.silent, batches.report.clips) == (2, 1, 2)


def test_54_wrong_scale_is_noted(tmp_path):
    put(tmp_path / "loud.wav", tone(level=3.0), subtype="FLOAT")
    put(tmp_path / "fine.wav", tone(level=0.9), subtype="FLOAT")
    batches = pairs(tmp_path)
    list(batches)
    assert [Path(p).name for p in batches.report.loud] == ["loud.wav"]


def test_55_a_long_file_is_read_through_a_window(tmp_path):
    """Ten minutes here; what is held is the window, so hours cost the same."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(str(path), "w", RATE, 1) as file:
        for minute in range(10):
            file.write(tone(60.0, hertz=100.0 * (minute + 1)))
    read, largest = soundfile.SoundFile.read, []

    def watched(self, frames=-1, **options):
        largest.append(frames)
        return read(self, frames, **options)

    soundfile.SoundFile.read = watched
    try:
        assert len(everything(pairs(tmp_path, seconds=5.0))[0]) == 120
        spread = everything(pairs(tmp_path, seconds=5.0, per_file=10))[0]
    finally:
        soundfile.SoundFile.read = read
    assert max(largest) == 5 * RATE and min(largest) > 0
    pitch = [np.abs(np.fft.rfft(x)).argmax() / 5 for x in spread]
    assert pitch == [100.0 * (m + 1) for m in range(10)]


def test_56_strange_names_are_used_and_escaped(tmp_path):
    put(tmp_path / "new\nline.wav", np.zeros(RATE // 2))
    raw = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    put(tmp_path / "plain.wav").rename(raw)
    put(tmp_path / "\x1b[31mred.wav")
    batches = pairs(tmp_path, max_bad=0.5)
    assert len(everything(batches)[0]) == 2
    text = "\n".join(batches.report.notes())
    assert "new\\nline.wav" in text and "\x1b" not in text
    assert shown(raw).endswith("caf\\xe9.wav")
    json.dumps(batches.report.to_json()).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_56_no_permission(folder):
    put(folder / "secret.wav").chmod(0)
    batches = pairs(folder, max_bad=0.5)
    assert "Permission denied" in next(iter(batches.report.bad.values()))


def test_57_copies_are_noted_and_the_same_file_is_used_once(folder):
    put(folder / "copy" / "copy.wav").write_bytes((folder / "0" / "clip0.wav").read_bytes())
    batches = pairs(folder, folder / "0", folder / "0" / "clip0.wav")
    assert len(everything(batches)[0]) == 10
    assert len(batches.report.duplicates) == 3
    assert sum("same content" in note for note in batches.report.notes()) == 3
    assert set(batches.report.sources) == {str(folder)}


def test_58_whole_clips_are_batched_by_length(tmp_path):
    for i, seconds in enumerate([0.5, 1.0, 0.5, 2.0, 1.0, 0.5, 0.01]):
        put(tmp_path / f"{i}.wav", tone(seconds))
    batches = pairs(tmp_path, seconds=None, batch=2, b=Preprocess(8000), max_bad=0.2)
    assert [tuple(a.shape) for a, _ in batches] == [(2, 8000), (1, 8000), (2, 16_000), (1, 32_000)]
    assert [Path(p).name for p in batches.report.short] == ["6.wav"]


def test_limit_and_progress(folder):
    seen: list[tuple[int, int]] = []
    batches = pairs(folder, limit=4, batch=3, progress=lambda done, total: seen.append((done, total)))
    assert len(batches) == 4 and len(everything(batches)[0]) == 4
    assert seen == [(3, 4), (4, 4)]
    assert len(batches.current) == 1


def test_random_bytes_never_crash(folder):
    """Good files with bytes overwritten: every one is read or listed, none ends the run."""
    rng = np.random.default_rng(0)
    for i, path in enumerate(sorted(folder.rglob("*.*"))):
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, len(data), 20):
            data[at] = rng.integers(256)
        (folder / f"fuzz{i}{path.suffix}").write_bytes(data)
    batches = pairs(folder, max_bad=1.0, seconds=None)
    assert all(torch.isfinite(a).all() for a, _ in batches)


DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the audio of ../shared/data is not here")
SETS = ("fsdd", "kws", "intent", "emodb", "phil", "inst10", "misc_music", "esc")


@pytest.mark.sampled(3)
@needs_data
@pytest.mark.parametrize("name", SETS)
def test_every_real_set_is_readable_from_its_manifest(name):
    batches = AudioPairs([DATA / name / "manifest.csv"], seconds=0.5, per_file=1, limit=60, max_bad=1.0)
    for a, b in batches:
        assert a.shape[1] == b.shape[1] == 8000 and torch.isfinite(a).all()
    rows = len((DATA / name / "manifest.csv").read_text().splitlines()) - 1
    assert batches.report.files == rows and not batches.report.bad
    assert batches.report.clips + batches.report.silent == len(batches) > 20


@needs_data
def test_real_speech_and_music_together_within_bounded_memory():
    forget_peak()
    before = peak()
    batches = AudioPairs(
        [DATA / "kws", DATA / "misc_music" / "manifest.csv"],
        Preprocess(16_000, True),
        Preprocess(24_000, True),
        seconds=0.8,
        batch=16,
        max_bad=1.0,
    )
    count = sum(len(a) for a, _ in batches)
    assert count == batches.report.clips > 700 and len(batches.report.sources) == 2
    assert peak() - before < 400 * 2**20
