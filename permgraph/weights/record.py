"""Record: what permgraph did to the weights of a checkpoint that it wrote.

In a folder it is the file `permgraph.json`, in a single file the metadata entry "permgraph".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.ir.codec import encode
from permgraph.ir.files import fitted, opened

RECORD = "permgraph.json"
FORMAT = 2


@dataclass(frozen=True)
class Applied:
    """Digests of a plan and of the permutations that were applied with it."""

    plan: str
    permutations: str


@dataclass(frozen=True)
class Record:
    """made_by   "apply", "unapply" or "merge"
    applied   what was applied to these weights, in order
    weights   of A and of B, for a merge
    b         what was applied to B before it was merged
    repaired  whether activation statistics were corrected afterwards
    function_check  what became of the function check, as `verification.checkpoints.Checked.record` says it
    """

    made_by: str
    applied: tuple[Applied, ...] = ()
    weights: tuple[float, ...] | None = None
    b: Applied | None = None
    repaired: bool = False
    function_check: dict[str, Any] | None = None

    def text(self) -> str:
        """As JSON with one spelling."""
        data = {"permgraph": "result", "format": FORMAT, **encode(self)}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))


def read_record(text: bytes | str, where: str | Path) -> Record:
    """What `Record.text` wrote. Raises FileError."""
    return fitted(Record, opened(text, "result", FORMAT, where), where)
