"""The one order in which reports list groups."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

import permgraph as pg
from permgraph.ir.names import in_order
from permgraph.reporting.sections import section_rows

NAMES = [
    *(f"cnn.{i}" for i in range(12)),
    *(f"heads.{i}{inner}" for i in range(12) for inner in ("", "/qk", "/v", "/v.1")),
    *(f"ffn.{i}" for i in range(12)),
    *("residual.0", "residual.0/inner", "embed.0", "channels.0", "channels.1", "ours.0"),
]


def row(name: str) -> dict[str, Any]:
    outer, _, inner = name.partition("/")
    role = outer.partition(".")[0] + (f"/{inner.partition('.')[0]}" if inner else "")
    return {"role": role, "units": 4, "moved": 50.0}


def test_any_order_becomes_the_same() -> None:
    shuffled = NAMES.copy()
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert list(in_order(dict.fromkeys(shuffled))) == NAMES
    assert sorted(NAMES) != NAMES, "an order by letters is another"


def test_permutations_list_their_groups_so_whether_matched_or_read(tmp_path: Path) -> None:
    """A file holds its arrays by letters, and JSON its keys."""
    made = pg.Permutations(
        {name: np.arange(4) for name in reversed(NAMES)},
        {"groups": {name: row(name) for name in reversed(NAMES)}, "matcher": "identity"},
    )
    made.save(tmp_path / "p.safetensors")
    read = pg.Permutations.load(tmp_path / "p.safetensors")
    for perms in (made, read):
        assert list(perms) == list(perms.report["groups"]) == NAMES
        assert [r[0] for r in section_rows(perms.report, by_section=False)] == NAMES
        assert [r[0] for r in section_rows(perms.report)][:6] == [
            *("CNN layer 0", "CNN layers 1-11", "heads", "heads/qk", "attention output", "W2"),
        ]
    assert made.digest == read.digest
