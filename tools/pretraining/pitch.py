"""What keeps the pitch of a frame, which the 40 bands of a mel spectrogram lose: a constant-Q transform and its harmonics.

After Brown (1991), https://doi.org/10.1121/1.400476; as targets of pre-training, after MERT (Li et al., 2023).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from permgraph.inputs.synthetic import RATE, Samples

LOWEST, OCTAVE, BINS = 32.703, 24, 184  # Hz (C1); bins an octave, a quarter tone each; up to 6.5 kHz
LONGEST = 4096  # samples of the longest window: low notes are resolved less sharply than a constant Q would
HARMONICS = (1, 2, 3, 4, 5, 6, 7, 8)
FLOOR = 1e-3  # of magnitudes: well below the passages' loudness


def constant_q(audio: Samples, frames: int, hop: int, field: int) -> Tensor:
    """Logarithm of the constant-Q magnitudes about the middle of each frame, (frames, BINS).

    frames, hop, field   of the encoder: frame t sees audio[t · hop : t · hop + field]
    """
    before = LONGEST // 2 - field // 2
    padded = np.pad(audio, (before, LONGEST))
    windows = torch.from_numpy(padded).unfold(0, LONGEST, hop)[:frames]
    kernels = torch.from_numpy(_kernels())
    parts = [
        torch.log(torch.complex(some @ kernels[0], some @ kernels[1]).abs() + FLOOR)
        for some in torch.split(windows, 4000)
    ]
    return torch.cat(parts)


def salience(log_magnitudes: Tensor) -> Tensor:
    """How much each bin is the fundamental of what sounds, (frames, BINS): the mean over its harmonics, whitened.

    The spectrum's envelope is taken out first, so that timbre weighs little; each frame has zero mean and unit length.
    """
    wide = torch.nn.functional.avg_pool1d(
        log_magnitudes[:, None], 2 * OCTAVE + 1, 1, OCTAVE, count_include_pad=False
    )[:, 0]
    peaks = (log_magnitudes - wide).clamp(min=0)
    total = torch.zeros_like(peaks)
    for harmonic in HARMONICS:
        shift = round(OCTAVE * np.log2(harmonic))
        total[:, : BINS - shift] += peaks[:, shift:] * 0.84 ** (harmonic - 1)
    total = total - total.mean(1, keepdim=True)
    return torch.div(total, total.norm(dim=1, keepdim=True) + 1e-3)


@cache
def _kernels() -> np.ndarray:
    """Windowed cosines and sines, (2, LONGEST, BINS) float32, each centred, of unit gain."""
    at = np.arange(LONGEST) - LONGEST / 2
    hertz = LOWEST * 2 ** (np.arange(BINS) / OCTAVE)
    quality = 1 / (2 ** (1 / OCTAVE) - 1)
    length = np.minimum(quality * RATE / hertz, LONGEST)
    window = np.where(
        np.abs(at[:, None]) < length / 2, 0.5 + 0.5 * np.cos(2 * np.pi * at[:, None] / length), 0
    )
    phase = 2 * np.pi * at[:, None] * hertz / RATE
    window = window / window.sum(axis=0)
    return np.asarray(np.stack([window * np.cos(phase), window * np.sin(phase)]), dtype=np.float32)
