"""Provenance: from the record of a merge to the same weights again, and to a statement of it that can be signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from permgraph.atomic_write import refuse_output
from permgraph.errors import FileError, PlanError
from permgraph.ir.files import read_bounded
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.many import permutations_name
from permgraph.pipeline import CARD, PLAN
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.merge_files import merge_files
from permgraph.weights.methods import Chosen, choose
from permgraph.weights.record import RECORD, Mixed, Record

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:permgraph:merge:v1"  # the predicate is the record of the merge
BLOCK = 2**22  # bytes of a file that are read at once


def replay_merge(
    merged: Path,
    a: Path,
    others: Sequence[Path],
    out: Path,
    plan_file: Path | None = None,
    perms_files: Sequence[Path] = (),
    force: bool = False,
    base: Path | None = None,
) -> Path:
    """Merge A and the others again as the record of `merged` says. See `permgraph.replay`."""
    before, record = _merge_of(merged)
    inputs = (merged, a, *others, *([base] if base else []))
    refuse_output(out, folder=before.is_folder, force=force, inputs=inputs, mark=RECORD)
    _refuse_unrepeatable(merged, record)
    assert record.b is not None and record.merging is not None and record.weights is not None
    told, count = record.merging, len(record.merged_in)
    if len(others) != count:
        raise PlanError(
            f"{merged}: was merged from {count + 1} models, and {len(others) + 1} are given. Give each but the first with --b, "
            "in the order of the merge."
        )
    if perms_files and len(perms_files) != count:
        raise PlanError(
            f"{merged}: its {count} permutations are in as many files; --perms names {len(perms_files)}."
        )
    plan_file = _file_of(before, plan_file, PLAN, "--plan")
    plan, perms = Plan.load(plan_file), []
    _refuse_other(plan_file, "plan", merged, plan.digest, record.b.plan)
    of_models = told.inputs or ("",) * (count + 1)
    for i, step in enumerate(record.merged_in):
        file = _file_of(before, perms_files[i] if perms_files else None, permutations_name(i + 1), "--perms")
        one = Permutations.load(file)
        _refuse_other(file, "permutations", merged, one.digest, step.permutations)
        perms.append(
            replace(one, origin=replace(one.origin, weights_a=of_models[0], weights_b=of_models[i + 1]))
        )
    before.verify()
    by = told.method
    return merge_files(
        (a, *others),
        out,
        record.weights,
        plan=plan,
        perms=perms,
        tensor_weights={escape(key): own for key, own in told.tensor_weights.items()},
        integers_of_a=told.integers_of_a,
        parametrized=told.parametrized,
        state=told.state,
        checked=record.function_check,
        extra=_small_files(merged, plan, perms) if before.is_folder else None,
        force=force,
        like=merged,
        method=_method_of(merged, by, base),
        base=base,
        base_as=by.base if by else "",
    )


def _method_of(merged: Path, by: Mixed | None, base: Path | None) -> Chosen | None:
    """The method of a merge. Raises PlanError where a base is missing or not wanted, UsageError without mergekit."""
    if (by is not None and bool(by.base)) != (base is not None):
        lacks = f"{by.name if by else 'average'}: give its base network with --base"
        takes = f"{by.name if by else 'the average'}, which takes no base: leave --base out"
        raise PlanError(f"{merged}: was merged by {takes if base else lacks}.")
    return None if by is None else choose(by.name, base is not None, by.parameters, by.seed)


def _refuse_other(file: Path, what: str, merged: Path, found: str, wanted: str) -> None:
    """A plan or permutations that a merge was not made with. Raises PlanError."""
    if found != wanted:
        raise PlanError(
            f"{file}: not the {what} that {merged} was made with (digest {wanted[:12]}…, this has {found[:12]}…). Give that."
        )


def statement(merged: Path) -> dict[str, Any]:
    """What can be signed of a merged model: the SHA-256 of its files of weights, and the record of the merge, as a Statement
    of in-toto (https://github.com/in-toto/attestation). Raises FileError, PlanError."""
    checkpoint, record = _merge_of(merged)
    checkpoint.verify()
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": shard.path.name, "digest": {"sha256": _sha256(shard.path)}}
            for shard in checkpoint.shards
        ],
        "predicateType": PREDICATE,
        "predicate": record.document(),
    }


def statement_text(merged: Path) -> bytes:
    """The statement as a file."""
    return f"{json.dumps(statement(merged), indent=1)}\n".encode()


def _merge_of(path: Path) -> tuple[Checkpoint, Record]:
    """A merged model and its record. Raises FileError, and PlanError for what was not merged last."""
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    checkpoint = open_checkpoint(path, converted=False)
    if checkpoint.record is None:
        raise FileError(
            f"{path}: has no record, so `permgraph merge` did not write it. Give a model that it wrote."
        )
    if checkpoint.record.made_by != "merge":
        raise PlanError(
            f"{path}: `permgraph {checkpoint.record.made_by}` wrote it, not merge. Give the model that merge wrote."
        )
    return checkpoint, checkpoint.record


def _refuse_unrepeatable(merged: Path, record: Record) -> None:
    """A merge that took more than its record holds. Raises PlanError."""
    why = ""
    if record.repaired:
        why = "its activation statistics were corrected on data (--repair), which its record does not hold"
    elif record.merging is None or record.weights is None or len(record.weights) != 2 + len(record.others):
        why = "its record does not hold how it was merged"
    elif record.merging.unheld:
        why = f"it was merged with {', '.join(record.merging.unheld)}, which its record does not hold"
    elif record.b is None:
        why = "it was merged without a plan"
    if why:
        raise PlanError(f"{merged}: cannot be replayed: {why}. Merge A and B again.")


def _file_of(merged: Checkpoint, given: Path | None, name: str, option: str) -> Path:
    """The plan or the permutations: those that were named, or those that lie beside the weights. Raises FileError."""
    if given is not None:
        return given
    if not merged.is_folder or not (merged.path / name).is_file():
        raise FileError(f"{merged.path}: no {name} lies beside its weights. Name the file with {option}.")
    return merged.path / name


def _small_files(merged: Path, plan: Plan, perms: Sequence[Permutations]) -> dict[str, bytes]:
    """What merge wrote beside the weights."""
    card = merged / CARD
    return {
        **({CARD: read_bounded(card)} if card.is_file() else {}),
        PLAN: plan.to_bytes(),
        **{permutations_name(i): one.to_bytes() for i, one in enumerate(perms, 1)},
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterable[bytes]:
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            yield block
