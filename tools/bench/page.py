"""The page of benchmarks, docs/benchmarks.md, from what was measured, docs/benchmarks.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.measure import ROOT, Row

DATA, PAGE = ROOT / "docs" / "benchmarks.json", ROOT / "docs" / "benchmarks.md"
TITLES = {
    "calibration": "Calibration",
    "assignment": "Assignment",
    "matching": "Weight matching",
    "weights": "Apply and merge",
    "graphs": "Trace, infer, plan, verify",
    "start-up": "Start-up",
}
SAID = {
    "calibration": "One thread, but where two are named. The floor is both forwards of every batch and, for every probe, one product of float32 matrices of "
    "the size of its activations; `calibrate` also exports, reads states, centres, and sums in float64. Its peak is that of a process which does nothing else.",
    "assignment": "`pg.assign` beside the solvers of scipy and of the packages lapx and lap, on the same scores. Every objective is "
    "compared with the peer's. Small tables are solved many times a round.",
    "matching": "One thread, both starts, until a pass gains less than 0.03 %. The time is that of the products of weights, made anew in "
    "every pass for the groups whose neighbours moved.",
    "weights": "Whole commands, start-up included, with all checks: what is read is compared with the fingerprints of the matching, "
    "every value is tested to be finite, what is written has a checksum. The floor reads the same files in blocks of 4 MB, writes one, and syncs it.",
    "graphs": "On the meta device, in seconds of CPU after the imports; `load` is of the plan's file. Verify moves all groups of a network with random weights, "
    "in float64 and on the CPU; its memory is counted from when the weights are there, and up to 1 GiB of them may be kept in float64. Exponents: 1 is linear.",
    "start-up": "Seconds of CPU of a whole command on files of the small encoders that come with the package; the last column but one "
    "is without the interpreter's own.",
}


def save(section: str, rows: Sequence[Row], data: Path = DATA) -> None:
    """Keep the rows of a section; those of the others stay."""
    held = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    held[section] = {"machine": _machine(), "rows": [asdict(row) for row in rows]}
    data.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(data: Path = DATA, page: Path = PAGE) -> None:
    """The page of all sections that were measured."""
    held: dict[str, Any] = json.loads(data.read_text(encoding="utf-8"))
    lines = [
        "# Benchmarks",
        "",
        "Made by `python tools/bench`; a section of its own by `python tools/bench assignment`, the page alone by `python tools/bench page`.",
        "",
        "What is compared is measured in turn, round by round, in one run: what else the machine does then falls on both. A ratio is of",
        "CPU time (all threads and children), the median of the rounds with the least and the largest in brackets: below 1 is",
        "less than what it stands beside. The ratio of the clock is there for the record: other work on a shared machine changes it much.",
        "The peak is of the whole process.",
    ]
    for section in (name for name in TITLES if name in held):
        lines += [
            "",
            f"## {TITLES[section]}",
            "",
            SAID[section],
            "",
            f"Measured on {held[section]['machine']}.",
            "",
        ]
        lines += _table([Row(**row) for row in held[section]["rows"]])
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(rows: Sequence[Row]) -> list[str]:
    head = ("job", "beside", "ratio of CPU", "target", "ratio of the clock", "CPU", "peak", "checked")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        target = (
            "" if not row.target else f"≤ {row.target:.3g}{'' if row.ratio <= row.target else ' (missed)'}"
        )
        peak = f"{row.peak:,.0f} MiB" if row.peak else ""
        wall = f"{row.wall:.2f}" if row.wall else ""
        cells = (
            row.job,
            row.beside,
            f"**{row.ratio:.3g}** ({row.low:.3g} to {row.high:.3g})",
            target,
            wall,
            f"{row.cpu:.3g} s",
            peak,
            row.checked,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _machine() -> str:
    """What it ran on, without its name."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"{os.cpu_count()} cores ({model}), {platform.system()}, Python {platform.python_version()}; load {load:.1f}"
