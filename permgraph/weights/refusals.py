"""What is refused of weights: those that are not what was matched, was applied before, or is not finite."""

from __future__ import annotations

from collections.abc import Mapping

from permgraph.errors import PlanError
from permgraph.ir.fingerprint import Fingerprint
from permgraph.ir.plan import Plan
from permgraph.ir.values import refuse_other_values
from permgraph.weights.checkpoint import Checkpoint
from permgraph.weights.record import Applied
from permgraph.weights.rows import blocks_of
from permgraph.weights.tied import refuse_untied


def refuse_other_stored(plan: Plan, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
    """Refuse a checkpoint whose integer state is not the one that the plan follows, or that holds two numbers for one of a tied
    tensor. Raises PlanError, FileError.

    names   stored key → the plan's name
    """
    tables = {name: checkpoint.rows(key) for key, name in names.items() if name in plan.spec.values}
    refuse_other_values(plan.spec, tables, str(checkpoint.path))
    refuse_untied_stored(checkpoint, names)


def refuse_untied_stored(checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
    """See `refuse_untied`."""
    infos = checkpoint.infos
    refuse_untied(names, lambda key: (checkpoint.rows(key), infos[key].dtype), str(checkpoint.path))


LATER = "Match again; or pass --other-weights when these are a later state of that model."


def refuse_other_weights(
    whose: str, where: object, matched: str, weights: Fingerprint | None, advice: str = LATER
) -> None:
    """Refuse weights other than those that were matched, where both are known. Raises PlanError."""
    if matched and weights and weights.text and matched != weights.text:
        raise PlanError(
            f"{where}: the permutations were matched on other weights as {whose} (fingerprint {matched[:12]}…, these have "
            f"{weights.text[:12]}…). {advice}"
        )


def refuse_other_result(before: Checkpoint, now: Checkpoint) -> None:
    """Refuse weights that are not, byte for byte and file for file, those of an earlier result. Raises PlanError."""
    files = [
        {shard.path.name if c.is_folder else "": shard.infos for shard in c.shards} for c in (before, now)
    ]
    if files[0] != files[1]:
        raise PlanError(
            f"{before.path}: A has other tensors, or other files of them. Give the A that it was merged from."
        )
    for key, info in before.stored.items():
        for rows in blocks_of(info.shape, info.dtype.itemsize):
            old, new = (c.home[key].rows(key, rows) for c in (before, now))
            if old.tobytes() != new.tobytes():
                raise PlanError(
                    f"{before.path}: {key!r} comes out otherwise, so A or B is not what was merged, or this permgraph "
                    "averages otherwise than the one that merged. Give the A and B that it was merged from."
                )


def refuse_twice(checkpoint: Checkpoint, step: Applied) -> None:
    """Refuse a checkpoint to which these permutations were already applied, or into which they merged B. Raises PlanError."""
    record = checkpoint.record
    if record is not None and step in record.merged_in:
        raise PlanError(
            f"{checkpoint.path}: was merged with this plan and these permutations already (permutations "
            f"{step.permutations[:8]}…). Merge the originals instead."
        )
    if record is not None and step in record.applied:
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations was already applied to it "
            f"(permutations {step.permutations[:8]}…). Apply it to the original instead."
        )


def refuse_not_applied(checkpoint: Checkpoint, step: Applied) -> None:
    """Refuse a checkpoint to which these permutations were not the last to be applied. Raises PlanError."""
    if checkpoint.record is None or checkpoint.record.applied[-1:] != (step,):
        raise PlanError(
            f"{checkpoint.path}: this plan with these permutations is not what was applied to it last, so it cannot be "
            "undone. Give what permgraph apply wrote, with the same plan and permutations."
        )
