"""Synthetic audio, for the demo and for pre-training its encoders: speech-like and music-like, never stored.

Speech: a formant synthesiser (pulses and noise through resonators, after Klatt, 1980) that utters random
syllables. Music: plucked strings (Karplus and Strong, 1983), pads, a bowed melody and drums on a random chord
progression. Everything is a function of the kind, the length and the seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from permgraph.errors import UsageError, nearest

RATE = 16_000  # Hz
KINDS = ("speech", "music")
LOUDNESS = 0.08  # root mean square of every passage
FLOOR = 2e-4  # background noise: digital silence has no features

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

# First three formants of ten American English vowels, Hz (Peterson and Barney, 1952, men).
VOWELS = np.array(
    [
        (270, 2290, 3010),
        (390, 1990, 2550),
        (530, 1840, 2480),
        (660, 1720, 2410),
        (730, 1090, 2440),
        (570, 840, 2410),
        (440, 1020, 2240),
        (300, 870, 2240),
        (640, 1190, 2390),
        (490, 1350, 1690),
    ],
    dtype=np.float64,
)
FRICATIVES = ((6000.0, 0.5), (3200.0, 0.6), (4600.0, 0.2), (1500.0, 0.2))  # centre in Hz, strength: s sh f h
BURSTS = (900.0, 2000.0, 4000.0)  # p k t
SONORANTS = np.array([(270, 1300, 2300), (270, 1000, 2200), (310, 610, 2200), (310, 2200, 2900)])  # n m w j
STEP = RATE // 100  # samples per frame of the speech controls
SILENCE = (0.0, 0.0, 500.0, 1500.0, 2500.0, 3000.0)  # voice, hiss, formants 1-3, centre of the hiss


def synthesise(kind: str, seconds: float, seed: int) -> Samples:
    """Audio of `kind` "speech" or "music" at 16 kHz, mono, (round(seconds · 16000),), within ±1.

    Raises UsageError for another kind.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r}: synthetic audio is one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    rng = np.random.default_rng([KINDS.index(kind), seed])
    passage = _utterance if kind == "speech" else _piece
    parts: list[Floats] = []
    missing = length = round(seconds * RATE)
    while missing > 0:
        part = passage(rng)
        part *= LOUDNESS / (np.sqrt(np.mean(part**2)) + 1e-9)
        parts.append(part + FLOOR * rng.standard_normal(len(part)))
        missing -= len(part)
    audio = np.concatenate(parts)[:length] if parts else np.zeros(0)
    return np.clip(audio, -0.99, 0.99).astype(np.float32)


# --- speech


def _utterance(rng: np.random.Generator) -> Floats:
    """One speaker, five to twelve syllables, 1-3 seconds."""
    pitch = float(np.exp(rng.uniform(np.log(85), np.log(260))))
    tract = 1.0 + 0.25 * np.clip((pitch - 85) / 175, 0, 1) + rng.normal(0, 0.03)
    frames: list[tuple[float, ...]] = [SILENCE] * int(rng.integers(3, 12))
    for _ in range(int(rng.integers(5, 13))):
        frames += _syllable(rng, tract)
    controls = np.array(frames + [SILENCE] * int(rng.integers(5, 25)))
    window = np.hanning(7)[1:-1] / np.hanning(7).sum()
    smooth = np.stack([np.convolve(np.pad(c, 2, "edge"), window, "valid") for c in controls.T], axis=1)
    melody = (
        pitch * np.exp(np.cumsum(rng.normal(0, 0.012, len(smooth)))) * np.linspace(1.1, 0.85, len(smooth))
    )
    return _voice(rng, smooth, np.clip(melody, 60, 400))


def _syllable(rng: np.random.Generator, tract: float) -> list[tuple[float, ...]]:
    """Frames of controls: a consonant or none, a vowel, sometimes a closing consonant."""
    vowel = VOWELS[rng.integers(len(VOWELS))] * tract * rng.normal(1, 0.03, 3)
    core = [(1.0, 0.02, *vowel, 3000.0)] * int(rng.integers(7, 20))
    frames = _consonant(rng, vowel, tract) + core
    return frames + (_consonant(rng, vowel, tract) if rng.random() < 0.3 else [])


def _consonant(rng: np.random.Generator, vowel: Floats, tract: float) -> list[tuple[float, ...]]:
    manner = rng.integers(4)
    if manner == 0:
        centre, strength = FRICATIVES[rng.integers(len(FRICATIVES))]
        voiced = 0.3 * float(rng.random() < 0.4)
        return [(voiced, strength, *vowel, centre * rng.normal(1, 0.05))] * int(rng.integers(6, 14))
    if manner == 1:
        centre = BURSTS[rng.integers(len(BURSTS))] * rng.normal(1, 0.05)
        closed = [(0.0, 0.0, *vowel, centre)] * int(rng.integers(3, 8))
        return [*closed, *[(0.0, 1.5, *vowel, centre)] * 2]
    if manner == 2:
        formants = SONORANTS[rng.integers(len(SONORANTS))] * tract
        return [(0.4, 0.0, *formants, 3000.0)] * int(rng.integers(4, 9))
    return []


def _voice(rng: np.random.Generator, controls: Floats, pitch: Floats) -> Floats:
    """Controls, (frames, 6), and pitch in Hz, (frames,) → samples, (frames · STEP,)."""
    from scipy.signal import lfilter

    length = len(controls) * STEP
    at, frame = np.arange(length), np.arange(len(controls)) * STEP
    phase = np.cumsum(np.interp(at, frame, pitch)) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    tilt = np.exp(-2 * np.pi * 300 / RATE)
    source = lfilter([1, -1], [1, -2 * tilt, tilt**2], pulses)  # 6 dB per octave down, as it leaves the lips
    voice = _formants(np.asarray(source), controls[:, 2:5], (80, 110, 160))
    hiss = _formants(rng.standard_normal(length), controls[:, 5:6], (900,))
    voice /= np.sqrt(np.mean(voice**2)) + 1e-9
    hiss /= np.sqrt(np.mean(hiss**2)) + 1e-9
    levels = [np.interp(at, frame, controls[:, k]) for k in (0, 1)]
    return np.asarray(levels[0] * voice + levels[1] * hiss)


def _formants(signal: Floats, centres: Floats, widths: tuple[int, ...]) -> Floats:
    """Resonators in a row; their centres, (frames, len(widths)) in Hz, change every STEP samples."""
    from scipy.signal import lfilter

    for k, width in enumerate(widths):
        radius = np.exp(-np.pi * width / RATE)
        middle = -2 * radius * np.cos(2 * np.pi * np.minimum(centres[:, k], 7500) / RATE)
        state, parts = np.zeros(2), []
        for t, m in enumerate(middle):
            gain = 1 + m + radius**2
            part, state = lfilter([gain], [1, m, radius**2], signal[t * STEP : (t + 1) * STEP], zi=state)
            parts.append(part)
        signal = np.concatenate(parts)
    return signal


# --- music


def _piece(rng: np.random.Generator) -> Floats:
    """Four bars of four beats: chords, melody and drums, each played or not."""
    beat = int(RATE * 60 / rng.uniform(80, 150))
    key = 110 * 2 ** (rng.integers(12) / 12)
    third = (3, 4)[rng.integers(2)]
    scale = np.array((0, 2, third, 5, 7, third + 5, 11))
    audio = np.zeros(16 * beat + RATE)
    play = rng.random(4) < (0.75, 0.5, 0.5, 0.55)  # plucked, pad, melody, drums
    play[0] |= not play.any()
    for bar in range(4):
        degree = int(rng.choice((0, 3, 4, 5, 1)))
        chord = [float(key * 2 ** (_pitch(scale, degree + k) / 12)) for k in (0, 2, 4)]
        start = bar * 4 * beat
        if play[0]:
            _arpeggio(audio, start, beat, chord, rng)
        if play[1]:
            for frequency in chord:
                _add(audio, start, 0.15 * _pad(frequency * 2, 4 * beat, rng))
        if play[2]:
            _melody(audio, start, beat, key, scale, degree, rng)
        if play[3]:
            _drums(audio, start, beat, rng)
    return audio[: 16 * beat]


def _pitch(scale: NDArray[np.int64], degree: int) -> int:
    return int(scale[degree % 7]) + 12 * (degree // 7)


def _add(audio: Floats, start: int, note: Floats) -> None:
    note = note[: max(len(audio) - start, 0)]
    audio[start : start + len(note)] += note


def _arpeggio(audio: Floats, start: int, beat: int, chord: list[float], rng: np.random.Generator) -> None:
    strum = rng.random() < 0.4
    for step in range(8):
        at = start + step * beat // 2
        if strum and step % 2 == 0:
            for k, frequency in enumerate(chord):
                _add(audio, at + k * 200, 0.5 * _pluck(frequency, beat, rng))
        elif not strum:
            octave = 2.0 ** rng.integers(0, 3)
            _add(audio, at, 0.7 * _pluck(chord[rng.integers(3)] * octave, beat, rng))


def _melody(
    audio: Floats,
    start: int,
    beat: int,
    key: float,
    scale: NDArray[np.int64],
    degree: int,
    rng: np.random.Generator,
) -> None:
    step = degree + 7
    for k in range(4):
        if rng.random() < 0.8:
            _add(audio, start + k * beat, 0.35 * _bowed(key * 2 ** (_pitch(scale, step) / 12), beat, rng))
        step = int(np.clip(step + rng.integers(-2, 3), 5, 20))


def _pluck(frequency: float, length: int, rng: np.random.Generator) -> Floats:
    """A string: a burst of noise in a delay line that loses its high frequencies (Karplus and Strong, 1983)."""
    from scipy.signal import lfilter

    period = max(round(RATE / frequency - 0.5), 2)
    burst = np.zeros(length)
    burst[:period] = rng.uniform(-1, 1, len(burst[:period]))
    loop = np.zeros(period + 2)
    loop[0], loop[period], loop[period + 1] = 1, -0.498, -0.498
    return np.asarray(lfilter([1.0], loop, burst)) * np.linspace(1, 0, length) ** 0.3


def _pad(frequency: float, length: int, rng: np.random.Generator) -> Floats:
    """A slow chord tone: a few harmonics, slightly out of tune."""
    t = np.arange(length) / RATE
    tone = np.zeros(length)
    for harmonic in range(1, 7):
        detuned = frequency * harmonic * rng.normal(1, 0.001)
        if detuned < RATE / 2:
            tone += np.sin(2 * np.pi * detuned * t + rng.uniform(0, 6.28)) / harmonic**1.3
    return np.asarray(tone * np.minimum(np.minimum(t / 0.2, 1), (t[-1] - t) / 0.1).clip(0, 1))


def _bowed(frequency: float, length: int, rng: np.random.Generator) -> Floats:
    """A saw-like tone with vibrato, its harmonics limited to the band."""
    t = np.arange(length) / RATE
    phase = 2 * np.pi * frequency * t + rng.uniform(1, 4) * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * t)
    harmonics = range(1, max(int(min(RATE / 2 / frequency, 20)), 2))
    tone = np.sum([np.sin(h * phase) / h for h in harmonics], axis=0)
    return np.asarray(tone * np.minimum(t / 0.04, 1) * np.minimum((t[-1] - t) / 0.05, 1).clip(0, 1))


def _drums(audio: Floats, start: int, beat: int, rng: np.random.Generator) -> None:
    t = np.arange(RATE // 4) / RATE
    sweep = 50 + 120 * np.exp(-t * 40)
    kick = np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * np.exp(-t * 14)
    for k in range(8):
        at, noise = start + k * beat // 2, rng.standard_normal(len(t))
        _add(audio, at, 0.25 * np.diff(noise, prepend=0.0) * np.exp(-t * 70))  # hi-hat
        if k in (0, 4) or rng.random() < 0.1:
            _add(audio, at, 1.2 * kick)
        if k in (2, 6):
            _add(audio, at, 0.5 * (noise + np.sin(2 * np.pi * 190 * t)) * np.exp(-t * 22))  # snare
