"""Weight matching: seconds of CPU of one thread, on a network as wide as those that its peers were timed on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

import permgraph as pg
from bench.measure import Row, own_peak

TARGET = 15.0  # seconds; PLeaS takes 50, rebasin 110 (as they report)


def measured(quick: bool = False) -> Iterator[Row]:
    """Two ResNet-50 of random weights, all groups. With `quick` a block of each stage."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.set_num_threads(1)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(
            ResNetForImageClassification(ResNetConfig(**({"depths": [1] * 4} if quick else {}))).eval()
        )
    plan = pg.plan(pg.infer(pg.trace(models[0], {"pixel_values": torch.randn(1, 3, 64, 64)})))
    states = [model.state_dict() for model in models]
    began, wall = time.process_time(), time.perf_counter()
    report = pg.match(plan, (states[0], states[1]), "weights").report["weights"]
    cpu, wall = time.process_time() - began, time.perf_counter() - wall
    gained = [value / report["objective"] for value in report["history"]]
    told = f"{report['starts']} starts; {100 * gained[1]:.1f} % of the objective after the first of {len(gained) - 1} passes"
    name = "match by weights, a fifth of ResNet-50" if quick else "match by weights, ResNet-50, 26 M"
    yield Row(name, "seconds of CPU", cpu, cpu, cpu, wall, cpu, own_peak(), TARGET, told)
