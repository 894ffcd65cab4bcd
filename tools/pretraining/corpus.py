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
    audio       folders, globs, files, manifests; "manifest.csv@split=train" keeps some rows
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
    path, _, condition = text.partition("@")
    column, equals, value = condition.partition("=")
    if condition and not (column and equals):
        raise UsageError(f"--audio {text}: write MANIFEST@column=value to keep some of its rows.")
    for batch, _ in AudioPairs([path], seconds=None, batch=1, where={column: value} if condition else None):
        yield batch[0].numpy()


def _levelled(clip: Samples) -> Samples:
    clip = clip - clip.mean()
    return np.asarray(clip * (LOUDNESS / max(float(np.sqrt(np.mean(clip**2))), 1e-4)), dtype=np.float32)


def crops(audio: Samples, starts: np.ndarray, length: int) -> Samples:
    """Rows audio[start : start + length], each of zero mean and unit variance: (crops, length)."""
    rows = np.stack([audio[s : s + length] for s in starts])
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-7), dtype=np.float32)


__all__ = ["RATE", "crops", "stream"]
