"""What can be told before any model is built: outputs, plans, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from permgraph.errors import FileError, MatchError, UsageError

if TYPE_CHECKING:
    from permgraph.ir.plan import Plan
    from permgraph.weights.methods import Chosen


def refuse_file(out: Path, force: bool, *inputs: str | Path | None) -> None:
    """A file that cannot be written, is an input of the command, or exists where `force` is not given."""
    from permgraph.atomic_write import refuse_output

    named = [Path(path) for path in inputs if path is not None]
    refuse_output(out, folder=False, force=force, inputs=[path for path in named if path.is_file()])


def refuse_foreign(out: Path, force: bool, *inputs: str | Path | None) -> None:
    """The same, and one that replaces what permgraph did not write, with `force` too."""
    refuse_file(out, force, *inputs)
    if out.is_file() and out.stat().st_size:
        with open(out, "rb") as stream:
            if b'"permgraph"' not in stream.read(4096):
                raise FileError(
                    f"{out}: exists, and permgraph did not write it. Remove it, or choose another -o."
                )


def refuse_weights(out: Path, force: bool, like: Path, *files: Path) -> None:
    """Weights, in the layout of the model `like`, that could not be written or would replace an input. Raises FileError."""
    from permgraph.atomic_write import refuse_output
    from permgraph.weights.record import RECORD

    folder = like.is_dir()
    if not folder and like.exists() and out.suffix != ".safetensors":
        raise FileError(f"{out}: the result of a single file is a .safetensors file; name it so.")
    inputs = [path for path in (like, *files) if path.exists()]
    refuse_output(out, folder=folder, force=force, inputs=inputs, mark=RECORD)


def refuse_checkpoint(checkpoint: Path | None, plan: Plan | None, *others: Path) -> None:
    """A --checkpoint that cannot be written, or holds the statistics of another plan."""
    from permgraph.ir.moments import Moments

    if checkpoint is None:
        return
    if checkpoint.resolve() in {path.resolve() for path in others}:
        raise UsageError(f"--checkpoint {checkpoint}: is another file of this command. Choose another.")
    refuse_foreign(checkpoint, True)
    if checkpoint.exists() and plan is not None and Moments.load(checkpoint).origin.plan != plan.digest:
        raise MatchError(
            f"{checkpoint}: a calibration with another plan. Remove it to start afresh, or give another --checkpoint."
        )


def planned_before(
    plan_file: Path | None, perms_file: Path | None, groups: str, exclude: str, mode: str
) -> Plan | None:
    """The plan that was named, checked against what else was typed; None where merge makes one."""
    from permgraph.ir.plan import Plan
    from permgraph.planning.modes import refuse_unknown_mode
    from permgraph.planning.selection import refuse_unknown_terms

    if perms_file is not None and plan_file is None:
        raise UsageError("--perms needs the --plan it was matched for.")
    if plan_file is None:
        refuse_unknown_mode(mode)
        refuse_unknown_terms(groups, exclude)
        return None
    for option, typed in (("--groups", groups), ("-x", exclude), ("--mode", mode != "exact")):
        if typed:
            raise UsageError(f"{option}: the groups are those of --plan {plan_file}. Give one or the other.")
    return Plan.load(plan_file)


def method_of(
    method: str, base: Path | None, parameters: Sequence[str], group_weights: Sequence[str], seed: int
) -> Chosen | None:
    """The merge method that was typed, None for the average. Raises UsageError, FileError."""
    from permgraph.weights.methods import choose, parse_parameters

    chosen = choose(method, base is not None, parse_parameters(parameters), seed)
    if chosen is not None and group_weights:
        raise UsageError(f"--method {method}: --group-weights are of the average. Leave one of both out.")
    if base is not None and not base.exists():
        raise FileError(f"{base}: no such file or folder.")
    return chosen
