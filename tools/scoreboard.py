"""permgraph beside other tools on torchvision's families: order of the group, soundness, time.

    python tools/scoreboard.py [NETWORK …] [--output docs/scoreboard.md]

Needs torchvision and torch-pruning (`pip install --no-deps torchvision torch-pruning`, a torchvision that fits torch).
Both tools see the same network in the same process, weights randomised. Every group of Torch-Pruning is moved by itself
at random, and so is the whole group of permgraph, in float64, by code that neither of them shares; a group that changes
the outputs by more than 1e-6 of the largest is unsound and counts for nothing. Orders of NVIDIA Apex and group counts
of the PLeaS compiler are quoted (specs/peers/apex.toml, specs/known/counts.toml). Seconds are of the clock: other work on the
machine falls on both. Behind: a smaller order than another's, rounded as printed.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from networks.randomise import randomise
from oracles.law import law
from oracles.numbers import OnNumbers
from peers.pruning_groups import changes, pruning_groups
from torch import Tensor, nn
from zoo_models.vision import torchvision_model

import permgraph as pg
from permgraph.data_files import read_toml

SPECS = Path(__file__).resolve().parents[1] / "specs"
FAMILIES = [
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "convnext_tiny",
    "densenet121",
    "googlenet",
    "inception_v3",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "vit_b_32",
    "swin_t",
]
LIMIT = 1e-6  # of the change of a sound group; float64 leaves 1e-14 or so, EfficientNetV2 1e-9
PUT_BACK = 16  # tensors that are put back one by one, to see that the check can fail
PATIENCE = 150  # seconds for Torch-Pruning
HEAD = """| network | permgraph: groups | log10 order | change | seconds | Torch-Pruning: groups | sound | log10 order of the sound | seconds | Apex: log10 order | PLeaS: groups |
|---|---|---|---|---|---|---|---|---|---|---|"""
T = TypeVar("T")


@dataclass(frozen=True)
class Peer:
    """What Torch-Pruning found, or why it found nothing."""

    groups: int = 0
    sound: int = 0
    log10_order: float = 0.0
    seconds: float = 0.0
    error: str = ""

    @property
    def cells(self) -> str:
        if self.error:
            return f"{self.error} | | | "
        return f"{self.groups} | {self.sound} | {self.log10_order:,.0f} | {self.seconds:.1f}"


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = perf_counter()
    return work(), perf_counter() - start


def ask_torch_pruning(module: nn.Module, inputs: tuple[Tensor, ...]) -> Peer:
    """Its groups; the layers that make the outputs are left alone, as our outputs are."""
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)][-1:]
    convolution = [m for n, m in module.named_modules() if n == "classifier.1" and isinstance(m, nn.Conv2d)]
    last: list[nn.Module] = [*linear, *convolution]
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE)
    try:
        groups, seconds = timed(lambda: list(pruning_groups(module, inputs[0], last)))
    except Exception as error:  # whatever it raises is its result
        return Peer(error=type(error).__name__ if not isinstance(error, TimeoutError) else str(error))
    finally:
        signal.alarm(0)
    numbers = OnNumbers(module, inputs)
    found = changes(groups, numbers.state, numbers.change)
    sound = [size for (size, _), change in zip(groups, found, strict=True) if change < LIMIT]
    return Peer(len(groups), len(sound), sum(math.lgamma(n + 1) for n in sound) / math.log(10), seconds)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"> {PATIENCE} s")


def row(name: str, apex: dict[str, list[int]], pleas: dict[str, int]) -> tuple[str, bool]:
    """A line of the table, and whether permgraph is sound and moves no less than the others."""
    module, inputs, _ = torchvision_model(name)
    randomise(module)
    spec, seconds = timed(lambda: pg.infer(pg.trace(module, inputs)))
    change, put_back = law(module, inputs, spec, most=PUT_BACK)
    peer = ask_torch_pruning(module, inputs)
    quoted = apex.get(name)
    line = f"| {name} | {len(spec.groups)} | {spec.log10_order:,.0f} | {change:.0e} | {seconds:.1f} | {peer.cells}"
    line += f" | {f'{quoted[1]:,}' if quoted else ''} | {pleas.get(name, '')} |"
    others = max(peer.log10_order, quoted[1] if quoted else 0)
    return line, change < LIMIT < put_back and round(spec.log10_order) >= round(others)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=FAMILIES)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    apex = read_toml(SPECS / "peers" / "apex.toml")["order"]
    pleas = {k: v for k, v in read_toml(SPECS / "known" / "counts.toml")["both"].items() if k != "source"}
    print(HEAD, flush=True)
    lines, behind = [], []
    for name in arguments.networks:
        line, ahead = row(name, apex, pleas)
        print(line, flush=True)
        lines.append(line)
        behind += [] if ahead else [name]
    verdict = f"Behind another tool or unsound: {', '.join(behind) or 'none'} of {len(lines)}."
    print(verdict)
    if arguments.output:
        text = f"# Scoreboard\n\n{__doc__}\n{HEAD}\n" + "\n".join(lines) + f"\n\n{verdict}\n"
        arguments.output.write_text(text, encoding="utf-8")
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
