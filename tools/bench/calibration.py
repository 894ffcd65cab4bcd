"""Calibration: `pg.calibrate` beside the forwards and products that it cannot do without, and moments beside the peers' ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import permgraph as pg
from bench.measure import TOOLS, Cost, Row, in_turn, python, row, run
from permgraph.ir.moments import FloatArray, Layout
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.probes import choose_probes, layout_of

ROUNDS = 3
CHANNELS, FRAMES, BATCH = (512, 768, 3072), 8000, 2000
MEMORY = 2.8 * 1024  # MiB


def measured(clips: int, seconds: float, rounds: int = ROUNDS) -> Iterator[Row]:
    """Rows of HuBERT-base with random weights on noise, and of moments alone."""
    plan, a, b = models()
    batches = noise(clips, seconds)
    name = f"calibrate cnn,heads,ffn2 of HuBERT-base, {4 * len(batches)} clips of {seconds:g} s"
    jobs = {"calibrate": lambda: pg.calibrate(plan, a, b, batches), "floor": _floor(plan, a, b, batches)}
    torch.set_num_threads(1)
    costs, _ = in_turn(jobs, rounds)
    found = row(name, costs, "calibrate", "floor", target=1.15)
    yield Row(**{**vars(found), "beside": "forwards of A then B, then products", "peak": 0.0})
    torch.set_num_threads(2)
    costs, _ = in_turn(jobs, rounds)
    yield _of_the_clock(f"{name}, two threads", costs)
    torch.set_num_threads(1)
    yield _of_memory(name, clips, seconds)
    yield from moments(rounds)


def noise(clips: int, seconds: float) -> list[torch.Tensor]:
    """Batches of four clips at 16 kHz."""
    return [torch.randn(4, round(16_000 * seconds)) for _ in range(math.ceil(clips / 4))]


def _of_the_clock(name: str, costs: dict[str, list[Cost]]) -> Row:
    """A and B side by side, one thread each, beside one after the other with both threads."""
    ratios = [a.wall / b.wall for a, b in zip(costs["calibrate"], costs["floor"], strict=True)]
    cpu = median(c.cpu for c in costs["calibrate"])
    beside = "the same with two threads, by the clock"
    low, high = min(ratios), max(ratios)
    return Row(name, beside, median(ratios), low, high, median(ratios), cpu, 0.0, target=1.0)


def _of_memory(name: str, clips: int, seconds: float) -> Row:
    """The peak of a process that does nothing else: both models, and all batches."""
    code = f"""
import torch
import permgraph as pg
from bench.calibration import models, noise
torch.set_num_threads(1)
pg.calibrate(*models(), noise({clips}, {seconds}))
"""
    cost = run(python(code), [TOOLS])
    share = cost.peak / MEMORY
    return Row(name, "2.8 GiB of memory", share, share, share, share, cost.cpu, cost.peak, target=1.0)


def models() -> tuple[pg.Plan, nn.Module, nn.Module]:
    from transformers import HubertConfig, HubertModel

    both = []
    for seed in range(2):
        torch.manual_seed(seed)
        both.append(HubertModel(HubertConfig()).eval())
    plan = pg.plan(pg.infer(pg.trace("hubert")), "cnn,heads,ffn2")
    return plan, both[0], both[1]


def _floor(plan: pg.Plan, a: nn.Module, b: nn.Module, batches: list[torch.Tensor]) -> Callable[[], None]:
    """Both forwards of every batch, and for every probe one product of float32 matrices of the size of its activations."""
    counted = pg.calibrate(plan, a, b, batches[:1])
    shapes = []
    for key, probe in choose_probes(plan).items():
        units = layout_of(plan.spec, probe).units
        shapes.append((math.prod(probe.positions.shape) // units, counted[key].n, units))
    held = {shape: (torch.randn(shape), torch.randn(shape)) for shape in set(shapes)}

    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                a(batch)
                b(batch)
                for shape in shapes:
                    x, y = held[shape]
                    torch.bmm(x.transpose(1, 2), y)

    return run


def moments(
    rounds: int = ROUNDS, channels: tuple[int, ...] = CHANNELS, frames: int = FRAMES
) -> Iterator[Row]:
    """One probe on the same activations: its moments beside both ways of the peers, every correlation compared."""
    torch.set_num_threads(1)
    for units in channels:
        torch.manual_seed(0)
        a = torch.randn(frames, units)
        b = 0.5 * a + torch.randn(frames, units)
        jobs = {
            "moments": lambda a=a, b=b: of_permgraph(a, b),
            "stored": lambda a=a, b=b: of_stored(a, b),
            "stacked": lambda a=a, b=b: of_stacked(a, b),
        }
        costs, made = in_turn(jobs, rounds)
        for peer, words in (
            ("stored", "activations kept, numpy.corrcoef"),
            ("stacked", "2C × 2C moments in float64"),
        ):
            error = float(np.abs(made["moments"] - made[peer]).max())
            found = row(
                f"moments, {units} channels, {frames:,} frames",
                costs,
                "moments",
                peer,
                checked=f"largest difference {error:.0e}",
            )
            yield Row(**{**vars(found), "beside": words})


def of_permgraph(a: torch.Tensor, b: torch.Tensor) -> FloatArray:
    """Correlation as permgraph computes it, in batches as calibration gives them."""
    builder = MomentsBuilder({"x": Layout(("x",), (a.shape[1],))})
    for one_a, one_b in zip(torch.split(a, BATCH), torch.split(b, BATCH), strict=True):
        builder.update("x", one_a, one_b)
    return builder.build()["x"].correlation()


def of_stored(a: torch.Tensor, b: torch.Tensor) -> FloatArray:
    """All frames of both models kept and stacked, one 2C × 2C correlation in float64."""
    stacked = np.concatenate([a.numpy(), b.numpy()], axis=1).astype(np.float64)
    units = a.shape[1]
    return np.asarray(np.corrcoef(stacked, rowvar=False))[:units, units:]


def of_stacked(a: torch.Tensor, b: torch.Tensor) -> FloatArray:
    """Sums and 2C × 2C products of both models stacked, batch by batch in float64."""
    units = a.shape[1]
    total, product, count = (
        torch.zeros(2 * units, dtype=torch.float64),
        torch.zeros(2 * units, 2 * units, dtype=torch.float64),
        0,
    )
    for batch in torch.split(torch.cat([a, b], 1), BATCH):
        wide = batch.double()
        total += wide.sum(0)
        product += wide.T @ wide
        count += len(wide)
    covariance = product / count - torch.outer(total, total) / count**2
    scale = covariance.diagonal().rsqrt()
    found: Any = (covariance * scale[:, None] * scale)[:units, units:]
    return np.asarray(found.numpy())
