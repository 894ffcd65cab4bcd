"""Cases 48-59: what calibrates."""

from __future__ import annotations

import gzip
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import permgraph as pg
from permgraph.errors import FileError
from permgraph.inputs import clips, sources
from permgraph.inputs.audio import AudioPairs, Preprocess
from permgraph.weights.encoder import open_encoder
from tests.faults.kit import MATCH, RATE, bad, good, noise, put

SOUND = noise(0, 3.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put("good.wav", noise(1, 3.0))
    return tmp_path


def used(*names: object, **options: Any) -> tuple[int, dict[str, str]]:
    """Clips that reach a model, and what was left out for which reason; with one good file of ten clips beside."""
    options = {"seconds": 0.3, "max_bad": 1.0, "allow_empty": True} | options
    pairs = AudioPairs(["good.wav", *map(str, names)], **options)
    return sum(len(a) for a, _ in pairs), pairs.report.bad


# 48
def test_nothing_to_calibrate_on_is_refused(place: Path) -> None:
    Path("empty").mkdir()
    Path("list.csv").write_text("path\n")
    for audio in ("empty", "list.csv", "nowhere", "*.ogg"):
        assert "no audio files" in (said := bad(*MATCH[:7], audio, "-o", "p.st")) or "no such file" in said
    Path("empty/x.wav").write_bytes(b"")
    assert "cannot be used" in bad(*MATCH[:7], "empty", "-o", "p.st")


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no audio"),
    "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)),
    "folder": lambda p: p.mkdir(),
    "link": lambda p: p.symlink_to("nowhere"),
    "pipe": lambda p: os.mkfifo(p),
}


# 49
@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_audio_is_skipped_and_listed(here: Path, how: str) -> None:
    put("there/a.wav", SOUND)
    BROKEN[how](Path("there/bad.wav"))
    count, reasons = used("there")
    assert count == 20 and list(reasons) == ([] if how == "folder" else ["there/bad.wav"])


FORMS = {
    "wav": ("WAV", "PCM_16", "FILE"),
    "rifx.wav": ("WAV", "PCM_16", "BIG"),
    "rf64.wav": ("RF64", "PCM_16", "FILE"),
    "aiff": ("AIFF", "PCM_16", "FILE"),
    "au": ("AU", "PCM_16", "FILE"),
    "w64": ("W64", "PCM_16", "FILE"),
    "caf": ("CAF", "PCM_16", "FILE"),
    "flac": ("FLAC", "PCM_16", "FILE"),
    "ogg": ("OGG", "VORBIS", "FILE"),
    "opus.ogg": ("OGG", "OPUS", "FILE"),
    "mp3": ("MP3", "MPEG_LAYER_III", "FILE"),
}


# 49
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_file_of_any_format_is_skipped_whole_and_listed(here: Path, name: str, share: float) -> None:
    form, subtype, endian = FORMS[name]
    soundfile.write(f"whole.{name}", SOUND, RATE, format=form, subtype=subtype, endian=endian)
    assert used(f"whole.{name}") == (20, {})
    data = Path(f"whole.{name}").read_bytes()
    Path(f"cut.{name}").write_bytes(data[: int(share * len(data))])
    count, reasons = used(f"cut.{name}")
    assert count == 10 and list(reasons) == [f"cut.{name}"], reasons


# 49
def test_too_many_bad_files_end_the_run(place: Path) -> None:
    Path("audio/x.wav").write_text("no audio")
    assert "1 of 5 audio files cannot be used, more than --max-bad 0.01 allows" in bad(*MATCH, "-o", "p.st")
    good(*MATCH, "-o", "p.st", "--max-bad", "0.3")


def _checksum(page: bytes) -> int:
    """Of an Ogg page."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def _lying_ogg(data: bytearray) -> None:
    at = data.rfind(b"OggS")
    data[at + 6 : at + 14] = struct.pack("<q", 2**40)
    data[at + 22 : at + 26] = bytes(4)
    data[at + 22 : at + 26] = struct.pack("<I", _checksum(bytes(data[at:])))


def _lying_mp3(data: bytearray) -> None:
    at = max(data.find(b"Xing"), data.find(b"Info"))
    data[at + 8 : at + 12] = struct.pack(">I", 2**31 - 1)


def _lying_flac(data: bytearray) -> None:
    data[18:26] = (int.from_bytes(data[18:26], "big") | (2**36 - 1)).to_bytes(8, "big")


def _rate(rate: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[24:28] = struct.pack("<I", rate)

    return change


LIES: dict[str, tuple[str, Callable[[bytearray], None]]] = {
    "ogg": ("ogg", _lying_ogg),
    "mp3": ("mp3", _lying_mp3),
    "flac": ("flac", _lying_flac),
    "slow": ("wav", _rate(1)),
    "fast": ("wav", _rate(2**31 - 1)),
}


# 49, 51
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seconds", [0.3, None])
def test_a_header_that_promises_hours_costs_no_time(here: Path, lie: str, seconds: float | None) -> None:
    name, change = LIES[lie]
    form, subtype, endian = FORMS[name]
    soundfile.write(f"x.{name}", SOUND, RATE, format=form, subtype=subtype, endian=endian)
    data = bytearray(Path(f"x.{name}").read_bytes())
    change(data)
    Path(f"x.{name}").write_bytes(data)
    start = time.monotonic()
    count, reasons = used(f"x.{name}", seconds=seconds)
    assert list(reasons) == [f"x.{name}"] and "its header" in reasons[f"x.{name}"]
    assert count == (10 if seconds else 1) and time.monotonic() - start < 5


# 50
def test_files_shorter_than_a_clip_are_counted(here: Path) -> None:
    put("short.wav", noise(2, 0.2))
    pairs = AudioPairs(["good.wav", "short.wav"], seconds=0.3, max_bad=0.5, allow_empty=True)
    assert pairs.report.short == ["short.wav"]
    put("frame.wav", noise(2, 0.02))  # less than one frame of the front end
    assert AudioPairs(["good.wav", "frame.wav"], seconds=None, max_bad=0.5, allow_empty=True).report.short


# 51
def test_another_rate_is_resampled_and_noted(here: Path) -> None:
    put("other.wav", noise(3, 3.0), 22_050)
    pairs = AudioPairs(["good.wav", "other.wav"], seconds=0.3)
    assert {a.shape[-1] for a, _ in pairs} == {4800}
    assert "1 files resampled from 22050 Hz" in pairs.report.notes()


# 52
def test_channels_are_averaged_and_silence_is_left_out(here: Path) -> None:
    put("stereo.wav", np.stack([SOUND, -SOUND / 2], 1))
    put("silent.wav", np.zeros(RATE, np.float32))
    pairs = AudioPairs(
        ["stereo.wav", "silent.wav"], Preprocess(), Preprocess(), seconds=1.0, allow_empty=True
    )
    heard = [a for a, _ in pairs]
    assert np.allclose(heard[0][0], SOUND[:RATE] / 4, atol=1e-6)
    assert pairs.report.mixed_down == 1 and pairs.report.silent == 1


# 53
@pytest.mark.parametrize("at", [0, 30_000, 47_999])
def test_a_file_with_one_nan_is_left_out_whole(here: Path, at: int) -> None:
    sound = SOUND.copy()
    sound[at] = np.nan
    put("nan.wav", sound)
    assert used("nan.wav") == (10, {"nan.wav": "holds NaN or infinite samples"})


# 54
def test_samples_on_a_wrong_scale_are_told(here: Path) -> None:
    put("loud.wav", SOUND * 32_768)
    pairs = AudioPairs(["loud.wav"], seconds=0.3)
    assert list(pairs) and "loud.wav exceeds 1.5 of full scale: wrongly scaled?" in pairs.report.notes()


# 55
def test_ten_hours_are_read_through_a_window(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("long.wav", SOUND, subtype="PCM_16")
    data = bytearray(Path("long.wav").read_bytes())
    size = 10 * 3600 * RATE * 2
    data[4:8], data[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    Path("long.wav").write_bytes(data)
    os.truncate("long.wav", size + 44)  # the rest is a hole
    read: list[int] = []

    def counted(clip: clips.Clip, real: Any = clips.read) -> Any:
        read.append(clip.frames)
        return real(clip)

    monkeypatch.setattr(clips, "read", counted)
    pairs = AudioPairs(["long.wav"], seconds=1.0, limit=5, allow_empty=True)
    assert sum(len(a) for a, _ in pairs) == 1 and sum(read) <= 10 * RATE


# 56
def test_strange_names_are_used_and_escaped(here: Path) -> None:
    for name in ("a\nb.wav", "\x1b[31m.wav", os.fsdecode(b"\xff.wav")):
        Path(name).write_bytes(Path("good.wav").read_bytes())  # under a name that need not be text
    count, reasons = used("\x1b[31m.wav", "a\nb.wav", os.fsdecode(b"\xff.wav"))
    assert count == 40 and not reasons
    assert sources.shown("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"


LISTS: dict[str, tuple[str, bytes]] = {
    "nul": ("x.csv", b"path\ngo\0od.wav\n"),
    "long name": ("x.csv", b"path\n" + b"x" * 300 + b"\n"),
    "long field": ("x.csv", b"path\n" + b"x" * 200_000 + b"\n"),
    "no field": ("x.csv", b"path,split\ngood.wav\n"),
    "more fields": ("x.csv", b"path,split\ngood.wav,a,b\n"),
    "column twice": ("x.csv", b"path,path\na.wav,good.wav\n"),
    "no text": ("x.csv", b"\xff\xfe\x00"),
    "cut of nul": (
        "x.jsonl",
        json.dumps(
            {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a\0b.wav"}]}
        ).encode(),
    ),
    "endless": ("x.jsonl", b'{"start":' + b"9" * 400 + b"}"),
    "deep": ("x.jsonl", b"[" * 100_000),
}


# 56
@pytest.mark.parametrize("how", LISTS)
def test_a_list_that_is_damaged_is_refused_or_its_rows_are(here: Path, how: str) -> None:
    name, data = LISTS[how]
    Path(name).write_bytes(data)
    try:
        count, reasons = used(name)
    except FileError as error:
        assert name in str(error)
    else:
        assert count == 10 and len(reasons) == 1


# 56
def test_a_packed_list_is_read_as_far_as_it_may_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE", 1 << 16)
    with gzip.open("bomb.jsonl.gz", "wb") as packed:
        packed.write(b" " * (1 << 20))
    with pytest.raises(FileError, match=r"more than 65,536 bytes in a line"):
        used("bomb.jsonl.gz")


# 57
def test_copies_are_told_and_every_source_says_its_share(here: Path) -> None:
    put("speech/a.wav", SOUND)
    put("music/b.wav", SOUND)
    pairs = AudioPairs(["speech", "music"], seconds=0.3)
    list(pairs)
    notes = pairs.report.notes()
    assert any("has the same content as" in note for note in notes)
    assert "music: 1 files, 10 clips, 3 s" in notes and "speech: 1 files, 10 clips, 3 s" in notes


# 58
def test_a_batch_holds_one_length_and_nothing_is_padded(here: Path) -> None:
    for i, seconds in enumerate((1.0, 0.5, 1.0, 0.5, 0.7)):
        put(f"whole/{i}.wav", noise(i, seconds))
    lengths = [a.shape for a, _ in AudioPairs(["whole"], seconds=None, batch=4)]
    assert sorted(lengths) == [(1, 11_200), (2, 8_000), (2, 16_000)]


# 59
def test_few_frames_are_warned_of_and_refused_when_asked(place: Path) -> None:
    plan = pg.Plan.load("plan.json")
    a, b = (open_encoder(name).module() for name in "AB")
    few = pg.match(plan, pg.calibrate(plan, a, b, [torch.randn(1, 200)]))
    assert any("samples for 24 channels" in text for text in few.report["groups"]["ffn.0"]["warnings"])
    said = bad(*MATCH, "-o", "q.st", "--min-frames", "1000000")
    assert "fewer than --min-frames 1,000,000" in said and not Path("q.st").exists()
