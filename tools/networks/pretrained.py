"""The small pretrained networks of ../shared/data/weights, as modules whose tensor names match the files.

The README beside the weights describes them and gives the accuracies they were measured to have.
"""

from __future__ import annotations

import csv
import importlib.util
import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"

needs_data = pytest.mark.skipif(
    not (DATA / "weights").is_dir(), reason="the pretrained weights (../shared/data) are not here"
)

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
RES8_SEEDS = ("release_seed0", "seed403959", "seed441002", "seed794773")


class MnistCnn(nn.Module):
    """Images (n, 1, 28, 28) to logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


class CifarBlock(nn.Module):
    """Two convolutions; with `shortcut`, plus the input, its channels zero-padded when the width doubles."""

    def __init__(self, width_in: int, width: int, shortcut: bool) -> None:
        super().__init__()
        self.widens = width != width_in
        self.shortcut = shortcut
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=2 if self.widens else 1, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if not self.shortcut:
            return F.relu(y)
        if self.widens:
            quarter = y.shape[1] // 4
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, quarter, quarter))
        return F.relu(y + x)


class CifarNet(nn.Module):
    """CIFAR-10 at depth 20: images (n, 3, 32, 32) to logits (n, 10); `shortcut=False` is the plain net."""

    def __init__(self, shortcut: bool = True) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn0 = nn.BatchNorm2d(16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.convs = nn.ModuleList(CifarBlock(a, b, shortcut) for a, b in pairwise(widths))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv0(x)))
        for block in self.convs:
            x = block(x)
        return self.fc(x.mean((2, 3)))


class Res8(nn.Module):
    """Log-mel (n, 1, time, 40) to logits (n, 4): hey, fire, fox, anything else."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, 45, 3, padding=1, bias=False)
        for i in range(1, 7):
            self.add_module(f"conv{i}", nn.Conv2d(45, 45, 3, padding=1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(45, affine=False))
        self.output = nn.Linear(45, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = state = F.avg_pool2d(F.relu(self.conv0(x)), (3, 4))
        for i in range(1, 7):
            x = F.relu(self.get_submodule(f"conv{i}")(x))
            if i % 2 == 0:
                x = state = x + state
            x = self.get_submodule(f"bn{i}")(x)
        return self.output(x.mean((2, 3)))


class Onsets(nn.Module):
    """Features (clips, frames, 266), 100 frames a second, to the probability of an onset (clips, frames)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(266, 25, num_layers=3, bidirectional=True, batch_first=True)
        self.out = nn.Linear(50, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.rnn(x)[0]))[..., 0]


def weights(name: str) -> Path:
    """The file of one network: "mnist_cnn_a", "cifar_resnet20", "res8_firefox_seed403959", …"""
    return DATA / "weights" / f"{name}.safetensors"


def state_of(name: str) -> dict[str, Tensor]:
    """The tensors of one file, by name."""
    with safe_open(weights(name), "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def build(name: str) -> nn.Module:
    """The architecture a file is for, without its weights, in eval mode."""
    if name.startswith("mnist"):
        return MnistCnn().eval()
    if name.startswith("res8_firefox"):
        return Res8().eval()
    if name.startswith("onsets"):
        return Onsets().eval()
    return CifarNet(shortcut="plainnet" not in name).eval()


def load(name: str) -> nn.Module:
    """The network of one file, every tensor loaded and none left over."""
    model = build(name)
    model.load_state_dict(state_of(name), strict=True)
    return model


def example(name: str) -> tuple[Tensor, ...]:
    """Inputs of the right shape to trace `build(name)` with."""
    shapes = {
        "mnist": (1, 1, 28, 28),
        "cifar": (1, 3, 32, 32),
        "res8": (1, 1, 81, 40),
        "onsets": (1, 50, 266),
    }
    return (torch.randn(shapes[name.split("_")[0]], generator=torch.Generator().manual_seed(0)),)


def _images(file: str, count: int | None) -> tuple[np.ndarray, Tensor]:
    with np.load(DATA / "images" / file) as data:
        images, labels = data["images"], data["labels"]
    # Every k-th, because the files may be ordered by class.
    pick = np.linspace(0, len(labels) - 1, count or len(labels)).astype(int)
    return images[pick], torch.from_numpy(labels[pick].astype(np.int64))


@cache
def mnist(count: int | None = None) -> tuple[Tensor, Tensor]:
    """Normalised images (n, 1, 28, 28) and their labels (n,)."""
    images, labels = _images("mnist_t10k_part.npz", count)
    return ((torch.from_numpy(images).float() / 255 - 0.1307) / 0.3081).reshape(-1, 1, 28, 28), labels


@cache
def cifar(count: int | None = None) -> tuple[Tensor, Tensor]:
    """Normalised images (n, 3, 32, 32) and their labels (n,)."""
    images, labels = _images("cifar10_test_jpeg_part.npz", count)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (CIFAR_MEAN, CIFAR_STD))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std, labels


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor], batch: int = 500) -> float:
    """Share of right predictions of `model` on (inputs, labels)."""
    inputs, labels = data
    with torch.no_grad():
        right = [
            (model(x).argmax(1) == y).sum().item()
            for x, y in zip(inputs.split(batch), labels.split(batch), strict=True)
        ]
    return sum(right) / len(labels)


def average(a: dict[str, Tensor], b: dict[str, Tensor], share: float = 0.5) -> dict[str, Tensor]:
    """(1 - share)·a + share·b, tensor by tensor; counters are a's."""
    return {k: torch.lerp(v, b[k], share) if v.is_floating_point() else v for k, v in a.items()}


@cache
def mel_filters(mels: int = 40, fft: int = 512, rate: int = 16_000) -> Tensor:
    """Triangular filters (fft // 2 + 1, mels), equally spaced on the HTK mel scale, not normalised."""
    frequencies = torch.linspace(0, rate / 2, fft // 2 + 1)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2) / 2595) - 1)
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(audio: Tensor, name: str) -> Tensor:
    """16 kHz audio (n, samples) to the normalised input (n, 1, time, 40) of the res8 file `name`."""
    with safe_open(weights(name), "pt") as file:
        scalars = file.metadata()
    mean = float(scalars["zmuv_mean"])
    std = math.sqrt(float(scalars["zmuv_mean2"]) - mean**2)
    spectrum = torch.stft(audio, 512, hop_length=200, window=torch.hann_window(512), return_complex=True)
    power = spectrum.abs().square().transpose(-1, -2) @ mel_filters()
    return (((power + 1e-7).log() - mean) / std)[:, None]


@cache
def keyword_clips(count: int) -> tuple[Tensor, ...]:
    """Audio of `count` keyword clips of the training split, each (1, samples) at 16 kHz."""
    with open(DATA / "kws" / "manifest.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    pick = np.linspace(0, len(rows) - 1, count).astype(int)
    paths = [DATA / "kws" / rows[i]["path"] for i in pick]
    return tuple(torch.from_numpy(soundfile.read(p, dtype="float32")[0])[None] for p in paths)


def onset_features(split: str, count: int) -> list[Tensor]:
    """Clips of four seconds of real music, evenly from a split ("train" or "test"), as the onset detectors see them.

    Each (1, frames, 266).
    """
    import soxr

    path = DATA / "weights" / "onset_features.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with (DATA / "misc_music" / "manifest.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == split and r["kind"].startswith("music")]
    rows = [row for row in rows if float(row["seconds"]) >= 4]
    found = []
    for i in np.linspace(0, len(rows) - 1, count).astype(int):
        row = rows[i]
        wave, rate = soundfile.read(DATA / "misc_music" / row["path"], always_2d=True)
        features = module.features(soxr.resample(wave.mean(1), rate, module.RATE))
        found.append(torch.from_numpy(features)[None])
    return found
