"""Speech data sets: Speech Commands v1, Fluent Speech Commands, VoxCeleb1, IEMOCAP, LibriSpeech."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.layouts.reading import audio_below, lines, only_folder, table

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")
EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}  # as SUPERB does
_TURN = re.compile(r"^\[\d+\.\d+ - \d+\.\d+\]\t(Ses(\d\d)[FM]_\w+_([FM])\d+)\t(\w+)\t")


def speech_commands(folder: Path) -> Iterator[dict[str, str]]:
    """WORD/SPEAKER_nohash_N.wav, validation_list.txt, testing_list.txt.

    `keyword` is one of ten words, or "unknown". The silence of SUPERB's task is cut from noise files at random, in
    no list; it is left out here. A listed clip that is not there is refused: left out, it would make another test set.
    """
    parts = {name: "valid" for name in lines(folder / "validation_list.txt")}
    test = lines(folder / "testing_list.txt")
    if both := sorted(parts.keys() & set(test)):
        raise FileError(f"{folder}: {both[0]} is in validation_list.txt and in testing_list.txt.")
    parts.update((name, "test") for name in test)
    missing = set(parts)
    for path in audio_below(folder, folder):
        word, _, name = path.rpartition("/")
        if word.startswith("_") or not word:
            continue
        if "/" in word or "_nohash_" not in name:
            raise FileError(f"{folder / path}: not WORD/SPEAKER_nohash_NUMBER.wav.")
        missing.discard(path)
        keyword = word if word in KEYWORDS else "unknown"
        speaker = name.partition("_nohash_")[0]
        split = parts.get(path, "train")
        yield {"path": path, "word": word, "keyword": keyword, "speaker": speaker, "split": split}
    if missing:
        first = min(missing)
        file = "testing_list.txt" if parts[first] == "test" else "validation_list.txt"
        raise FileError(
            f"{folder / file}: names {first}, and no such clip is here (missing of the {len(parts)} clips in the lists: "
            f"{len(missing)})."
        )


def fluent_speech_commands(folder: Path) -> Iterator[dict[str, str]]:
    """data/{train,valid,test}_data.csv; the intent is action, object and location together."""
    slots = ("action", "object", "location")
    for split in ("train", "valid", "test"):
        for _, row in table(
            folder / "data" / f"{split}_data.csv", ("path", "speakerId", "transcription", *slots)
        ):
            yield {
                "path": row["path"],
                "intent": "|".join(row[slot] for slot in slots),
                **{slot: row[slot] for slot in slots},
                "transcript": row["transcription"],
                "speaker": row["speakerId"],
                "split": split,
            }


def voxceleb1(folder: Path) -> Iterator[dict[str, str]]:
    """iden_split.txt (1 train, 2 valid, 3 test) and wav/, or dev/wav/ and test/wav/ beside each other."""
    names = {"1": "train", "2": "valid", "3": "test"}
    roots = [root for root in ("wav", "dev/wav", "test/wav") if (folder / root).is_dir()]
    if not roots:
        raise FileError(f"{folder}: has none of the folders wav, dev/wav, test/wav.")
    for number, line in enumerate(lines(folder / "iden_split.txt"), 1):
        split, _, path = line.partition(" ")
        speaker, _, rest = path.partition("/")
        if split not in names or not rest:
            raise FileError(
                f"{folder / 'iden_split.txt'}, line {number}: not SPLIT SPEAKER/VIDEO/CLIP.wav: {line}"
            )
        root = next((root for root in roots if (folder / root / path).is_file()), roots[0])
        recording = f"{speaker}/{rest.partition('/')[0]}"
        yield {
            "path": f"{root}/{path}",
            "speaker": speaker,
            "recording": recording,
            "split": names[split],
        }


def iemocap(folder: Path) -> Iterator[dict[str, str]]:
    """Session{1..5}/dialog/EmoEvaluation/*.txt and Session*/sentences/wav; four classes, "excited" joined to "happy".

    A session is a fold. One that is missing, or cannot be read, would make another cross-validation.
    """
    for path in sorted(path for path in folder.glob("Session*") if path.is_dir()):
        if path.name not in SESSIONS:
            raise FileError(f"{path}: not one of the five sessions, {', '.join(SESSIONS)}.")
    for session in SESSIONS:
        dialogues = folder / session / "dialog" / "EmoEvaluation"
        files = sorted(dialogues.glob("Ses*.txt"))
        if not files:
            raise FileError(f"{dialogues}: has no Ses*.txt, which the official layout has.")
        for file in files:
            for turn in _turns(file):
                if turn[4] in EMOTIONS:
                    yield {
                        "path": f"{session}/sentences/wav/{file.stem}/{turn[1]}.wav",
                        "emotion": EMOTIONS[turn[4]],
                        "speaker": f"{turn[2]}{turn[3]}",
                        "dialogue": file.stem,
                        "session": session,
                    }


def _turns(file: Path) -> list[re.Match[str]]:
    text = file.read_text(encoding="utf-8", errors="replace")
    found = [turn for line in text.splitlines() if (turn := _TURN.match(line))]
    if not found:
        raise FileError(f"{file}: no line is [START - END], turn, emotion, [V, A, D], with tabs between.")
    return found


def librispeech(folder: Path) -> Iterator[dict[str, str]]:
    """SUBSET/SPEAKER/CHAPTER/*.flac with *.trans.txt; train-clean-100, dev-clean and test-clean, as SUPERB does.

    Audio without a transcript is refused: left out, it would make another test set.
    """
    for subset, split in (("train-clean-100", "train"), ("dev-clean", "valid"), ("test-clean", "test")):
        untold = set(audio_below(only_folder(folder, subset), folder))
        for file in sorted((folder / subset).glob("*/*/*.trans.txt")):
            where = file.parent.relative_to(folder).as_posix()
            for line in lines(file):
                name, _, transcript = line.partition(" ")
                untold.discard(f"{where}/{name}.flac")
                yield {
                    "path": f"{where}/{name}.flac",
                    "transcript": transcript,
                    "speaker": file.parent.parent.name,
                    "chapter": file.parent.name,
                    "split": split,
                }
        if untold:
            raise FileError(
                f"{folder / min(untold)}: no *.trans.txt beside it has its transcript ({len(untold)} such clips)."
            )
