"""The baseline that every encoder has to beat: log-mel energies; of whole clips their mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from permgraph.evaluation.features import Array, Features, Progress, cached, pieces, statistics
from permgraph.evaluation.frames import Frames, cached_frames
from permgraph.inputs.audio import Preprocess

NAME = "log-mel"
RATE, WINDOW, HOP, SIZE, BANDS = 16_000, 400, 160, 512, 80  # Hz; samples: 25 ms every 10 ms
FLOOR = 1e-6  # of energies: well above what rounding to 16 bits leaves in a band

SETTINGS = f"{NAME} {RATE} {WINDOW} {HOP} {SIZE} {BANDS} {FLOOR}"

Floats = NDArray[np.float64]


def logmel(samples: Array) -> Floats:
    """(frames, bands): natural logarithm of mel energies of audio at 16 kHz, (samples,). Windows are never padded
    but in a clip shorter than one."""
    audio = np.pad(samples.astype(np.float64), (0, max(WINDOW - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1], SIZE)) ** 2
    return np.asarray(np.log(np.maximum(power @ mel_bank().T, FLOOR)))


def mel_bank() -> Floats:
    """(bands, frequencies): triangles of equal width in mel (O'Shaughnessy's formula), from 0 Hz to half the rate."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    at = np.fft.rfftfreq(SIZE, 1 / RATE)
    low, middle, high = (edges[i : i + BANDS, None] for i in range(3))
    return np.asarray(np.maximum(np.minimum((at - low) / (middle - low), (high - at) / (high - middle)), 0))


def _of_file(path: Path) -> Iterator[Floats]:
    """(1, frames, bands), in pieces."""
    for samples in pieces(path, Preprocess(RATE)):
        yield logmel(samples)[None]


def logmel_features(files: Sequence[Path], cache: Path, progress: Progress | None = None) -> Features:
    """Features of one layer, as those of an encoder. Raises FileError."""
    return cached(NAME, SETTINGS, lambda path: statistics(_of_file(path)), files, cache, progress)


def logmel_frames(files: Sequence[Path], cache: Path, progress: Progress | None = None) -> Frames:
    """Frames of one layer, as those of an encoder. Raises FileError."""
    return cached_frames(NAME, SETTINGS, _of_file, files, cache, progress)
