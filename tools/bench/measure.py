"""Costs of several ways to do one job, measured in turn, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from oracles.memory import peak

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU (user and system, of all threads and children), of the clock; peak of memory in MiB, 0 if unknown."""

    cpu: float
    wall: float
    peak: float = 0.0


@dataclass(frozen=True)
class Row:
    """One job: what was measured, beside which floor or peer.

    ratio    CPU time over that of `beside`, the median of the rounds; `low` and `high` are the least and the largest
    wall     the same of the clock
    target   what the ratio should be at most, 0 where none is set
    checked  what of the result was checked, in words
    """

    job: str
    beside: str
    ratio: float
    low: float
    high: float
    wall: float
    cpu: float
    peak: float
    target: float = 0.0
    checked: str = ""


def in_turn(
    jobs: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[Cost]], dict[str, Any]]:
    """Every job once a round, in this process, and what each returned last. A first round is not counted."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    made: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            made[name] = job()
            spent = Cost(time.process_time() - cpu, time.perf_counter() - wall)
            if number:
                costs[name].append(spent)
    return costs, made


def commands_in_turn(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    before: Callable[[], None] = lambda: None,
    paths: Mapping[str, Sequence[Path]] | None = None,
    threads: int = 1,
) -> dict[str, list[Cost]]:
    """Every command once a round, each in a process of its own. A first round, which fills caches, is not counted.

    before  called before every command
    paths   command → folders that are put before all others in which Python looks for packages
    """
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            before()
            spent = run(command, (paths or {}).get(name, ()), threads)
            if number:
                costs[name].append(spent)
    return costs


# A process begins with the peak of the one that starts it (Linux keeps it over exec), so that a small one must start it.
_LAUNCHER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def run(command: Sequence[str], paths: Sequence[Path] = (), threads: int = 1) -> Cost:
    """One command to its end, with bytecode as an installed package has it. Raises RuntimeError when it fails."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found = os.pathsep.join(str(path) for path in (*paths, ROOT))
    environment = {**kept, "PYTHONPATH": found, "OMP_NUM_THREADS": str(threads)}
    environment.setdefault("PYTHONPYCACHEPREFIX", f"/tmp/permgraph-bench-{os.getuid()}")
    wall = time.perf_counter()
    launched = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, capture_output=True, text=True, errors="replace", env=environment)
    wall = time.perf_counter() - wall
    code, cpu, peak = json.loads(done.stdout) if done.stdout else (done.returncode, 0.0, 0.0)
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{done.stderr[-2000:]}")
    return Cost(cpu, wall, peak)


def row(
    job: str,
    costs: Mapping[str, list[Cost]],
    of: str,
    beside: str,
    *,
    target: float = 0.0,
    checked: str = "",
    less: Cost | None = None,
) -> Row:
    """The cost of one way over that of another, round by round. `less` is what both are told without."""
    free = less or Cost(0.0, 0.0)
    ratios = [
        (mine.cpu - free.cpu) / max(theirs.cpu - free.cpu, 1e-9)
        for mine, theirs in zip(costs[of], costs[beside], strict=True)
    ]
    walls = [
        mine.wall / max(theirs.wall, 1e-9) for mine, theirs in zip(costs[of], costs[beside], strict=True)
    ]
    return Row(
        job,
        beside,
        median(ratios),
        min(ratios),
        max(ratios),
        median(walls),
        median(c.cpu for c in costs[of]),
        max(c.peak for c in costs[of]),
        target,
        checked,
    )


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def own_peak() -> float:
    """The peak of this process so far, MiB."""
    return peak() / 2**20
