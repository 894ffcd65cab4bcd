"""The audio to pre-train on, as one long stream at 16 kHz: crops may start anywhere in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from permgraph.errors import UsageError
from permgraph.inputs.audio import AudioPairs
from permgraph.inputs.synthetic import LOUDNESS, RATE, Samples, synthesise

PIECE = 20.0  # seconds of synthetic audio made at a time


def stream(synthetic: Sequence[str], audio: Sequence[str], seed: int) -> Samples:
    """All audio one after another in random order, (samples,), every clip equally loud.

    synthetic   "speech=20" (minutes), "music=10", …
    audio       folders, globs, files, manifests; "manifest.csv@split=train" keeps some rows, "@a=b@c=d" fewer
    Raises UsageError, FileError.
    """
    clips = [clip for text in synthetic for clip in _synthetic(text, seed)]
    clips += [clip for text in audio for clip in _files(text)]
    if not clips:
        raise UsageError("nothing to train on. Give --synthetic speech=20 or --audio FOLDER.")
    order = np.random.default_rng([seed, 1]).permutation(len(clips))
    return np.concatenate([_levelled(clips[i]) for i in order])


def _synthetic(text: str, seed: int) -> Iterator[Samples]:
    kind, _, minutes = text.partition("=")
    try:
        seconds = 60 * float(minutes)
    except ValueError as error:
        raise UsageError(f"--synthetic {text}: write kind=minutes, for example speech=20.") from error
    for piece in range(round(seconds / PIECE) or 1):
        yield synthesise(kind, min(PIECE, seconds), seed * 10_000 + piece)


def _files(text: str) -> Iterator[Samples]:
    path, where = conditions(text)
    for batch, _ in AudioPairs([path], seconds=None, batch=1, where=where or None):
        yield batch[0].numpy()


def conditions(text: str) -> tuple[str, dict[str, str]]:
    """ "manifest.csv@column=value@other=value" as the path and what its rows must have. Raises UsageError."""
    path, *parts = text.split("@")
    where = {}
    for part in parts:
        column, _, value = part.partition("=")
        if not (column and value):
            raise UsageError(f"--audio {text}: write MANIFEST@column=value to keep some of its rows.")
        where[column] = value
    return path, where


def _levelled(clip: Samples) -> Samples:
    clip = clip - clip.mean()
    return np.asarray(clip * (LOUDNESS / max(float(np.sqrt(np.mean(clip**2))), 1e-4)), dtype=np.float32)


def crops(audio: Samples, starts: np.ndarray, length: int) -> Samples:
    """Rows audio[start : start + length], each of zero mean and unit variance: (crops, length)."""
    rows = np.stack([audio[s : s + length] for s in starts])
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-7), dtype=np.float32)


__all__ = ["RATE", "conditions", "crops", "stream"]
