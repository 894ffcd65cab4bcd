"""How long tracing, inference and planning take, and how much memory, for networks of 94 M to 70 B parameters.

    python tools/bench_infer.py [MODEL …] [--against CHECKOUT]

All on the meta device: no weights. Each measurement has a process of its own, which takes the best of three, or of one
where it takes longer than five seconds. Seconds depend on the machine and on what else it does; the ratio of inference
to tracing, measured in one run, much less so. With --against, another checkout of permgraph is measured in turn with this
one, three times each; the last row says how much of the other's time and memory this one takes (medians).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import large_models

TOOLS = Path(__file__).parent
MODELS = ("hubert_base", "hubert_xlarge", "whisper_large", "llama_70b")
COLUMNS = ("trace", "infer", "plan", "memory")
HEAD = f"{'model':<16}{'checkout':<10}{'parameters':>12}{'trace':>9}{'infer':>9}{'plan':>9}{'infer/trace':>13}{'memory':>10}"
T = TypeVar("T")


def best(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of a few runs, and what the last one made."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 5:
        start = perf_counter()
        made = work()
        times.append(perf_counter() - start)
    return min(times), made


def measure(model: str) -> dict[str, float]:
    """Seconds and GB of one network, by the public verbs alone, which every checkout has."""
    import permgraph as pg

    module, args = getattr(large_models, model)()
    tracing, trace = best(lambda: pg.trace(module, args))
    inferring, spec = best(lambda: pg.infer(trace))
    planning, _ = best(lambda: pg.plan(spec))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = sum(p.numel() for p in module.parameters())
    return {"size": size, "trace": tracing, "infer": inferring, "plan": planning, "memory": memory}


def measured(model: str, checkout: Path) -> dict[str, float]:
    """The same in a process of its own, with the permgraph of a checkout."""
    command = [sys.executable, __file__, "--measure", model]
    paths = os.pathsep.join([str(checkout), str(TOOLS)])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE, text=True
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def shown(model: str, name: str, row: dict[str, float]) -> str:
    seconds = "".join(f"{row[c]:>8.2f}s" for c in COLUMNS[:3])
    ratio = row["infer"] / row["trace"]
    return (
        f"{model:<16}{name:<10}{row['size'] / 1e6:>10,.0f} M{seconds}{ratio:>13.3f}{row['memory']:>7.2f} GB"
    )


def compare(model: str, other: Path) -> None:
    """Both checkouts in turn, three times; then this one's share of the other."""
    ours, theirs = [], []
    for _ in range(3):
        theirs.append(measured(model, other))
        print(shown(model, "other", theirs[-1]), flush=True)
        ours.append(measured(model, TOOLS.parent))
        print(shown(model, "this", ours[-1]), flush=True)
    share = {c: median(r[c] for r in ours) / median(r[c] for r in theirs) for c in COLUMNS}
    print(f"{model:<16}this / other: " + ", ".join(f"{c} {v:.2f}" for c, v in share.items()), flush=True)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the folder of another checkout")
    parser.add_argument("--measure", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"{', '.join(sorted(unknown))}: no such network. There are {', '.join(MODELS)}.")
    if options.against and not (options.against / "permgraph").is_dir():
        parser.error(f"{options.against}: no checkout of permgraph.")
    if options.measure:
        print(json.dumps(measure(options.measure)), flush=True)
        return
    print(HEAD, flush=True)
    for model in options.models or MODELS:
        if options.against:
            compare(model, options.against)
        else:
            print(shown(model, "this", measured(model, TOOLS.parent)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
