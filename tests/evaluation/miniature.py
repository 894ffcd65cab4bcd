"""Small data sets and encoders, made on the spot: classes that differ in pitch, so that a probe can learn them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import HubertConfig, HubertModel

RATE = 16_000
DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"

SMALL = HubertConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16,) * 3,
    conv_kernel=(10, 8, 4),
    conv_stride=(8, 8, 4),
    num_feat_extract_layers=3,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)


def encoder(folder: Path, seed: int = 0, rate: int = RATE, normalize: bool = False, layers: int = 0) -> Path:
    """A random HuBERT in miniature, as a Hugging Face folder; of so many layers, where that is said."""
    torch.manual_seed(seed)
    config = HubertConfig(**SMALL.to_dict() | ({"num_hidden_layers": layers} if layers else {}))
    HubertModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        f'{{"sampling_rate": {rate}, "do_normalize": {str(normalize).lower()}, "feature_size": 1}}'
    )
    return folder


def sound(path: Path, pitch: float = 440.0, seconds: float = 0.3, seed: int = 0, rate: int = RATE) -> Path:
    """A tone of a random phase and a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * pitch * t + rng.uniform(0, 6)) + 0.02 * rng.standard_normal(len(t))
    soundfile.write(path, tone, rate)
    return path


def manifest(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def tones(
    folder: Path, per_split: Mapping[str, int], pitches: Sequence[float] = (300, 900)
) -> list[dict[str, str]]:
    """Audio of two classes, and the rows of its manifest, which is written to tones.csv."""
    rows: list[dict[str, str]] = []
    for split, count in per_split.items():
        for i in range(count):
            k = i % len(pitches)
            name = f"audio/{split}_{i}.wav"
            sound(folder / name, pitches[k], seed=len(rows))
            speaker = f"{split}{i // 2}"
            rows.append(
                {"path": name, "note": f"note{k}", "speaker": speaker, "split": split, "fold": str(i % 3)}
            )
    manifest(folder / "tones.csv", rows)
    return rows


def task(folder: Path, **fields: object) -> Path:
    """A task file beside the data; strings and lists of strings."""
    values = {"domain": "music", "manifest": "tones.csv", "label": "note", "split": "split", **fields}
    text = "".join(
        f"{key} = {list(value) if isinstance(value, (list, tuple)) else repr(value)}\n"
        for key, value in values.items()
        if value is not None
    )
    path = folder / "tones.toml"
    path.write_text(text.replace("'", '"'))
    return path


PITCHES = {"A": 300, "B": 700, "C": 1500, "D": 3000}  # of characters


def speech(folder: Path, per_split: Mapping[str, int], seed: int = 0) -> Path:
    """LibriSpeech in miniature, as it is published: a tone per character, silence for a blank; two speakers per split."""
    rng = np.random.default_rng(seed)
    for split, subset in (("train", "train-clean-100"), ("valid", "dev-clean"), ("test", "test-clean")):
        for number in range(2):
            speaker = str(10 * ("train", "valid", "test").index(split) + number + 1)
            where = folder / "LibriSpeech" / subset / speaker / "7"
            where.mkdir(parents=True)
            lines = []
            for i in range(per_split[split] // 2):
                words = ["".join(rng.choice(list(PITCHES), rng.integers(1, 4))) for _ in range(1 + i % 2)]
                name = f"{speaker}-7-{i:04d}"
                said(where / f"{name}.flac", " ".join(words), rng)
                lines.append(f"{name} {' '.join(words)}\n")
            (where / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return folder


def said(path: Path, text: str, rng: np.random.Generator) -> None:
    """A text as tones of 40 ms, each with 20 ms of silence after it."""
    t = np.arange(int(0.04 * RATE)) / RATE
    parts = []
    for character in text:
        tone = np.sin(2 * np.pi * PITCHES[character] * t + rng.uniform(0, 6)) if character != " " else 0 * t
        parts += [0.3 * tone, np.zeros(int(0.02 * RATE))]
    audio = np.concatenate(parts)
    soundfile.write(path, audio + 0.01 * rng.standard_normal(len(audio)), RATE)
