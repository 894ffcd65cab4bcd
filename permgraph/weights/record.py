"""Record: what permgraph did to the weights of a checkpoint that it wrote.

In a folder it is the file `permgraph.json`, in a single file the metadata entry "permgraph".
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permgraph.ir.codec import encode
from permgraph.ir.files import fitted, opened

RECORD = "permgraph.json"
FORMAT = 3


@dataclass(frozen=True)
class Applied:
    """Digests of a plan and of the permutations that were applied with it."""

    plan: str
    permutations: str


@dataclass(frozen=True)
class Mixed:
    """A method of mergekit that merged, in place of the average.

    parameters  as mergekit names them
    base        fingerprint of the base network's weights, "" for none
    mergekit    its version
    """

    name: str
    parameters: dict[str, Any]
    seed: int
    base: str
    mergekit: str


@dataclass(frozen=True)
class Merging:
    """What decides the numbers of a merge, beside the weights of A and B, the plan and the permutations.

    inputs   fingerprints of the weights of A, of B, and so on; () where the permutations do not say what they were matched on
    tensor_weights  keys of A whose weights are others
    parametrized, integers_of_a, state  as for `permgraph merge`
    unheld   names of further options that were given, whose values are not kept here
    version  of the permgraph that merged
    method   None for the weighted average; the file of such a merge has no such field
    """

    inputs: tuple[str, ...]
    tensor_weights: dict[str, tuple[float, ...]]
    parametrized: str
    integers_of_a: bool
    state: str
    unheld: tuple[str, ...]
    version: str
    method: Mixed | None = None


@dataclass(frozen=True)
class Record:
    """made_by   "apply", "unapply", "multiply" or "merge"
    applied   what was applied to these weights, in order
    weights   of A, of B, and so on, for a merge
    b         what was applied to B before it was merged
    others    the same of further models, in order; the file of a merge of two has no such field
    merging   what else decides the numbers of a merge
    repaired  whether activation statistics were corrected afterwards
    function_check  what became of the function check, as `verification.checkpoints.Checked.record` says it
    """

    made_by: str
    applied: tuple[Applied, ...] = ()
    weights: tuple[float, ...] | None = None
    b: Applied | None = None
    others: tuple[Applied, ...] = ()
    merging: Merging | None = None
    repaired: bool = False
    function_check: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The contents of the file."""
        fields = encode(self)
        if not self.others:
            del fields["others"]
        if self.merging is not None and self.merging.method is None:
            del fields["merging"]["method"]
        return {"permgraph": "result", "format": FORMAT, **fields}

    @property
    def merged_in(self) -> tuple[Applied, ...]:
        """What was applied to B, C and so on."""
        return () if self.b is None else (self.b, *self.others)

    def text(self) -> str:
        """As JSON with one spelling."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"))


def version() -> str:
    """Of this permgraph."""
    return str(vars(sys.modules["permgraph"])["__version__"])


def read_record(text: bytes | str, where: str | Path) -> Record:
    """What `Record.text` wrote. Raises FileError."""
    fields = {"others": [], **opened(text, "result", FORMAT, where)}
    if isinstance(fields.get("merging"), dict):
        fields["merging"] = {"method": None, **fields["merging"]}
    return fitted(Record, fields, where)
