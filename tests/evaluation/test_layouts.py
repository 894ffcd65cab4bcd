"""The official folder layouts, in miniature: every reader gives the rows that a task of the package takes."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from permgraph.errors import FileError, UsageError
from permgraph.evaluation.dataset import load_dataset
from permgraph.evaluation.layouts import LAYOUTS, read_layout, write_manifest
from permgraph.evaluation.task import load_task, task_names
from permgraph.inputs.audio import AudioPairs
from tests.evaluation import miniature as m

Built = dict[str, dict[str, str]]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(root: Path, name: str, *lines: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(f"{line}\n" for line in lines))


def speech_commands(root: Path) -> Built:
    rows: Built = {}
    for word, keyword in (("yes", "yes"), ("bed", "unknown")):
        for i in range(7):
            split = {5: "valid", 6: "test"}.get(i, "train")
            name = f"{word}/{i}a{word}_nohash_0.wav"
            rows[name] = {"word": word, "keyword": keyword, "speaker": f"{i}a{word}", "split": split}
    touch(root, *rows, "_background_noise_/pink_noise.wav", "LICENSE")
    for part in ("validation", "testing"):
        split = {"validation": "valid", "testing": "test"}[part]
        write(root, f"{part}_list.txt", *(n for n, row in rows.items() if row["split"] == split))
    return rows


def fluent_speech_commands(root: Path) -> Built:
    rows: Built = {}
    for split in ("train", "valid", "test"):
        lines = [",path,speakerId,transcription,action,object,location"]
        for i in range(4):
            action = ("activate", "increase")[i % 2]
            path = f"wavs/speakers/{split}/{i}.wav"
            lines.append(f'{i},{path},{split},"Turn, please",{action},lights,none')
            rows[path] = {
                "intent": f"{action}|lights|none",
                "action": action,
                "transcript": "Turn, please",
                "speaker": split,
                "split": split,
            }
        write(root, f"data/{split}_data.csv", *lines)
    touch(root, *rows)
    return rows


def voxceleb1(root: Path) -> Built:
    rows: Built = {}
    lines = []
    for speaker in ("id10001", "id10270"):
        top = "dev/wav" if speaker == "id10001" else "test/wav"
        for number, split in (("1", "train"), ("2", "valid"), ("3", "test")):
            path = f"{speaker}/video{number}/00001.wav"
            lines.append(f"{number} {path}")
            rows[f"{top}/{path}"] = {
                "speaker": speaker,
                "recording": f"{speaker}/video{number}",
                "split": split,
            }
    write(root, "iden_split.txt", *lines)
    touch(root, *rows)
    return rows


def iemocap(root: Path) -> Built:
    rows: Built = {}
    emotions = {
        "neu": "neutral",
        "exc": "happy",
        "hap": "happy",
        "ang": "angry",
        "sad": "sad",
        "fru": "",
        "xxx": "",
    }
    for session in range(1, 6):
        dialogue = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for i, (emotion, label) in enumerate(list(emotions.items()) * 6):
            sex = "FM"[i % 2]
            turn = f"{dialogue}_{sex}{i:03d}"
            lines += [
                f"[6.2901 - 8.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()",
            ]
            path = f"Session{session}/sentences/wav/{dialogue}/{turn}.wav"
            touch(root, path)
            if label:
                values = {"emotion": label, "speaker": f"0{session}{sex}", "dialogue": dialogue}
                rows[path] = {**values, "session": f"Session{session}"}
        write(root, f"Session{session}/dialog/EmoEvaluation/{dialogue}.txt", *lines)
    return rows


def librispeech(root: Path) -> Built:
    rows: Built = {}
    for subset, split in (("train-clean-100", "train"), ("dev-clean", "valid"), ("test-clean", "test")):
        speaker = {"train": "19", "valid": "84", "test": "61"}[split]
        where = f"{subset}/{speaker}/198"
        write(
            root,
            f"{where}/{speaker}-198.trans.txt",
            f"{speaker}-198-0000 NORTHANGER ABBEY",
            f"{speaker}-198-0001 A B",
        )
        for i, transcript in enumerate(("NORTHANGER ABBEY", "A B")):
            values = {"transcript": transcript, "speaker": speaker, "chapter": "198", "split": split}
            rows[f"{where}/{speaker}-198-000{i}.flac"] = values
    touch(root, *rows)
    return rows


def vocalset(root: Path) -> Built:
    rows: Built = {}
    techniques = load_task("vocid").only
    singers = [*(f"female{i}" for i in range(1, 10)), *(f"male{i}" for i in range(1, 12))]
    for number, singer in enumerate(singers):
        for technique in (*techniques, "messa"):
            name = f"FULL/{singer}/arpeggios/{technique}/{singer[0]}_{technique}_a.wav"
            values = {"singer": singer, "context": "arpeggios", "technique": technique}
            rows[name] = {**values, "fold_of_singers": str(number % 5 + 1)}
    touch(root, *rows, "FULL/female1/arpeggios/belt/._f1_belt_a.wav")
    return rows


def nsynth(root: Path) -> Built:
    rows: Built = {}
    for split in ("train", "valid", "test"):
        examples = {}
        for family in ("bass", "flute"):
            for pitch in (60, 61):
                instrument = f"{family}_synthetic_{split}"
                name = f"{instrument}-0{pitch}-050"
                examples[name] = {
                    "instrument_family_str": family,
                    "pitch": pitch,
                    "instrument_str": instrument,
                }
                values = {"family": family, "pitch": str(pitch), "instrument": instrument, "split": split}
                rows[f"nsynth-{split}/audio/{name}.wav"] = values
        write(root, f"nsynth-{split}/examples.json", json.dumps(examples))
    touch(root, *rows)
    return rows


def gtzan(root: Path) -> Built:
    rows: Built = {}
    for split, first in (("train", 0), ("valid", 10), ("test", 20)):
        names = [f"{genre}/{genre}.000{first + i:02d}.wav" for genre in ("blues", "disco") for i in range(3)]
        write(root, f"{split}_filtered.txt", *names)
        rows |= {f"genres/{n}": {"genre": n.partition("/")[0], "split": split} for n in names}
    touch(root, *rows, "genres/blues/blues.00099.wav")
    return rows


def esc50(root: Path) -> Built:
    rows: Built = {}
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for category in ("dog", "rain"):
            for i in range(5):
                name = f"{fold}-{i}00{category}-A-0.wav"
                lines.append(f"{name},{fold},0,{category},True,{fold}00{i}{category},A")
                rows[f"audio/{name}"] = {
                    "category": category,
                    "recording": f"{fold}00{i}{category}",
                    "fold": str(fold),
                }
    write(root, "meta/esc50.csv", *lines)
    touch(root, *rows)
    return rows


BUILDERS: dict[str, Callable[[Path], Built]] = {
    "speech-commands-v1": speech_commands,
    "fluent-speech-commands": fluent_speech_commands,
    "voxceleb1": voxceleb1,
    "iemocap": iemocap,
    "librispeech": librispeech,
    "vocalset": vocalset,
    "nsynth": nsynth,
    "gtzan": gtzan,
    "esc-50": esc50,
}


@pytest.fixture(params=LAYOUTS)
def built(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Built]:
    return request.param, tmp_path, BUILDERS[request.param](tmp_path)


def test_the_rows_are_those_of_the_data_set(built: tuple[str, Path, Built]) -> None:
    name, root, expected = built
    found = {row["path"]: row for row in read_layout(name, root)}
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        assert {key: found[path][key] for key in values} == values
        assert set(found[path]) == {"path", *LAYOUTS[name].columns}


def test_a_manifest_holds_the_same_rows(built: tuple[str, Path, Built]) -> None:
    name, root, expected = built
    assert write_manifest(name, root, root / "manifest.csv") == len(expected)
    with open(root / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == read_layout(name, root)
    assert all((root / row["path"]).is_file() for row in rows)
    with pytest.raises(UsageError, match="relative to it"):
        write_manifest(name, root, root.parent / "manifest.csv")


def test_a_folder_of_another_layout_is_refused(built: tuple[str, Path, Built], tmp_path: Path) -> None:
    name, _, _ = built
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"empty"):
        read_layout(name, tmp_path / "empty")
    with pytest.raises(FileError, match="no such folder"):
        read_layout(name, tmp_path / "nowhere")


OFFICIAL = [name for name in task_names() if load_task(name).layout]


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_official_task_takes_its_layout(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    BUILDERS[task.layout](tmp_path / task.folder)
    made = load_dataset(task, tmp_path)
    assert all(part.train and part.valid and part.test for part in made.rounds)


def test_every_layout_has_a_task() -> None:
    assert {load_task(name).layout for name in OFFICIAL} == set(LAYOUTS)


def test_a_missing_file_of_a_list_is_refused(tmp_path: Path) -> None:
    task = load_task("sid")
    rows = voxceleb1(tmp_path / task.folder)
    (tmp_path / task.folder / next(iter(rows))).unlink()
    with pytest.raises(FileError, match="no such file"):
        load_dataset(task, tmp_path)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean gtzan"):
        read_layout("gtzam", tmp_path)


def test_audio_of_librispeech_without_a_transcript_is_refused(tmp_path: Path) -> None:
    """Left out in silence, it would be another test set."""
    librispeech(tmp_path)
    touch(tmp_path, "test-clean/61/198/61-198-0002.flac")
    with pytest.raises(FileError, match=r"61-198-0002\.flac: no \*\.trans\.txt .* \(1 such clips\)"):
        read_layout("librispeech", tmp_path)


def test_a_listed_clip_of_speech_commands_that_is_missing_is_refused(tmp_path: Path) -> None:
    """It would be judged on other clips than those of the list."""
    for listed in ("test", "valid"):
        root = tmp_path / listed
        rows = speech_commands(root)
        gone = sorted(path for path, row in rows.items() if row["split"] == listed)
        for path in gone:
            (root / path).unlink()
        with pytest.raises(FileError, match=rf"names {gone[0]}, .*missing of the 4 clips in the lists: 2\)"):
            read_layout("speech-commands-v1", root)


@pytest.mark.parametrize("gone", ["Session3", "Session3/dialog", "Session5/dialog/EmoEvaluation"])
def test_iemocap_has_its_five_sessions(tmp_path: Path, gone: str) -> None:
    iemocap(tmp_path)
    shutil.rmtree(tmp_path / gone)
    with pytest.raises(FileError, match=rf"{gone[:8]}.dialog.EmoEvaluation: has no Ses\*\.txt"):
        read_layout("iemocap", tmp_path)


def test_a_dialogue_of_iemocap_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    iemocap(tmp_path)
    file = tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    file.write_text(file.read_text().replace("\t", " "))
    with pytest.raises(FileError, match=r"Ses02F_impro01\.txt: no line is"):
        read_layout("iemocap", tmp_path)
    (tmp_path / "Session2 copy").mkdir()
    with pytest.raises(FileError, match=r"Session2 copy: not one of the five sessions"):
        read_layout("iemocap", tmp_path)


def test_esc_50_has_its_five_folds(tmp_path: Path) -> None:
    esc50(tmp_path)
    file = tmp_path / "meta/esc50.csv"
    lines = file.read_text().splitlines(keepends=True)
    for left in ([line for line in lines if line[0] != "3"], lines[:-10]):
        file.write_text("".join(left))
        with pytest.raises(FileError, match=r"esc50\.csv: its folds are 1, .*, not 1, 2, 3, 4, 5"):
            read_layout("esc-50", tmp_path)


@pytest.mark.parametrize("layout", ["fluent-speech-commands", "esc-50"])
@pytest.mark.parametrize("change", ["{},more", "{0[0]}", "{0[0]},{0[1]}"])
def test_a_row_of_another_width_is_refused(tmp_path: Path, layout: str, change: str) -> None:
    """Cut off, or with a comma that is not quoted: its columns would be those of others."""
    BUILDERS[layout](tmp_path)
    file = next(tmp_path.rglob("*.csv"))
    lines = file.read_text().splitlines()
    lines[2] = change.format(lines[2] if "more" in change else lines[2].split(","))
    file.write_text("\n".join(lines))
    with pytest.raises(FileError, match=rf"{file.name}, line 3: has not as many fields as the header \(7\)"):
        read_layout(layout, tmp_path)


def test_names_that_are_no_text_are_no_labels(tmp_path: Path) -> None:
    speech_commands(tmp_path)
    strange = os.fsdecode(b"f\xfcr")
    touch(tmp_path, f"{strange}/0_nohash_0.wav")
    with pytest.raises(FileError, match=r"its word, f\\xfcr, is not UTF-8"):
        read_layout("speech-commands-v1", tmp_path)
    (tmp_path / strange / "0_nohash_0.wav").unlink()
    touch(tmp_path, f"bed/0_nohash_{strange}.wav")  # a path may be so, but not in a manifest
    assert read_layout("speech-commands-v1", tmp_path)
    with pytest.raises(FileError, match=r"its path, .* is not UTF-8"):
        write_manifest("speech-commands-v1", tmp_path, tmp_path / "manifest.csv")


def test_a_written_manifest_also_calibrates(tmp_path: Path) -> None:
    rows = gtzan(tmp_path)
    for path in rows:
        m.sound(tmp_path / path)
    write_manifest("gtzan", tmp_path, tmp_path / "manifest.csv")
    assert len(AudioPairs([tmp_path / "manifest.csv"], seconds=0.2, where={"split": "test"})) == 6
