"""Every case of the list has a test: its number stands in a comment above it."""

from __future__ import annotations

import re
from pathlib import Path

CASES = range(1, 83)
_NUMBERS = re.compile(r"^# (\d+(?:, \d+)*)\b.*\n(?:#.*\n)*(?:@.*\n|[ )\]}].*\n)*def test_(\w+)", re.M)


def listed() -> dict[int, list[str]]:
    """Case → names of its tests."""
    found: dict[int, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_faults_*.py")):
        for numbers, name in _NUMBERS.findall(path.read_text(encoding="utf-8")):
            for number in numbers.split(", "):
                found.setdefault(int(number), []).append(name)
    return found


def test_every_case_has_a_test_with_a_name_of_its_own() -> None:
    found = listed()
    assert sorted(found) == list(CASES)
    names = [name for same in found.values() for name in set(same)]
    assert all(len(name.split("_")) >= 3 for name in names)
