"""The music taggers of ../shared/data/weights (musicnn, Pons & Serra 2019), and the notes of an orchestra as they receive them."""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from networks.pretrained import DATA, state_of

FRAMES, MELS, TAGS, EPS = 187, 96, 50, 1e-3
SAMPLES = 256 * FRAMES


class Vgg(nn.Module):
    """Log-mel (n, 187, 96) to logits of tags (n, 50)."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(1, eps=EPS)
        self.convs = nn.ModuleList(nn.Conv2d(128 if i else 1, 128, 3, padding=1) for i in range(5))
        self.bns = nn.ModuleList(nn.BatchNorm2d(128, eps=EPS) for _ in range(5))
        self.pools = nn.ModuleList(
            [nn.MaxPool2d((4, 1), 2), *(nn.MaxPool2d(2, 2) for _ in range(3)), nn.MaxPool2d(4, 4)]
        )
        self.out = nn.Linear(256, TAGS)

    def features(self, x: Tensor) -> Tensor:
        """(n, 256)"""
        x = self.bn0(x[:, None])
        for conv, norm, pool in zip(self.convs, self.bns, self.pools, strict=True):
            x = pool(norm(F.relu(conv(x))))
        return x.permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.features(x))
        return logits


class Musicnn(nn.Module):
    """Log-mel (n, 187, 96) to logits of tags (n, 50).

    Its authors wrote the middle convolutions as kernels that span the width of an image whose width are the channels. That is a
    convolution over time, and written so here.
    """

    def __init__(self) -> None:
        super().__init__()
        kernels = ((204, 7, 38), (204, 7, 67), (51, 128, 1), (51, 64, 1), (51, 32, 1))
        self.bn0 = nn.BatchNorm2d(1, eps=EPS)
        self.front = nn.ModuleList(nn.Conv2d(1, n, (t, m)) for n, t, m in kernels)
        self.fbn = nn.ModuleList(nn.BatchNorm2d(n, eps=EPS) for n, _, _ in kernels)
        self.mid = nn.ModuleList(nn.Conv1d(width, 64, 7, padding=3) for width in (561, 64, 64))
        self.mbn = nn.ModuleList(nn.BatchNorm1d(64, eps=EPS) for _ in range(3))
        self.pbn = nn.BatchNorm1d(1506, eps=EPS)
        self.dense = nn.Linear(1506, 200)
        self.dbn = nn.BatchNorm1d(200, eps=EPS)
        self.out = nn.Linear(200, TAGS)

    def features(self, x: Tensor) -> Tensor:
        """(n, 200)"""
        x = self.bn0(x[:, None])
        parts = []
        for conv, norm in zip(self.front, self.fbn, strict=True):
            assert isinstance(conv, nn.Conv2d)
            taps = conv.kernel_size[0]
            same = F.pad(x, (0, 0, (taps - 1) // 2, taps // 2))
            parts.append(norm(F.relu(conv(same))).amax(3))
        stages = [torch.cat(parts, 1)]  # (n, channels, time)
        for i, (conv, norm) in enumerate(zip(self.mid, self.mbn, strict=True)):
            y = norm(F.relu(conv(stages[-1])))
            stages.append(y + stages[-1] if i else y)
        x = torch.cat(stages, 1)
        x = self.pbn(torch.cat([x.amax(2), x.mean(2)], 1))
        normed: Tensor = self.dbn(F.relu(self.dense(x)))
        return normed

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.features(x))
        return logits


def load(name: str) -> Vgg | Musicnn:
    """The tagger of one file: "music_vgg_mtt", "music_musicnn_msd", …"""
    model = (Vgg if "vgg" in name else Musicnn)().eval()
    model.load_state_dict({key: _as_written(key, t) for key, t in state_of(name).items()}, strict=True)
    return model


def _as_written(key: str, tensor: Tensor) -> Tensor:
    """(64, 1, taps, channels) to (64, channels, taps)."""
    return tensor[:, 0].transpose(1, 2) if key.startswith("mid.") and tensor.dim() == 4 else tensor


@cache
def _filters() -> Tensor:
    bank = mel_filter_bank(257, MELS, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float()


def log_mel(wave: Tensor) -> Tensor:
    """16 kHz (samples,) to (187, 96): what is shorter is repeated."""
    wave = wave.repeat(SAMPLES // len(wave) + 1)[:SAMPLES]
    spectrum = torch.stft(
        wave, 512, 256, window=torch.hann_window(512), pad_mode="constant", return_complex=True
    )
    return torch.log10(1 + 10_000 * (spectrum.abs().square().T[:FRAMES] @ _filters()))


def notes(split: str, per_instrument: int) -> tuple[Tensor, Tensor]:
    """Notes of the Philharmonia, evenly from a split: log-mel (n, 187, 96) and which of 12 instruments (n,)."""
    with (DATA / "phil" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    features, labels = [], []
    for label, instrument in enumerate(sorted({row["instrument"] for row in rows})):
        own = [row for row in rows if row["instrument"] == instrument]
        for i in np.linspace(0, len(own) - 1, min(per_instrument, len(own))).astype(int):
            wave = soundfile.read(DATA / "phil" / own[i]["path"], dtype="float32")[0]
            features.append(log_mel(torch.from_numpy(wave)))
            labels.append(label)
    return torch.stack(features), torch.tensor(labels)
