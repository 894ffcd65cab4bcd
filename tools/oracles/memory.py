"""The peak of memory of this process, and of no other.

`getrusage` tells more: on Linux a process begins with the peak of the one that starts it, which exec keeps. A test that
compares two of its numbers in a child of a large process finds no difference, whatever the child uses.
"""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """From now on the peak is counted from what is in use. Nothing on systems that cannot forget it."""
    if FORGET.exists():
        FORGET.write_text("5")


def peak() -> int:
    """Bytes."""
    if STATUS.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def with_tools() -> dict[str, str]:
    """The environment of a child that imports this file."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
