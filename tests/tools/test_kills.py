"""Kills: a small run of tools/kills.py, and writers that it must find wanting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = "import sys; import kills; from permgraph import atomic_write, ir; {change}; sys.exit(kills.main())"
NOTHING_BETWEEN = "atomic_write._swap = lambda partial, out: (out.unlink(missing_ok=True), __import__('os').rename(partial, out))"
NOT_SWEPT = "atomic_write._sweep = lambda out: None"


def kills(change: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLS.format(change=change), *options],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"},
    )


@pytest.mark.slow
def test_a_killed_command_leaves_the_old_or_the_new() -> None:
    done = kills("pass", "--count", "4", "--verb", "plan")
    assert done.returncode == 0 and "4 kills; every output was the old one or the new one" in done.stdout, (
        done
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "fault"),
    [(NOTHING_BETWEEN, "FAULT: absent output"), (NOT_SWEPT, "are left")],
    ids=["swap", "sweep"],
)
def test_a_writer_that_loses_or_leaves_something_is_found(change: str, fault: str) -> None:
    done = kills(change, "--count", "60", "--verb", "plan")
    assert done.returncode != 0 and fault in done.stderr, done
