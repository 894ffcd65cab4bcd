"""Stored models: what a merge needs of two models whose weights are known, none of them built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.source import covered


@dataclass(frozen=True)
class StoredModel:
    """A model on disk: where it lies, its name, its tensors as they are stored, and which weights of a file."""

    path: Path
    name: str
    checkpoint: Checkpoint
    state: str = ""


def stored_pair(
    plan: Plan, perms: Permutations, a: Path, b: Path, state: str = ""
) -> tuple[StoredModel, StoredModel] | None:
    """A and B, where the fingerprints that they were matched with are known and all tensors of the plan are stored.

    Then they need not be compared as models: they were when they were matched, and the fingerprints prove that they are
    the same. None otherwise.
    """
    if not (perms.origin.weights_a and perms.origin.weights_b):
        return None
    found = tuple(_stored(path.expanduser(), state) for path in (a, b))
    return (found[0], found[1]) if all(covered(plan.spec, model.checkpoint) for model in found) else None


def _stored(path: Path, state: str) -> StoredModel:
    of_file = "" if path.is_dir() else state
    name = path.resolve().name if path.is_dir() else path.stem
    return StoredModel(path, name, open_checkpoint(path, of_file, converted=False), of_file)
