"""Measure what permgraph costs, and write docs/benchmarks.md.

    python tools/bench [SECTION …] [--peer NAME=FOLDER …] [--quick] [--huge]

SECTION is calibration, assignment, matching, weights, graphs or start-up (default: all), or page, which measures nothing. Peers that are
not in this environment are measured where they were installed by `pip install --target FOLDER --no-deps`: lapx, lap, mergekit,
torch_pruning.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# before numpy comes: threads that wait for each other spend CPU time
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import page
from bench.measure import Row


def sections(
    options: argparse.Namespace, peers: dict[str, Path], folder: Path
) -> dict[str, Callable[[], Iterator[Row]]]:
    def calibration() -> Iterator[Row]:
        from bench.calibration import measured

        clips, seconds = (4, 1.0) if options.quick else (options.clips, options.seconds)
        return measured(clips, seconds, options.rounds)

    def assignment() -> Iterator[Row]:
        from bench.assignments import measured

        return measured({name: peers[name] for name in ("lapx", "lap") if name in peers}, options.quick)

    def matching() -> Iterator[Row]:
        from bench.matching import measured

        return measured(options.quick)

    def weights() -> Iterator[Row]:
        from bench.weights import measured

        for architecture in ("hubert",) if options.quick else ("hubert", "hubert-large"):
            yield from measured(folder / architecture, architecture, peers, options.rounds)

    def graphs() -> Iterator[Row]:
        from bench.graphs import HUGE, MODELS, measured

        models = MODELS[:2] if options.quick else (*MODELS, *(HUGE if options.huge else ()))
        return measured(models, options.rounds, peers)

    def start_up() -> Iterator[Row]:
        from bench.start_up import measured

        return measured(folder / "files", options.rounds)

    return {
        "calibration": calibration,
        "assignment": assignment,
        "matching": matching,
        "weights": weights,
        "graphs": graphs,
        "start-up": start_up,
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--rounds", type=int, default=3, help="that count, after one that does not (default: 3)"
    )
    parser.add_argument("--clips", type=int, default=32, help="of the calibration")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each clip")
    parser.add_argument("--quick", action="store_true", help="small sizes only, and the page stays as it is")
    parser.add_argument("--huge", action="store_true", help="Llama 70B too: minutes")
    parser.add_argument(
        "--folder", type=Path, help="where models may lie, gigabytes (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    peers = {name: Path(folder) for name, _, folder in (peer.partition("=") for peer in options.peer)}
    if unknown := set(peers) - {"lapx", "lap", "mergekit", "torch_pruning"}:
        parser.error(f"--peer {min(unknown)}: no such peer. There are lapx, lap, mergekit and torch_pruning.")
    with tempfile.TemporaryDirectory() as temporary:
        known = sections(options, peers, options.folder or Path(temporary))
        if wrong := set(options.sections) - {*known, "page"}:
            parser.error(f"{min(wrong)}: no such section. There are {', '.join(known)} and page.")
        for name in options.sections or known:
            rows = [] if name == "page" else list(_printed(known[name]()))
            if rows and not options.quick:
                page.save(name, rows)
    if not options.quick:
        page.write()


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(
            f"{row.job:<62} {row.ratio:>8.3g} × {row.beside:<34} ({row.low:.3g} to {row.high:.3g}) "
            f"{row.cpu:>9.3g} s {row.peak:>7,.0f} MiB {row.checked}",
            flush=True,
        )
        yield row


if __name__ == "__main__":
    main(sys.argv[1:])
