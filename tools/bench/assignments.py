"""Assignment: `pg.assign` beside scipy's solver and others, on scores of many kinds; every objective is checked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import permgraph as pg
from bench.measure import Cost, Row, in_turn, row
from permgraph.ir.moments import FloatArray

SIZES = (64, 256, 512, 1024, 2048, 3072)
ROUNDS = 3
STEP = 1e-3  # of the deviation of a score: how far the next one is, in the rows of warm starts
NEEDED = ("noisy permutation", "low rank", "trained-like")  # what a target is set for
Solver = Callable[[FloatArray], Any]


def measured(peers: Mapping[str, Path], quick: bool = False) -> Iterator[Row]:
    """One row for each kind of score, size and peer.

    peers   name of a package whose `lapjv` is measured → the folder that it was installed in, "" for this environment
    """
    from scipy.optimize import linear_sum_assignment

    solvers: dict[str, Solver] = {"scipy": lambda s: linear_sum_assignment(s, maximize=True)[1]}
    solvers |= {name: _lapjv(name, folder) for name, folder in peers.items()}
    for kind, n, score in problems(SIZES[:3] if quick else SIZES):
        times = 1 if n >= 1024 else max(1, 200 // n)
        ours = _repeated(pg.assign, score, times)
        jobs = {"permgraph": ours} | {name: _repeated(f, score, times) for name, f in solvers.items()}
        costs, made = in_turn(jobs, ROUNDS)
        costs = {k: [Cost(c.cpu / times, c.wall / times) for c in v] for k, v in costs.items()}
        for name in solvers:
            checked = _compared(score, made["permgraph"], made[name])
            target = _target(kind, n) if name == "scipy" else 0.0
            yield row(f"{kind}, n = {n}", costs, "permgraph", name, target=target, checked=checked)
    yield from warm_starts(SIZES[2] if quick else SIZES[-1])


def warm_starts(n: int) -> Iterator[Row]:
    """One score after another, each a little apart from the last: from what the last left, beside scipy's solver."""
    from scipy.optimize import linear_sum_assignment

    for kind in NEEDED:
        rng = np.random.default_rng(n)
        scores = [KINDS[kind](rng, n)]
        for _ in range(ROUNDS):  # the first is solved in the round that is not counted
            scores.append(scores[-1] + STEP * scores[0].std() * rng.standard_normal((n, n)))
        jobs: dict[str, Callable[[], Any]] = {
            "permgraph": partial(_next, partial(pg.assign, warm=pg.WarmStart()), iter(scores)),
            "scipy": partial(_next, lambda s: linear_sum_assignment(s, maximize=True)[1], iter(scores)),
        }
        costs, made = in_turn(jobs, ROUNDS)
        checked = _compared(scores[-1], made["permgraph"], made["scipy"])
        yield row(
            f"{kind}, n = {n}, after a similar one",
            costs,
            "permgraph",
            "scipy",
            target=1 / 15 if n >= 3072 else 0.0,
            checked=checked,
        )


def _next(solver: Solver, scores: Iterator[FloatArray]) -> Any:
    return solver(next(scores))


def problems(sizes: tuple[int, ...]) -> Iterator[tuple[str, int, FloatArray]]:
    """(kind, units, score)."""
    for n in sizes:
        rng = np.random.default_rng(n)
        for kind, make in KINDS.items():
            yield kind, n, make(rng, n)
    yield from trained()


def _noisy(rng: np.random.Generator, n: int) -> FloatArray:
    """A permutation that is there to be found, under noise as strong as it."""
    return np.asarray(np.eye(n)[rng.permutation(n)] + 0.3 * rng.standard_normal((n, n)))


def _low_rank(rng: np.random.Generator, n: int) -> FloatArray:
    return np.asarray(rng.standard_normal((n, 16)) @ rng.standard_normal((16, n)) / 4)


def _trained_like(rng: np.random.Generator, n: int) -> FloatArray:
    """Correlations of two layers that read the same features, a part of what they read in common, through a nonlinearity."""
    features = rng.standard_normal((2048, 256)) @ np.diag(np.linspace(2, 0.2, 256))
    read = rng.standard_normal((256, n)) / 16
    other = (0.3 * read + 0.95 * rng.standard_normal((256, n)) / 16)[:, rng.permutation(n)]
    return _correlated(np.tanh(features @ read), np.tanh(features @ other))


def _sparse(rng: np.random.Generator, n: int) -> FloatArray:
    """Correlations of mixtures of few sources each: some units have one clear partner, some none at all."""
    sources = rng.standard_normal((2048, n // 4))
    a, b = (
        sources @ (rng.standard_normal((n // 4, n)) * (rng.random((n // 4, n)) < 8 / n)) for _ in range(2)
    )
    return _correlated(*(x + 0.5 * rng.standard_normal(x.shape) for x in (a, b)))


def _correlated(a: FloatArray, b: FloatArray) -> FloatArray:
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    return np.asarray(a.T @ b / len(a))


KINDS: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "uniform": lambda rng, n: rng.random((n, n)),
    "noisy permutation": _noisy,
    "low rank": _low_rank,
    "trained-like": _trained_like,
    "sparse sources": _sparse,
    "integers": lambda rng, n: rng.integers(0, 1000, (n, n)).astype(float),
    "half dead": lambda rng, n: np.where(np.arange(n)[:, None] % 2, rng.standard_normal((n, n)), 0.0),
}


def trained() -> Iterator[tuple[str, int, FloatArray]]:
    """Correlations of filters of networks that were trained apart (../shared/data); none where that is absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "weights"
    if not folder.is_dir():
        return
    from safetensors.numpy import load_file

    for one, other in (("music_musicnn_mtt", "music_musicnn_msd"), ("music_vgg_mtt", "music_vgg_msd")):
        a, b = (load_file(folder / f"{name}.safetensors") for name in (one, other))
        shapes = {k: x.shape for k, x in a.items() if x.ndim > 1 and x[0].size > 1}
        for key in sorted(shapes, key=lambda k: -shapes[k][0])[:3]:
            x, y = (np.asarray(s[key].reshape(len(s[key]), -1), dtype=np.float64) for s in (a, b))
            n = len(x)
            yield f"trained ({one.split('_')[1]} {key})", n, np.asarray(np.corrcoef(x, y)[:n, n:])


def _target(kind: str, n: int) -> float:
    """CPU time over scipy's, at most."""
    return 1 / 8 if n >= 3072 and kind in NEEDED else 1 / 0.8


def _repeated(solver: Solver, score: FloatArray, times: int) -> Callable[[], Any]:
    def run() -> Any:
        for _ in range(times - 1):
            solver(score)
        return solver(score)

    return run


def _compared(score: FloatArray, ours: Any, theirs: Any) -> str:
    """Whether both reach the same sum. Raises RuntimeError where they do not."""
    rows = np.arange(len(score))
    one, other = float(score[rows, ours].sum()), float(score[rows, theirs].sum())
    if sorted(ours) != rows.tolist() or one < other - 1e-9 * max(1.0, abs(other)):
        raise RuntimeError(f"an assignment of {one} where {other} can be had")
    return "same assignment" if np.array_equal(ours, theirs) else "same sum, ties differ"


def _lapjv(name: str, folder: Path) -> Solver:
    """`lapjv` of a package called `lap` that lies in a folder: two distributions have that name."""
    alias = f"peer_{name}"
    spec = importlib.util.spec_from_file_location(
        alias, folder / "lap" / "__init__.py", submodule_search_locations=[str(folder / "lap")]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return lambda score: module.lapjv(-score)[1]
