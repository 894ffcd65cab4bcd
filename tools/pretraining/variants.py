"""More to learn from: copies of clips at another speed, with another spectrum, and over another clip.

An encoder that sees a thousand notes learns these notes. At another speed every note has another pitch and another
formant; a slope over the spectrum is another room or microphone; two clips at once are as WavLM mixes utterances
(Chen et al. 2022, https://arxiv.org/abs/2110.13900). What is to be predicted is computed of the copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import resample_poly

from permgraph.inputs.synthetic import Samples

SPEED = 1.4  # at most this much faster or slower
STEPS = 60  # of a clip's length, in so many parts
TILT, WAVES = 5.0, 3  # dB of each wave over the spectrum; waves
MIXED, UNDER = 0.5, (0.0, 15.0)  # share of copies over another clip; how much softer that one is, in dB


def variants(clips: Sequence[Samples], copies: int, rng: np.random.Generator) -> list[Samples]:
    """`copies` of each clip, (samples,) each, of whatever loudness."""
    found = []
    for clip in clips:
        for _ in range(copies):
            one = tilted(sped(clip, rng), rng)
            if rng.random() < MIXED:
                other = tilted(sped(clips[int(rng.integers(len(clips)))], rng), rng)
                one = over(one, other, rng.uniform(*UNDER), rng)
            found.append(one)
    return found


def sped(clip: Samples, rng: np.random.Generator) -> Samples:
    """Faster or slower, and higher or lower with it."""
    length = round(STEPS * SPEED ** rng.uniform(-1, 1))
    return np.asarray(resample_poly(clip, length, STEPS), dtype=np.float32)


def tilted(clip: Samples, rng: np.random.Generator) -> Samples:
    """With smooth gains over the spectrum, that change on a scale of octaves."""
    spectrum = np.fft.rfft(clip)
    octave = np.log2(np.linspace(1 / 64, 1, len(spectrum))) / 6 + 1  # 0 to 1, from 125 Hz on
    waves = np.cos(np.pi * np.arange(1, WAVES + 1)[:, None] * octave)
    gains = 10 ** (rng.normal(0, TILT, WAVES) @ waves / 20)
    return np.asarray(np.fft.irfft(spectrum * gains, len(clip)), dtype=np.float32)


def over(clip: Samples, other: Samples, softer: float, rng: np.random.Generator) -> Samples:
    """With another clip under it, repeated or cut to its length and `softer` dB below it."""
    start = rng.integers(max(len(other) - len(clip), 0) + 1)
    under = np.resize(other[start:], len(clip))
    gain = np.sqrt(np.mean(clip**2) / max(float(np.mean(under**2)), 1e-12)) * 10 ** (-softer / 20)
    return np.asarray(clip + gain * under, dtype=np.float32)
