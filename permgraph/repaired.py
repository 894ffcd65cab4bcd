"""Repaired: a merged model with its activation statistics corrected (REPAIR), from file to file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.calibration import Bar, Calibration, batches_for, silent
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan

if TYPE_CHECKING:
    from permgraph.weights.encoder import Encoder


def repair_merged(
    merged: Path,
    a: Encoder,
    b: Encoder,
    plan: Plan,
    perms: Permutations,
    calibration: Calibration,
    weights: tuple[float, float],
    out: Path,
    *,
    force: bool = False,
    bar: Bar | None = None,
) -> str:
    """Write `merged` with its activation statistics corrected to `out` (REPAIR); returns what was done, in words."""
    from permgraph.weights.apply import apply
    from permgraph.weights.checkpoint import open_checkpoint
    from permgraph.weights.encoder import open_encoder
    from permgraph.weights.output import write_like
    from permgraph.weights.record import Record
    from permgraph.weights.repair import repair
    from permgraph.weights.tensors import held_by

    subject, model_b = open_encoder(merged, model_class=a.model_class), b.module()
    model_b.load_state_dict(apply(plan, perms, model_b.state_dict()))
    module = subject.module()
    pairs = batches_for(a, b, calibration)
    with (bar or silent)("repairing") as step:
        pairs.progress = step
        report = repair(plan, module, a.module(), model_b, pairs, weights)
    state = module.state_dict()
    source = open_checkpoint(merged)

    def blocks(key: str) -> Iterator[Any]:
        known = subject.stored.get(key)
        yield (
            source.rows(key) if known is None else held_by(state[known].to(source.infos[key].dtype.torch))[0]
        )

    record = replace(source.record or Record("merge"), repaired=True)
    write_like(source, out, source.infos, blocks, record, force=force)
    skipped = "".join(f"; {name} left as it is: {why}" for name, why in report["skipped"].items())
    scaled = f" ({len(report['scaled'])} of them in deviation only: no bias)" if report["scaled"] else ""
    return (
        f"repaired {len(report['layers'])} layers{scaled} and {len(report['batch_norm'])} BatchNorms{skipped}"
    )
