"""Speed and exactness of the moments beside the floor: numpy's float64 corrcoef of both models, stacked.

Run: python tools/bench_moments.py [--channels 768 3072] [--frames 8000]
Everything is measured in one run on the same data; the ratio is what may be compared between machines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from permgraph.ir.moments import FloatArray, Layout
from permgraph.matching.accumulation import MomentsBuilder


def moments(a: torch.Tensor, b: torch.Tensor, batch: int) -> FloatArray:
    """Correlation as permgraph computes it, in batches as calibration gives them."""
    builder = MomentsBuilder({"x": Layout(("x",), (a.shape[1],))})
    for one_a, one_b in zip(torch.split(a, batch), torch.split(b, batch), strict=True):
        builder.update("x", one_a, one_b)
    return builder.build()["x"].correlation()


def floor(a: torch.Tensor, b: torch.Tensor, batch: int) -> FloatArray:
    """The plain way: all frames of both models stacked, one 2C × 2C correlation in float64."""
    stacked = np.concatenate([a.numpy(), b.numpy()], axis=1).astype(np.float64)
    units = a.shape[1]
    return np.asarray(np.corrcoef(stacked, rowvar=False))[:units, units:]


def timed(function: Callable[..., FloatArray], *arguments: Any, repeats: int = 3) -> tuple[float, FloatArray]:
    """The shortest of some runs, seconds, and the result."""
    best, result = float("inf"), np.zeros(0)
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[512, 768, 3072])
    parser.add_argument("--frames", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=2000, help="frames per batch")
    parser.add_argument("--offset", type=float, default=0.0, help="mean over standard deviation")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {options.frames} frames in batches of {options.batch}")
    print(f"{'channels':>8} {'moments s':>10} {'corrcoef s':>10} {'ratio':>6} {'largest error':>14}")
    for channels in options.channels:
        torch.manual_seed(0)
        a = torch.randn(options.frames, channels) + options.offset
        b = 0.5 * a + torch.randn(options.frames, channels)
        ours, found = timed(moments, a, b, options.batch)
        theirs, want = timed(floor, a, b, options.batch)
        error = float(np.abs(found - want).max())
        print(f"{channels:>8} {ours:>10.3f} {theirs:>10.3f} {theirs / ours:>5.1f}x {error:>14.1e}")


if __name__ == "__main__":
    main()
