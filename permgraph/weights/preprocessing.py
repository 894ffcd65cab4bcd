"""What a model of raw audio receives: its sampling rate, and whether clips are normalised. Read from data, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.errors import FileError
from permgraph.ir.files import read_bounded, strict_json

RATE = 16_000
FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Preprocessing:
    """sampling_rate  Hz; None for a model that does not take raw audio
    do_normalize   whether each clip is brought to zero mean and unit variance first
    assumed        what no file says, in words; "" when all is known
    """

    sampling_rate: int | None
    do_normalize: bool
    assumed: str = ""


def preprocessing(
    folder: Path | None, config: Mapping[str, Any], settings: Mapping[str, Any], published_rate: int | None
) -> Preprocessing:
    """What the training settings say, then the files of the folder, then its configuration; else what is usual.

    folder          of the model, when it has one
    settings        kept beside the weights of a training file: `sample_rate`, `normalize`
    published_rate  of an alias, Hz

    Raises FileError for a damaged file, and for a rate that is no positive number.
    """
    where, said = _of_folder(folder) if folder else ("", {})
    rates = (
        settings.get("sample_rate"),
        said.get("sampling_rate"),
        config.get("sample_rate"),
        published_rate,
    )
    rate = next((r for r in rates if r is not None), None)
    normalize = next(
        (n for n in (settings.get("normalize"), said.get("do_normalize")) if n is not None), None
    )
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 10**7
    ):
        raise FileError(f"{where or folder or 'settings'}: {rate!r} is not a sampling rate in Hz.")
    # fairseq's recipes normalise the audio of the models that have layer norm in the front end
    usual = config.get("feat_extract_norm") == "layer"
    guesses = [] if rate is not None else [f"{RATE:,} Hz"]
    if normalize is None and published_rate is None:
        guesses.append("normalised clips" if usual else "clips that are not normalised")
    assumed = (
        f"no file says what it receives ({', '.join(FILES)}); assumed: {', '.join(guesses)}"
        if guesses
        else ""
    )
    return Preprocessing(int(rate or RATE), bool(usual if normalize is None else normalize), assumed)


def _of_folder(folder: Path) -> tuple[Path | str, dict[str, Any]]:
    """The first file that tells a sampling rate or a normalisation, and what it says."""
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        for section in _sections(_object(path)):
            if "sampling_rate" in section or "do_normalize" in section:
                return path, section
    return "", {}


def _sections(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A processor keeps its feature extractor in a section of its own."""
    for name in ("feature_extractor", "audio_processor"):
        if isinstance(data.get(name), dict):
            yield data[name]
    yield data


def _object(path: Path) -> dict[str, Any]:
    try:
        data = strict_json(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a preprocessor configuration: {error}.") from error
    if not isinstance(data, dict):
        raise FileError(f"{path}: not a preprocessor configuration: not an object.")
    return data
