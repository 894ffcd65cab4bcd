"""The audio to pre-train on: clips at 16 kHz, and crops that lie within them, as long as what an encoder is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import UsageError
from permgraph.inputs.audio import AudioPairs
from permgraph.inputs.synthetic import LOUDNESS, RATE, Samples, synthesise
from pretraining.variants import variants

PIECE = 20.0  # seconds of synthetic audio made at a time
SHORTEST = 0.15  # seconds: of shorter clips there is nothing to predict

Index = NDArray[np.int64]


def clips(synthetic: Sequence[str], audio: Sequence[str], seed: int, copies: int = 0) -> list[Samples]:
    """All clips, (samples,) each, in random order and equally loud; those shorter than SHORTEST are left out.

    synthetic   "speech=20" (minutes), "music=10", …
    audio       folders, globs, files, manifests; "manifest.csv@split=train" keeps some rows, "@a=b@c=d" fewer
    copies      of each clip, besides it, see `variants`
    Raises UsageError, FileError.
    """
    found = [clip for text in synthetic for clip in _synthetic(text, seed)]
    found += [clip for text in audio for clip in _files(text)]
    if not found:
        raise UsageError("nothing to train on. Give --synthetic speech=20 or --audio FOLDER.")
    found += variants(found, copies, np.random.default_rng([seed, 4]))
    found = [clip for clip in found if len(clip) >= SHORTEST * RATE]
    if not found:
        raise UsageError(f"no clip to train on is as long as {SHORTEST} s.")
    order = np.random.default_rng([seed, 1]).permutation(len(found))
    return [_levelled(found[i]) for i in order]


def draw(rng: np.random.Generator, lengths: Index, rows: int, longest: int) -> tuple[Index, Index, int]:
    """Which clips, where the crops start in them, and their common length, all in frames.

    lengths   of the clips, in frames
    rows      how many crops of the longest length; of shorter ones as many as make the same number of frames
    Every second of audio is about as likely as any other; no crop is longer than its clip.
    """
    frames = min(int(lengths[rng.choice(len(lengths), p=lengths / lengths.sum())]), longest)
    fit = np.where(lengths >= frames, lengths, 0)
    chosen = rng.choice(len(lengths), size=max(round(rows * longest / frames), 1), p=fit / fit.sum())
    return chosen, rng.integers(0, lengths[chosen] - frames + 1), frames


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


def normalised(audio: Samples) -> Samples:
    """Of zero mean and unit variance along the last axis, as encoders receive it."""
    audio = audio - audio.mean(axis=-1, keepdims=True)
    return np.asarray(audio / np.sqrt(audio.var(axis=-1, keepdims=True) + 1e-7), dtype=np.float32)


__all__ = ["RATE", "clips", "conditions", "draw", "normalised"]
