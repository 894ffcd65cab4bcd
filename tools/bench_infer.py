"""How long tracing, inference and planning take, and how much memory, for networks of 94 M to 70 B parameters.

    python tools/bench_infer.py [MODEL …]

All on the meta device: no weights. Each network has a process of its own. Seconds depend on the machine and on
what else it does; the ratio of inference to tracing, measured in one run, much less so. Each is the best of three,
of one where it takes longer than five seconds; tracing warms torch up first.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from permgraph.frontend.capture import capture
from permgraph.frontend.sources import load_source
from permgraph.planning.compile import compile_plan
from permgraph.symmetry.infer import infer

LARGE = f"{Path(__file__).parent / 'large_models.py'}:llama_70b"
MODELS = ("hubert", "hubert-xlarge", "whisper-large-v3", LARGE)
HEAD = f"{'model':<18}{'parameters':>11}{'nodes':>7}{'points':>11}{'trace':>9}{'infer':>9}{'plan':>9}{'infer/trace':>13}{'memory':>9}"
T = TypeVar("T")


def best(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of a few runs, and what the last one made."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 5:
        start = perf_counter()
        made = work()
        times.append(perf_counter() - start)
    return min(times), made


def row(model: str) -> str:
    source = load_source(model)
    count = sum(p.numel() for p in source.module.parameters())
    tracing, trace = best(lambda: capture(source.module, source.args, source.kwargs, source.name))
    inferring, spec = best(lambda: infer(trace))
    planning, _ = best(lambda: compile_plan(spec, "all"))
    points = sum(sum(shape) for shape in spec.tensors.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{model.rpartition(':')[2]:<18}{count / 1e6:>9,.0f} M{len(trace.nodes):>7}{points:>11,}{tracing:>8.2f}s"
        f"{inferring:>8.2f}s{planning:>8.2f}s{inferring / tracing:>13.3f}{memory:>6.1f} GB"
    )


def main(models: tuple[str, ...]) -> None:
    if models[:1] == ("--row",):
        print(row(models[1]), flush=True)
        return
    print(HEAD, flush=True)
    for model in models or MODELS:
        subprocess.run([sys.executable, __file__, "--row", model], check=True)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
