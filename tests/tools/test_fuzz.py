"""Fuzzing: a small run of tools/fuzz.py, and parsers that it must find wanting."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzz import FAULTS, NAMES, fuzz, main, run
from fuzz_targets import Target

EACH = 2_000 // len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_read(name: str) -> None:
    counts: Counter[str] = Counter()
    faults = run(name, range(EACH), 0, counts)
    assert not faults and sum(counts.values()) == EACH and counts["refused"] > 0


def test_an_input_depends_on_its_number_alone(tmp_path: Path) -> None:
    seen: dict[int, list[bytes]] = {0: [], 5: []}
    for start, texts in seen.items():
        kept = Target(
            "kept",
            lambda folder: [("x", b"a" * 50)],
            lambda path, texts=texts: texts.append(path.read_bytes()),
        )
        fuzz(kept, tmp_path, range(start, 10), 0, Counter())
    assert seen[0][6:] == seen[5][1:]  # the first of each is the valid file


def _fails(path: Path) -> Any:
    if path.read_bytes() != b"0.9,0.1":
        raise KeyError("x")


def _sleeps(path: Path) -> Any:
    if path.read_bytes() != b"0.9,0.1":
        time.sleep(3)


def _allocates(path: Path) -> Any:
    return len(bytearray(1 << 36)) if path.read_bytes() != b"0.9,0.1" else 0


def _trusts(path: Path) -> Any:
    return path.read_bytes()


@pytest.mark.parametrize(
    ("read", "kind"), [(_fails, "uncaught"), (_sleeps, "slow"), (_allocates, "large"), (_trusts, "other")]
)
def test_a_parser_that_is_not_careful_is_found(
    read: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "slow":
        monkeypatch.setattr("fuzz.SECONDS", 0.2)
    target = Target("careless", lambda folder: [("0.txt", b"0.9,0.1")], read, sealed=True)
    counts: Counter[str] = Counter()
    faults = fuzz(target, tmp_path, range(3), 0, counts)
    assert faults and set(counts) <= {kind, "same"}, counts
    assert kind in FAULTS or kind == "other"


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state.json"
    for count in ("30", "60"):
        monkeypatch.setattr(
            "sys.argv", ["fuzz.py", "--count", count, "--target", "weights", "--state", str(state)]
        )
        assert main() == 0
    kept = json.loads(state.read_text())["done"]["weights"]
    whole: Counter[str] = Counter()
    run("weights", range(60), 0, whole)
    assert kept == dict(whole)
