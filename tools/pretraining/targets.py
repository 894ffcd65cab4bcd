"""What is predicted: the k-means cluster of every frame, of its MFCCs or of an earlier encoder's features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d
from transformers import AutoModel, HubertConfig, HubertModel
from transformers.utils import logging

from permgraph.errors import UsageError, nearest
from permgraph.inputs.synthetic import RATE, Samples
from pretraining.corpus import normalised
from pretraining.pitch import constant_q, salience

WINDOW, MELS, CEPSTRA = 400, 40, 13  # samples; bands; coefficients kept, with first and second differences
TEXTURE = 25  # frames, an odd number
FITTED = 40_000  # frames that k-means sees
ROUNDS = 30
BLOCK = 500  # frames that an earlier encoder is given at a time


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted of the frames of all clips, one after the other: clusters, (frames, targets) int64, and vectors, (frames, width) each."""

    clusters: Tensor
    vectors: tuple[Tensor, ...]

    @property
    def widths(self) -> list[int]:
        return [values.shape[1] for values in self.vectors]

    @property
    def chance(self) -> float:
        """Share of the largest cluster, the mean over the targets."""
        return float(
            np.mean([float(torch.bincount(column).max()) / len(column) for column in self.clusters.T])
        )


def wanted_of(
    targets: Sequence[str],
    vectors: Sequence[str],
    count: int,
    seed: int,
    clips: Sequence[Samples],
    config: HubertConfig,
    device: torch.device,
) -> Wanted:
    """See `Settings` of train.py. Raises UsageError for what is neither of SIGNALS nor FOLDER:LAYER."""
    for name in vectors:
        if name not in SIGNALS:
            raise UsageError(f"vectors: {name}.{nearest(name, SIGNALS)} There are: {', '.join(SIGNALS)}.")
    labels = [
        clusters(_points(name, clips, config, device), count, seed + 1000 * k)
        for k, name in enumerate(targets or ("mfcc",))
    ]
    return Wanted(torch.stack(labels, dim=1), tuple(signal(name, clips, config) for name in vectors))


def _points(name: str, clips: Sequence[Samples], config: HubertConfig, device: torch.device) -> Tensor:
    """What is clustered, (frames of all clips, width)."""
    if name in SIGNALS:
        return signal(name, clips, config)
    folder, colon, layer = name.rpartition(":")
    if not colon or not layer.isdecimal():
        raise UsageError(
            f"targets: {name}.{nearest(name, SIGNALS)} There are: {', '.join(SIGNALS)}; or FOLDER:LAYER."
        )
    return features(Path(folder), int(layer), clips, device)


def signal(name: str, clips: Sequence[Samples], config: HubertConfig) -> Tensor:
    """What SIGNALS names, of the frames of all clips, one clip after the other: (frames, width), standardised."""
    of_clip, apart = SIGNALS[name]
    points = torch.cat([of_clip(clip, config) for clip in clips])
    points = points - points.mean(0)
    return points / (points.std(0) + 1e-5 if apart else points.std())


def stride(config: HubertConfig) -> int:
    """Samples from one frame to the next."""
    return int(np.prod(config.conv_stride))


def receptive_field(config: HubertConfig) -> int:
    """Samples that one frame sees."""
    field, step = 1, 1
    for kernel, hop in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, step = field + (kernel - 1) * step, step * hop
    return field


def frames_of(samples: int, config: HubertConfig) -> int:
    """How many frames the encoder gives of so many samples."""
    return 1 + (samples - receptive_field(config)) // stride(config)


def logmel(audio: Samples, config: HubertConfig) -> Tensor:
    """Logarithm of mel energies of each frame of the encoder, (frames, MELS)."""
    hop, field = stride(config), receptive_field(config)
    start = (field - WINDOW) // 2
    padded = np.pad(audio, (max(-start, 0), WINDOW))[max(start, 0) :]
    windows = torch.from_numpy(padded).unfold(0, WINDOW, hop)[: frames_of(len(audio), config)]
    power = torch.fft.rfft(windows * torch.hann_window(WINDOW), 512).abs() ** 2
    return torch.log(power @ torch.from_numpy(_mel_bands()) + 1e-5)


def mfcc(audio: Samples, config: HubertConfig) -> Tensor:
    """MFCCs and their first and second differences, (frames, 39)."""
    first = logmel(audio, config) @ torch.from_numpy(_cosines())
    once = torch.gradient(first, dim=0)[0]
    return torch.cat([first, once, torch.gradient(once, dim=0)[0]], dim=1)


def texture(audio: Samples, config: HubertConfig) -> Tensor:
    """Mean and standard deviation of log-mel energies over the half second about each frame, (frames, 2 · MELS)."""
    bands = logmel(audio, config).T[None]

    def mean(values: Tensor) -> Tensor:
        return avg_pool1d(values, TEXTURE, 1, TEXTURE // 2, count_include_pad=False)

    middle = mean(bands)
    spread = (mean(bands.square()) - middle.square()).clamp(min=0).sqrt()
    return torch.cat([middle, spread], dim=1)[0].T


def cqt(audio: Samples, config: HubertConfig) -> Tensor:
    """See pitch.constant_q, (frames, pitch.BINS)."""
    return constant_q(audio, frames_of(len(audio), config), stride(config), receptive_field(config))


def harmonics(audio: Samples, config: HubertConfig) -> Tensor:
    """See pitch.salience, (frames, pitch.BINS)."""
    return salience(cqt(audio, config))


# of one clip, (samples,); whether each number is brought to unit variance by itself, or all of them together
SIGNALS: dict[str, tuple[Callable[[Samples, HubertConfig], Tensor], bool]] = {
    "mfcc": (mfcc, True),
    "logmel": (logmel, False),
    "texture": (texture, False),
    "cqt": (cqt, False),
    "harmonics": (harmonics, False),
}


def features(folder: Path, layer: int, clips: Sequence[Samples], device: torch.device) -> Tensor:
    """Hidden states of one layer of an earlier encoder on every clip by itself, (frames of all clips, hidden)."""
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(folder).float().eval().to(device)
    with torch.no_grad():
        return torch.cat([torch.cat(list(_layer(model, layer, clip, device))) for clip in clips])


def _layer(model: HubertModel, layer: int, clip: Samples, device: torch.device) -> Iterator[Tensor]:
    """In pieces of at most BLOCK frames."""
    hop, field = stride(model.config), receptive_field(model.config)
    frames = frames_of(len(clip), model.config)
    for start in range(0, frames, BLOCK):
        count = min(BLOCK, frames - start)
        piece = normalised(clip[start * hop : (start + count - 1) * hop + field])
        found = model(torch.from_numpy(piece)[None].to(device), output_hidden_states=True)
        yield found.hidden_states[layer][0].cpu()


def clusters(points: Tensor, count: int, seed: int) -> Tensor:
    """The cluster of each point by Lloyd's k-means from a random start, (points,) of int64 below `count`."""
    rng = np.random.default_rng([seed, 2])
    sample = points[torch.from_numpy(np.sort(rng.permutation(len(points))[:FITTED]))]
    centres = _spread_out(sample, count, rng)
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        sizes = torch.bincount(nearest, minlength=count)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
    return _nearest(points, centres)


def _spread_out(points: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """The start of k-means++: each centre a point, more likely the farther from those before it."""
    chosen = [int(rng.integers(len(points)))]
    far = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        weights = np.cumsum(far.double().numpy())
        chosen.append(min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(points) - 1))
        far = torch.minimum(far, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen].clone()


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    lengths = centres.square().sum(1)
    return torch.cat([(lengths - 2 * some @ centres.T).argmin(1) for some in torch.split(points, 50_000)])


def _mel_bands() -> np.ndarray:
    """Triangles on the mel scale, (257, MELS) float32."""
    edges = np.linspace(_mel(np.array(60.0)), _mel(np.array(RATE / 2)), MELS + 2)
    hertz = _mel(np.linspace(0, RATE / 2, 257))[:, None]
    up = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.asarray(np.clip(np.minimum(up, down), 0, None), dtype=np.float32)


def _mel(hertz: np.ndarray) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + hertz / 700))


def _cosines() -> np.ndarray:
    """The discrete cosine transform from bands to cepstra, (MELS, CEPSTRA) float32."""
    band, order = np.arange(MELS)[:, None] + 0.5, np.arange(CEPSTRA)
    return np.asarray(np.cos(np.pi * order * band / MELS) * np.sqrt(2 / MELS), dtype=np.float32)
