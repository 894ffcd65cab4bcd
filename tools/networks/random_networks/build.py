"""Put stages together: a first layer, a few stages, some of them around a residual connection, a head."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn

from networks.random_networks.addressed import ADDRESSED
from networks.random_networks.branches import BRANCHES
from networks.random_networks.choices import CHOICES
from networks.random_networks.layers import LAYERS, TIME
from networks.random_networks.movements import MOVEMENTS
from networks.random_networks.stage import Family, Stage, wide
from networks.randomise import noise, randomise, tokens

SELECTING = CHOICES | ADDRESSED
FAMILIES: dict[str, Family] = LAYERS | MOVEMENTS | SELECTING | BRANCHES
LARGEST = 16  # channels anywhere


class RandomNetwork(nn.Module):
    """`names` are the families of the stages, in order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = Random(seed)
        self.vocabulary = rng.choice([0, 0, 0, 5])
        c = wide(rng, rng.choice([1, 2, 3]))
        first = nn.Embedding(5, c) if self.vocabulary else nn.Linear(3, c)
        self.first = first
        self.names: list[str] = []
        self.keeps: list[bool] = []
        stages: list[nn.Module] = []
        for _ in range(rng.randint(2, 6)):
            name, stage, keeps = self._stage(rng, c)
            self.keeps.append(keeps)
            self.names.append(name)
            stages.append(stage)
            c = stage.channels
        self.stages = nn.ModuleList(stages)
        self.last = nn.Linear(c, 2)
        self.pooled = rng.random() < 0.5

    def _stage(self, rng: Random, c: int) -> tuple[str, Stage, bool]:
        table = rng.choice([LAYERS, MOVEMENTS, LAYERS, MOVEMENTS, SELECTING, BRANCHES])
        while True:
            name = rng.choice(list(table))
            stage = table[name](rng, c) if c > 1 else LAYERS["linear"](rng, c)
            if 1 <= stage.channels <= LARGEST:
                return name, stage, stage.channels == c and rng.random() < 0.3

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for stage, keeps in zip(self.stages, self.keeps, strict=True):
            x = x + stage(x) if keeps else stage(x)
        return self.last(torch.tanh(x).mean(1) if self.pooled else torch.tanh(x))


def random_network(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network of this seed, in eval mode with random weights, and its inputs (batch of 2)."""
    torch.manual_seed(seed)
    module = randomise(RandomNetwork(seed), seed)
    x = tokens(2, TIME, vocabulary=5) if module.vocabulary else noise(2, TIME, 3)
    return module, (x,)
