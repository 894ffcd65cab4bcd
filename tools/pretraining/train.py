"""The loop. Crops and masks are a function of the seed and the step, so a resumed run is the same run."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import HubertConfig

from permgraph.errors import FileError
from permgraph.inputs.synthetic import Samples
from permgraph.ir.files import write_bytes
from pretraining.corpus import RATE, Index, clips, draw, normalised
from pretraining.network import Predictor, small_config
from pretraining.targets import Wanted, frames_of, receptive_field, stride, wanted_of


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    synthetic, audio   what to train on, see corpus.stream
    targets            clusters to predict, of what SIGNALS of targets.py names or of "FOLDER:LAYER", an earlier encoder
                       and one of its layers; MFCCs when none is named
    vectors            of SIGNALS: to predict as they are, by least squares
    copies             of each clip, besides it: at other speeds, with other spectra, over others; see variants.py
    seed, init         of all that is drawn; of the first weights, when they are to be those of another run (-1: seed)
    seconds, batch     length and number of the crops of a step; of shorter clips, more crops that are shorter
    front              rate of the convolutions, times `rate`
    span, starts       masked frames in a row; probability that a span starts at a frame
    visible            weight of the loss on frames that are not masked, 1 - α in HuBERT, Eq. 4
    early              weight of the loss of the vectors predicted from the convolutions alone: they learn sooner
    ffn                units inside a feed-forward block; 0 for three times `hidden`
    convs              channels of each of seven convolutions, instead of five of `channels`
    """

    synthetic: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    copies: int = 0
    seed: int = 0
    init: int = -1
    steps: int = 1200
    batch: int = 8
    seconds: float = 2.0
    clusters: int = 100
    rate: float = 2e-3
    front: float = 1.0
    warmup: float = 0.08
    span: int = 5
    starts: float = 0.1
    visible: float = 0.5
    early: float = 0.0
    hidden: int = 128
    layers: int = 3
    channels: int = 64
    convs: tuple[int, ...] = ()
    ffn: int = 0

    @property
    def config(self) -> HubertConfig:
        return small_config(self.hidden, self.layers, self.channels, self.convs, self.ffn)


@dataclass(frozen=True)
class Corpus:
    """Clips, how many frames each has and how many those before it, and what is to be predicted of them."""

    clips: Sequence[Samples]
    lengths: Index
    before: Index
    wanted: Wanted
    config: HubertConfig

    @staticmethod
    def of(s: Settings, device: torch.device) -> Corpus:
        found = clips(s.synthetic, s.audio, s.seed, s.copies)
        lengths = np.array([frames_of(len(clip), s.config) for clip in found])
        wanted = wanted_of(s.targets, s.vectors, s.clusters, s.seed, found, s.config, device)
        return Corpus(found, lengths, np.cumsum(lengths) - lengths, wanted, s.config)

    @property
    def targets(self) -> int:
        return self.wanted.clusters.shape[1]

    def batch(
        self, rng: np.random.Generator, rows: int, seconds: float, device: torch.device
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Crops (rows, samples), their clusters (rows, frames, targets), their vectors (rows, frames, width) each."""
        hop, field = stride(self.config), receptive_field(self.config)
        chosen, starts, frames = draw(rng, self.lengths, rows, frames_of(round(seconds * RATE), self.config))
        samples = (frames - 1) * hop + field
        crops = [self.clips[k][at : at + samples] for k, at in zip(chosen, starts * hop, strict=True)]
        here = torch.from_numpy((self.before[chosen] + starts)[:, None] + np.arange(frames))
        vectors = [values[here].to(device) for values in self.wanted.vectors]
        audio = torch.from_numpy(normalised(np.stack(crops)))
        return audio.to(device), self.wanted.clusters[here].to(device), vectors


@dataclass(frozen=True)
class Progress:
    """Means since the last report, on masked frames: loss in nats and accuracy of the clusters, mean square error of the
    vectors (1 for their mean alone); `chance`: the largest cluster. Means over the targets, where there are several."""

    step: int
    loss: float
    accuracy: float
    chance: float
    error: float = 0.0


def train(
    settings: Settings,
    checkpoint: Path,
    report: Callable[[Progress], None],
    save_every: float = 60.0,
) -> tuple[Predictor, list[Progress]]:
    """Train to the end, from `checkpoint` on if it is there; the model and the course of the run.

    report       called about forty times; after some of these calls, `save_every` seconds apart, the
                 checkpoint is saved
    save_every   seconds
    Raises FileError when the checkpoint is of a run with other settings.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.use_deterministic_algorithms(True, warn_only=True)
    corpus = Corpus.of(settings, device)
    torch.manual_seed(settings.init if settings.init >= 0 else settings.seed)
    clusters = [settings.clusters] * corpus.targets
    model = Predictor(settings.config, clusters, corpus.wanted.widths)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(_rates(model, settings), betas=(0.9, 0.98), weight_decay=0.01)
    step, course = _resume(checkpoint, settings, model, optimizer, device)
    sums, saved = np.zeros(4), time.monotonic()
    report_every = max(settings.steps // 40, 1)
    while step < settings.steps:
        for group in optimizer.param_groups:
            group["lr"] = group["full"] * schedule((step + 1) / settings.steps, settings.warmup)
        sums += _step(settings, step, model, optimizer, corpus, device)
        step += 1
        if step % report_every == 0 or step == settings.steps:
            loss, right, error = (float(value / sums[3]) for value in sums[:3])
            course.append(Progress(step, loss, right, corpus.wanted.chance, error))
            report(course[-1])
            sums[:] = 0
            if time.monotonic() - saved > save_every:
                _save(checkpoint, settings, model, optimizer, step, course)
                saved = time.monotonic()
    _save(checkpoint, settings, model, optimizer, step, course)
    return model, course


def _rates(model: Predictor, settings: Settings) -> list[dict[str, Any]]:
    """Parameters with their full rates: of the convolutions with their projection, and of all others."""
    encoder = model.encoder
    front = [*encoder.feature_extractor.parameters(), *encoder.feature_projection.parameters()]
    rest = [p for p in model.parameters() if all(p is not other for other in front)]
    rates = settings.rate * settings.front, settings.rate
    return [
        {"params": part, "lr": rate, "full": rate} for part, rate in zip((front, rest), rates, strict=True)
    ]


def schedule(progress: float, warmup: float) -> float:
    """Share of the full rate: a linear rise over `warmup`, then half a cosine down to nothing."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def spans(rng: np.random.Generator, shape: tuple[int, int], start: float, span: int) -> np.ndarray:
    """Which frames are masked: spans that start anywhere with probability `start`; at least one a row."""
    begins = rng.random(shape) < start
    begins[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = True
    mask: np.ndarray = begins.copy()
    for shift in range(1, min(span, shape[1])):
        mask[:, shift:] |= begins[:, :-shift]
    return mask


def _step(
    settings: Settings,
    step: int,
    model: Predictor,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    device: torch.device,
) -> tuple[float, float, float, float]:
    """One update. Sums over masked frames of the loss, of the share of right predictions and of the error of the
    vectors; the number of masked frames."""
    rng = np.random.default_rng([settings.seed, 3, step])
    audio, labels, vectors = corpus.batch(rng, settings.batch, settings.seconds, device)
    mask = torch.from_numpy(
        spans(rng, (labels.shape[0], labels.shape[1]), settings.starts, settings.span)
    ).to(device)
    found = model(audio, mask)

    def losses(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy and mean square error, means over the targets."""
        entropy = [
            functional.cross_entropy(x[chosen], labels[..., k][chosen]) for k, x in enumerate(found.logits)
        ]
        square = [
            functional.mse_loss(x[chosen], v[chosen]) for x, v in zip(found.vectors, vectors, strict=True)
        ]
        nothing = torch.zeros((), device=device)
        return sum(entropy, nothing) / len(entropy), sum(square, nothing) / max(len(square), 1)

    hidden, visible = losses(mask), losses(~mask)
    loss = (1 - settings.visible) * (hidden[0] + hidden[1]) + settings.visible * (visible[0] + visible[1])
    for early, values in zip(found.early, vectors, strict=True):
        loss = loss + settings.early * functional.mse_loss(early, values) / len(vectors)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    count = int(mask.sum())
    right = [int((x[mask].argmax(-1) == labels[..., k][mask]).sum()) for k, x in enumerate(found.logits)]
    return (
        float(hidden[0].detach()) * count,
        sum(right) / len(right),
        float(hidden[1].detach()) * count,
        count,
    )


def _save(
    path: Path,
    settings: Settings,
    model: Predictor,
    optimizer: torch.optim.Optimizer,
    step: int,
    course: list[Progress],
) -> None:
    """A checkpoint, whole or not at all."""
    buffer = io.BytesIO()
    told = json.dumps({"settings": asdict(settings), "step": step, "course": [asdict(p) for p in course]})
    torch.save({"told": told, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    write_bytes(buffer.getvalue(), path)


def _resume(
    path: Path, settings: Settings, model: Predictor, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, list[Progress]]:
    if not path.exists():
        return 0, []
    found = torch.load(path, map_location=device, weights_only=True)
    told: dict[str, Any] = json.loads(found["told"])
    now = json.loads(json.dumps(asdict(settings)))
    if told["settings"] != now:
        other = [key for key, value in now.items() if told["settings"].get(key) != value]
        raise FileError(
            f"{path}: a run with other settings ({', '.join(other)}). Remove it to start afresh, or repeat "
            "the command it was started with."
        )
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    return int(told["step"]), [Progress(**row) for row in told["course"]]
