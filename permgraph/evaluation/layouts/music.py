"""Music data sets: VocalSet, NSynth, GTZAN."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from permgraph.errors import FileError
from permgraph.evaluation.layouts.reading import audio_below, lines, only_folder

FOLDS = 5


def vocalset(folder: Path) -> Iterator[dict[str, str]]:
    """FULL/SINGER/CONTEXT/TECHNIQUE/*.wav.

    No split is published for singers. `fold_of_singers` keeps every singer in one of five folds, women and men dealt
    out in turn; `fold_of_files` deals out the files of each singer.
    """
    root = only_folder(folder, "FULL", "data_by_singer")
    singers = sorted(
        (path.name for path in root.iterdir() if path.is_dir()),
        key=lambda name: (name.strip("0123456789"), len(name), name),
    )
    for number, singer in enumerate(singers):
        for count, path in enumerate(audio_below(root / singer, folder)):
            parts = Path(path).relative_to(root.relative_to(folder)).parts
            if len(parts) != 4:
                raise FileError(f"{folder / path}: not {root.name}/SINGER/CONTEXT/TECHNIQUE/FILE.")
            yield {
                "path": path,
                "singer": singer,
                "context": parts[1],
                "technique": parts[2],
                "fold_of_singers": str(number % FOLDS + 1),
                "fold_of_files": str(count % FOLDS + 1),
            }


def nsynth(folder: Path) -> Iterator[dict[str, str]]:
    """nsynth-{train,valid,test}/examples.json and audio/; instruments of train are not in the others."""
    for split in ("train", "valid", "test"):
        file = folder / f"nsynth-{split}" / "examples.json"
        try:
            examples = json.loads(file.read_bytes())
            rows = [
                (str(name), e["instrument_family_str"], str(e["pitch"]), e["instrument_str"])
                for name, e in examples.items()
            ]
        except FileNotFoundError as error:
            raise FileError(f"{file}: no such file, which the official layout has.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{file}: not NSynth's list of examples: {error!r}.") from error
        for name, family, pitch, instrument in rows:
            yield {
                "path": f"nsynth-{split}/audio/{name}.wav",
                "family": family,
                "pitch": pitch,
                "instrument": instrument,
                "split": split,
            }


def gtzan(folder: Path) -> Iterator[dict[str, str]]:
    """genres/GENRE/GENRE.NUMBER.wav and the fault-filtered split of MARBLE: {train,valid,test}_filtered.txt.

    Files that no list names (copies, distorted ones) take no part.
    """
    root = only_folder(folder, "genres", "genres_original")
    for split in ("train", "valid", "test"):
        for line in lines(folder / f"{split}_filtered.txt"):
            genre, _, name = line.rpartition("/")
            if not name.startswith(f"{genre}.") or not genre:
                raise FileError(f"{folder / f'{split}_filtered.txt'}: not GENRE/GENRE.NUMBER.wav: {line}")
            yield {"path": f"{root.name}/{genre}/{name}", "genre": genre, "split": split}
